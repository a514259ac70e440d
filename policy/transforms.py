"""From what the world gives (pixels, SI units) to what the network sees, and back. One set, for training and acting."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..data.batch import Batch
from ..data.normalize import Normalizer
from ..envs.errors import UserError
from ..envs.spec import Embodiment
from .config import ModelConfig
from .tokens.images import patchify, resize, shift, unpatchify


@dataclass(frozen=True)
class Observation:
    """Normalised observation. images (B, V, T, H, W, 3) in [-1, 1] · state (B, T, S) · sentence (B,) or (B, 384)."""

    images: Tensor
    state: Tensor
    sentence: Tensor


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

    def observation(self, batch: Batch, sentence: Tensor, offset: Tensor | None = None) -> Observation:
        state = self.normalizers["state"].normalise(batch.state)
        return Observation(self.frames(batch.images, offset), state, sentence)

    def future(self, frames: Tensor, now: Tensor) -> Tensor:
        """Frames (B, V, F, H, W, 3) ahead of `now` (B, V, H, W, 3) as tokens (B, F·V·P, p·p·3)."""
        values = frames - now.unsqueeze(2) if self.config.future_delta else frames
        return rearrange(patchify(values / self.future_scale, self.config.future_patch), "b v f p c -> b (f v p) c")

    def unfuture(self, tokens: Tensor, now: Tensor) -> Tensor:
        """The inverse of `future`: (B, V, F, H, W, 3) in [-1, 1], clipped."""
        size = self.config.pixels
        patches = rearrange(tokens, "b (f v p) c -> b v f p c", f=len(self.config.future), v=now.shape[1])
        values = unpatchify(patches, self.config.future_patch, size, size) * self.future_scale
        return (values + now.unsqueeze(2) if self.config.future_delta else values).clamp(-1, 1)

    def beside_future(self, now: Tensor) -> Tensor:
        """The present frame's patches for each foreseen frame, to be stacked on channels: (B, F·V·P, p·p·3)."""
        patches = patchify(now, self.config.future_patch)
        return rearrange(
            patches.unsqueeze(2).expand(-1, -1, len(self.config.future), -1, -1), "b v f p c -> b (f v p) c"
        )

    def targets(self, batch: Batch, now: Tensor, offset: Tensor | None = None) -> dict[str, Tensor]:
        """Clean values of the segments that can be denoised: action (B, K, A) and, if foreseen, future (B, L, C)."""
        targets = {"action": self.normalizers["action"].normalise(batch.action)}
        if self.config.can_imagine and batch.future:
            targets["future"] = self.future(self.frames(batch.future, offset), now)
        return targets

    def commands(self, action: Tensor) -> np.ndarray:
        """Normalised actions (B, K, A) to the robot's units, clipped to its bounds."""
        low, high = self.embodiment.action_low, self.embodiment.action_high
        return np.clip(self.normalizers["action"].unnormalise(action).cpu().numpy(), low, high)


def fit_future_scale(config: ModelConfig, embodiment: Embodiment, batch: Batch) -> float:
    """Standard deviation of the future segment's values over a batch; 1 where nothing is foreseen."""
    if not (config.can_imagine and batch.future):
        return 1.0
    plain = Transforms(config, embodiment, {})
    now = plain.frames(batch.images)[:, :, -1]
    return max(float(plain.future(plain.frames(batch.future), now).std()), 1e-3)
