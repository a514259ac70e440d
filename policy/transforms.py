"""From what the world gives (pixels, SI units) to what the network sees, and back. One set, for training and acting."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..data.normalize import Normalizer
from ..data.windows import Windows
from ..envs.errors import UserError
from ..envs.slot_maps import SPACES, SlotMap
from ..envs.spec import Embodiment, rig_of
from .config import ModelConfig
from .observation import Maps, Observation
from .shapes import Shape, beside_widths, segment_shapes
from .tokens.images import resize, shift
from .tokens.kl import Tokenizer


@dataclass(frozen=True)
class Robot:
    """What a policy knows of one of its robots: the contract, and statistics of its training episodes."""

    embodiment: Embodiment
    normalizers: dict[str, Normalizer]


@dataclass(frozen=True)
class Transforms:
    """Scaling, normalisation and patches of one checkpoint, on one of its robots.

    normalizers: fitted ones for 'state' and 'action' (and 'privileged' where it is a training target), of slots where
    the preset has such · scales {foreseen segment: standard deviation of what it holds, before scaling}, 1 where it has
    none · tokenizer: of the frames that are foreseen, where the preset foresees latents · robots: all that the policy
    knows by name, this one too; empty where it is the only one.
    """

    config: ModelConfig
    embodiment: Embodiment
    normalizers: dict[str, Normalizer]
    scales: Mapping[str, float] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    robots: Mapping[str, Robot] = field(default_factory=dict)

    def on(self, robot: str) -> "Transforms":
        """Those of another robot of the policy. `UserError` where it knows none of that name."""
        if robot == self.embodiment.name:
            return self
        if robot not in self.robots:
            names = ", ".join(self.robots or [self.embodiment.name])
            raise UserError(f"policy {self.config.name!r} was trained on {names}, and not on robot {robot!r}")
        if robot not in self._others:
            known = self.robots[robot]
            self._others[robot] = replace(self, embodiment=known.embodiment, normalizers=known.normalizers)
        return self._others[robot]

    @cached_property
    def _others(self) -> dict[str, "Transforms"]:
        return {}

    @cached_property
    def rig(self) -> Embodiment:
        """The main robot with the cameras of all: what the network is built for."""
        return rig_of([robot.embodiment for robot in self.robots.values()]) if self.robots else self.embodiment

    @cached_property
    def windows(self) -> Windows:
        """What of an episode of this robot one sample sees."""
        return self.config.windows.on(self.embodiment.control_hz)

    @cached_property
    def lies(self) -> dict[str, SlotMap]:
        """Where the robot's own state and action lie in the space that robots share; none where they share none."""
        make = SPACES[self.config.space]
        return {} if make is None else {which: make(self.embodiment, which) for which in ("state", "action")}

    def scaled(self, which: str, own: Tensor) -> Tensor:
        """The robot's own numbers of 'state' or 'action' (..., D) as the network takes them."""
        return self.normalizers[which].normalise(self.lies[which].fill(own) if self.lies else own)

    def own(self, which: str, scaled: Tensor) -> np.ndarray:
        """The inverse of `scaled`."""
        values = self.normalizers[which].unnormalise(scaled).cpu().numpy()
        return self.lies[which].read(values) if self.lies else values

    def present_slots(self, which: str, like: Tensor) -> Tensor:
        """1 for each slot of 'state' or 'action' that the robot has, 0 for others: (128,), on the device of `like`."""
        return torch.from_numpy(self.lies[which].present).to(like.device, torch.float32)

    @property
    def cameras(self) -> list[str]:
        """Names of the robot's cameras, in their order."""
        return [c.name for c in self.embodiment.cameras]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The segments that can be denoised."""
        return segment_shapes(self.config, self.embodiment, self.windows.horizon)

    @property
    def foreseen(self) -> list[str]:
        """The segments that are pictures."""
        return [name for name in self.shapes if name != "action"]

    def frames(self, images: Mapping[str, Tensor], offset: Tensor | None = None) -> Tensor:
        """uint8 {camera: (B, T, H, W, 3)} to (B, V, T, H, W, 3) in [-1, 1], moved by offset (B, 2) pixels if given."""
        return self._views(images, offset, "cameras", lambda x: x.float() / 127.5 - 1)

    def distances(self, depth: Mapping[str, Tensor], offset: Tensor | None = None) -> Tensor:
        """Depth {camera: (B, T, H, W)} [m] to (B, V, T, H, W, 1) in [-1, 1], where 1 is `depth` metres and more."""
        far = self.config.depth
        return self._views(depth, offset, "depth of", lambda x: 2 * x.float().clamp(0, far).unsqueeze(-1) / far - 1)

    def metres(self, maps: Tensor) -> Tensor:
        """The inverse of `distances`, but for what was clipped: (..., 1) to metres (...)."""
        return (maps.squeeze(-1) + 1) * self.config.depth / 2

    def _views(
        self, images: Mapping[str, Tensor], offset: Tensor | None, what: str, scale: Callable[[Tensor], Tensor]
    ) -> Tensor:
        present = [c for c in self.cameras if c in images]
        if not present:
            raise UserError(f"there are {what} {sorted(images)}, and the policy sees {self.cameras}")
        views = []
        for name in present:
            pictures = scale(images[name])
            views.append(resize(pictures if offset is None else shift(pictures, offset), self.config.pixels))
        return torch.stack(views, dim=1)

    def seen(self, images: Mapping[str, Tensor], depth: Mapping[str, Tensor], offset: Tensor | None = None) -> Tensor:
        """What is observed: (B, V, T, H, W, 3), and depth as a fourth channel where the preset sees it."""
        frames = self.frames(images, offset)
        return torch.cat([frames, self.distances(depth, offset)], dim=-1) if self.config.depth else frames

    def maps(self, seen: Tensor, latents: Mapping[str, Tensor] | None = None) -> Maps:
        """The maps of each foreseen segment, from what `seen` gives; latents {camera: (B, T, h, w, C)} if known."""
        found = {"future": seen[..., :3], "depth": seen[..., 3:]}
        if self.tokenizer is not None:
            found["future"] = self.stored(latents) if latents else self.tokenizer.encode(seen[..., :3])
        return {name: found[name] for name in self.foreseen}

    def stored(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Latents {camera: (B, T, h, w, C)} of a store as one map (B, V, T, h, w, C)."""
        return torch.stack([latents[c].float() for c in self.cameras if c in latents], dim=1)

    def observe(
        self, seen: Tensor, now: Maps, state: Tensor | None, sentence: Tensor, state_noise: Tensor | None = None
    ) -> Observation:
        """What the network observes. now: maps of the present · state (B, T, S) in SI units; noise after scaling."""
        widths = beside_widths(self.config, self.embodiment)
        beside = {name: self._patches(name, now[name], repeat=True) for name in now if name in widths}
        scaled = None
        if state is not None:
            scaled = self.scaled("state", state)
            scaled = scaled if state_noise is None else scaled + state_noise
            if self.lies:
                there = self.present_slots("state", scaled)
                scaled = torch.cat([scaled * there, there.expand_as(scaled)], dim=-1)
            elif "action" in widths:
                beside["action"] = rearrange(scaled, "b t s -> b 1 (t s)")
        if self.lies:
            beside["action"] = self.present_slots("action", seen).expand(len(seen), self.windows.horizon, -1)
        hz = self.embodiment.control_hz
        rate = torch.full((len(seen),), hz, device=seen.device) if self.config.rate_token else None
        return Observation(seen, scaled, sentence, beside, now, rate=rate)

    def views(self, images: Collection[str]) -> tuple[int, ...] | None:
        """Which of the policy's cameras, those of all its robots, these are; None for all."""
        found = tuple(i for i, c in enumerate(self.rig.cameras) if c.name in images)
        return None if len(found) == len(self.rig.cameras) else found

    def _patches(self, name: str, maps: Tensor, *, repeat: bool = False) -> Tensor:
        """Pictures (B, V, F, H, W, C) to tokens of a segment; `repeat` gives the one picture to each step."""
        p, shape = self.config.patch(name), self.shapes[name]
        patches = rearrange(maps, "b v f (r p) (c q) d -> b f v r c (p q d)", p=p, q=p)
        if repeat and not shape.folded:
            patches = patches.expand(-1, shape.steps, -1, -1, -1, -1)
        return replace(shape, steps=patches.shape[1], views=patches.shape[2]).arrange(patches)

    def ahead(self, name: str, maps: Tensor, now: Tensor) -> Tensor:
        """Pictures (B, V, F, H, W, C) ahead of `now` (B, V, 1, H, W, C) as tokens (B, L, C) of a segment."""
        values = maps - now if self.config.future_delta else maps
        return self._patches(name, values / self.scales.get(name, 1.0))

    def pictures(self, name: str, tokens: Tensor, now: Tensor) -> Tensor:
        """The inverse of `ahead`, and of the tokenizer: (B, V, F, H, W, C) in [-1, 1], clipped."""
        p = self.config.patch(name)
        patches = self.shapes[name].restore(tokens)
        values = rearrange(patches, "b f v r c (p q d) -> b v f (r p) (c q) d", p=p, q=p) * self.scales.get(name, 1.0)
        maps = values + now if self.config.future_delta else values
        return self.tokenizer.decode(maps) if name == "future" and self.tokenizer else maps.clamp(-1, 1)

    @property
    def _told(self) -> str:
        """What the action segment holds."""
        return "state" if self.config.poses else "action"

    def action(self, action: Tensor) -> Tensor:
        """Chunks (B, K, A) of actions, or of poses (B, F, S), in the robot's units to tokens (B, L, C)."""
        return self.shapes["action"].arrange(rearrange(self.scaled(self._told, action), "b k a -> b k 1 1 1 a"))

    def commands(self, tokens: Tensor) -> np.ndarray:
        """The inverse of `action`; actions are clipped to the robot's bounds, poses to its state's."""
        fields = self.embodiment.state if self.config.poses else self.embodiment.action
        low, high = (np.concatenate([np.array(getattr(f, end), np.float32) for f in fields]) for end in ("low", "high"))
        chunk = rearrange(self.shapes["action"].restore(tokens), "b k 1 1 1 a -> b k a")
        return np.clip(self.own(self._told, chunk), low, high)
