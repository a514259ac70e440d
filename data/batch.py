"""One training batch: what leaves the loader and enters the transforms."""

from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from ..envs.spec import Embodiment


@dataclass(kw_only=True)
class Batch:
    """B samples. T observation steps (the last is now), F future frames, K chunk actions.

    images {camera: (B, T, H, W, 3) uint8} · future {camera: (B, F, H, W, 3) uint8} · depth {camera: (B, T, H, W)
    float32, m} and future_depth where the embodiment has it · latents {camera: (B, 1 + F, h, w, C) float16} of the
    present frame and the future ones where a tokenizer made them · state (B, T, S) · future_state (B, F, S) ·
    action, action_executed (B, K, A) · privileged (B, P) at the present step, training targets only ·
    task (B,) index into the dataset's task list · step (B,) position inside the episode ·
    *_pad: True where a window reaches beyond its episode and repeats the edge · robot: the embodiment's name, one for
    all samples; '' for whichever the policy is on.
    Video without actions has no state, action, action_executed and action_pad.
    """

    images: dict[str, Tensor]
    state: Tensor | None
    action: Tensor | None
    action_executed: Tensor | None
    task: Tensor
    step: Tensor
    obs_pad: Tensor
    action_pad: Tensor | None
    future: dict[str, Tensor] = field(default_factory=dict)
    depth: dict[str, Tensor] = field(default_factory=dict)
    future_depth: dict[str, Tensor] = field(default_factory=dict)
    latents: dict[str, Tensor] = field(default_factory=dict)
    future_state: Tensor | None = None
    future_pad: Tensor | None = None
    privileged: Tensor | None = None
    robot: str = ""

    def __len__(self) -> int:
        return len(self.task)

    def to(self, device: torch.device | str) -> "Batch":
        def move(value):
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, dict):
                return {k: move(v) for k, v in value.items()}
            return value

        return Batch(**{f.name: move(getattr(self, f.name)) for f in fields(self)})


def fake_batch(
    embodiment: Embodiment,
    *,
    size: int = 2,
    n_obs_steps: int = 1,
    horizon: int = 4,
    n_future: int = 1,
    seed: int = 0,
) -> Batch:
    """A random batch that fits `embodiment`, for tests and dry runs."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    def frames(n: int) -> dict[str, Tensor]:
        return {
            c.name: torch.from_numpy(rng.integers(0, 256, (size, n, c.height, c.width, 3), dtype=np.uint8))
            for c in embodiment.cameras
        }

    def distances(n: int) -> dict[str, Tensor]:
        seen = [c for c in embodiment.cameras if c.depth]
        return {c.name: torch.from_numpy(rng.random((size, n, c.height, c.width), dtype=np.float32)) for c in seen}

    low, high = torch.from_numpy(embodiment.action_low), torch.from_numpy(embodiment.action_high)
    share = torch.from_numpy(rng.random((size, horizon, embodiment.action_dim), dtype=np.float32))
    action = low + (high - low) * share
    return Batch(
        images=frames(n_obs_steps),
        future=frames(n_future),
        depth=distances(n_obs_steps),
        future_depth=distances(n_future),
        state=normal(size, n_obs_steps, embodiment.state_dim),
        future_state=normal(size, n_future, embodiment.state_dim),
        action=action,
        action_executed=action.clone(),
        privileged=normal(size, embodiment.privileged_dim) if embodiment.privileged else None,
        task=torch.zeros(size, dtype=torch.int64),
        step=torch.arange(size),
        obs_pad=torch.zeros(size, n_obs_steps, dtype=torch.bool),
        action_pad=torch.zeros(size, horizon, dtype=torch.bool),
        future_pad=torch.zeros(size, n_future, dtype=torch.bool),
        robot=embodiment.name,
    )
