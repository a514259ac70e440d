"""From what the world gives (pixels, SI units) to what the network sees, and back. One set, for training and acting."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..data.batch import Batch
from ..data.normalize import Normalizer
from ..envs.errors import UserError
from ..envs.spec import Embodiment
from .config import ModelConfig
from .shapes import Shape, beside_widths, segment_shapes
from .tokens.images import resize, shift


@dataclass(frozen=True)
class Observation:
    """Normalised observation.

    images (B, V, T, H, W, 3) in [-1, 1] · state (B, T, S), None with video alone · sentence (B,) or (B, 384) ·
    beside {segment: (B, L, C)}: the clean values that join a segment's channels.
    """

    images: Tensor
    state: Tensor | None
    sentence: Tensor
    beside: dict[str, Tensor] = field(default_factory=dict)

    @property
    def now(self) -> Tensor:
        """The present frames (B, V, H, W, 3)."""
        return self.images[:, :, -1]


@dataclass(frozen=True)
class Transforms:
    """Scaling, normalisation and patches of one checkpoint.

    normalizers: fitted ones for 'state' and 'action' (and 'privileged' where it is a training target) ·
    future_scale: standard deviation of what the future segment holds, before scaling.
    """

    config: ModelConfig
    embodiment: Embodiment
    normalizers: dict[str, Normalizer]
    future_scale: float = 1.0

    @property
    def cameras(self) -> list[str]:
        return [c.name for c in self.embodiment.cameras]

    def frames(self, images: dict[str, Tensor], offset: Tensor | None = None) -> Tensor:
        """uint8 {camera: (B, T, H, W, 3)} to (B, V, T, H, W, 3) in [-1, 1], moved by offset (B, 2) pixels if given."""
        missing = [c for c in self.cameras if c not in images]
        if missing:
            raise UserError(f"the observation has cameras {sorted(images)}, the policy also needs {missing}")
        views = []
        for name in self.cameras:
            frames = images[name] if offset is None else shift(images[name], offset)
            views.append(resize(frames.float() / 127.5 - 1, self.config.pixels))
        return torch.stack(views, dim=1)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The segments that can be denoised."""
        return segment_shapes(self.config, self.embodiment)

    def observation(self, batch: Batch, sentence: Tensor, offset: Tensor | None = None) -> Observation:
        return self.observe(self.frames(batch.images, offset), batch.state, sentence)

    def observe(
        self, images: Tensor, state: Tensor | None, sentence: Tensor, state_noise: Tensor | None = None
    ) -> Observation:
        """images (B, V, T, H, W, 3) in [-1, 1], state (B, T, S) in SI units; noise is added to the normalised state."""
        widths = beside_widths(self.config, self.embodiment)
        beside = {"future": self._patches(images[:, :, -1:], repeat=True)} if "future" in widths else {}
        if state is None:
            return Observation(images, None, sentence, beside)
        scaled = self.normalizers["state"].normalise(state)
        scaled = scaled if state_noise is None else scaled + state_noise
        if "action" in widths:
            beside["action"] = rearrange(scaled, "b t s -> b 1 (t s)")
        return Observation(images, scaled, sentence, beside)

    def _patches(self, frames: Tensor, *, repeat: bool = False) -> Tensor:
        """Frames (B, V, F, H, W, C) to tokens of the future segment; `repeat` gives the one frame to each step."""
        p = self.config.future_patch
        patches = rearrange(frames, "b v f (r p) (c q) d -> b f v r c (p q d)", p=p, q=p)
        shape = self.shapes["future"]
        if repeat and not shape.folded:
            patches = patches.expand(-1, shape.steps, -1, -1, -1, -1)
        return replace(shape, steps=patches.shape[1]).arrange(patches)

    def future(self, frames: Tensor, now: Tensor) -> Tensor:
        """Frames (B, V, F, H, W, 3) ahead of `now` (B, V, H, W, 3) as tokens (B, L, C)."""
        values = frames - now.unsqueeze(2) if self.config.future_delta else frames
        return self._patches(values / self.future_scale)

    def unfuture(self, tokens: Tensor, now: Tensor) -> Tensor:
        """The inverse of `future`: (B, V, F, H, W, 3) in [-1, 1], clipped."""
        p = self.config.future_patch
        patches = self.shapes["future"].restore(tokens)
        values = rearrange(patches, "b f v r c (p q d) -> b v f (r p) (c q) d", p=p, q=p) * self.future_scale
        return (values + now.unsqueeze(2) if self.config.future_delta else values).clamp(-1, 1)

    def targets(self, batch: Batch, now: Tensor, offset: Tensor | None = None) -> dict[str, Tensor]:
        """Clean tokens (B, L, C) of the segments that can be denoised: the actions and, if foreseen, the future."""
        targets = {}
        if batch.action is not None:
            action = self.normalizers["action"].normalise(batch.action)
            targets["action"] = self.shapes["action"].arrange(rearrange(action, "b k a -> b k 1 1 1 a"))
        if self.config.can_imagine and batch.future:
            targets["future"] = self.future(self.frames(batch.future, offset), now)
        return targets

    def keep(self, batch: Batch) -> dict[str, Tensor]:
        """Which entries of `targets` lie inside their episode: (B, L, 1 or C) bool."""
        padded = {"action": batch.action_pad, "future": batch.future_pad if self.config.can_imagine else None}
        return {name: self.shapes[name].spread(~pad) for name, pad in padded.items() if pad is not None}

    def commands(self, action: Tensor) -> np.ndarray:
        """Tokens of normalised actions (B, L, C) to chunks (B, K, A) in the robot's units, clipped to its bounds."""
        low, high = self.embodiment.action_low, self.embodiment.action_high
        chunk = rearrange(self.shapes["action"].restore(action), "b k 1 1 1 a -> b k a")
        return np.clip(self.normalizers["action"].unnormalise(chunk).cpu().numpy(), low, high)


def fit_future_scale(config: ModelConfig, embodiment: Embodiment, batch: Batch) -> float:
    """Standard deviation of the future segment's values over a batch; 1 where nothing is foreseen."""
    if not (config.can_imagine and batch.future):
        return 1.0
    plain = Transforms(config, embodiment, {})
    now = plain.frames(batch.images)[:, :, -1]
    return max(float(plain.future(plain.frames(batch.future), now).std()), 1e-3)
