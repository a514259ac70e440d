"""What an episode is, and what a store of episodes holds."""

from dataclasses import dataclass, field

import numpy as np

from ..envs.errors import UserError
from ..envs.spec import Embodiment

FORMAT_VERSION = 1


@dataclass(kw_only=True)
class Episode:
    """One whole demonstration or rollout of N control steps. Row n is what was seen and done at step n.

    images {camera: (N, H, W, 3) uint8, upright} · depth {camera: (N, H, W) float32, m} · state (N, S) ·
    action (N, A), what a policy learns · action_executed (N, A), what moved the robot ·
    privileged (N, P) or None.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    action: np.ndarray
    action_executed: np.ndarray
    privileged: np.ndarray | None = None
    depth: dict[str, np.ndarray] = field(default_factory=dict)
    task: str
    instruction: str
    seed: int
    source: str
    success: bool

    def __len__(self) -> int:
        return len(self.action)

    def validate(self, embodiment: Embodiment, *, privileged: bool | None = None) -> None:
        """Raise `UserError` where a shape, type or value does not fit the embodiment.

        privileged: whether the episode must (True) or must not (False) have privileged state; None: either.
        """
        if len(self) == 0:
            raise UserError(f"episode of {self.task} seed {self.seed} has no steps")
        if not self.task or not self.instruction:
            raise UserError(f"episode has task {self.task!r} and instruction {self.instruction!r}; it needs both")
        if privileged is not None and privileged != (self.privileged is not None):
            has, wants = ("no", "needs it") if privileged else ("a", "has none: drop it, or create one that has")
            raise UserError(f"episode has {has} privileged state and the store {wants}")
        self._check_cameras(embodiment)
        for name, (value, shape, dtype) in self._expected(embodiment).items():
            if value is None:
                raise UserError(f"episode lacks {name}; embodiment {embodiment.name!r} has it")
            if value.shape != shape or str(value.dtype) != dtype:
                raise UserError(f"episode {name} is {value.dtype} {value.shape}, the store needs {dtype} {shape}")
            if dtype == "float32" and not np.isfinite(value).all():
                raise UserError(f"episode {name} has NaN or infinite values (first at step {_first_bad(value)})")

    def _check_cameras(self, embodiment: Embodiment) -> None:
        known = {
            "images": {c.name for c in embodiment.cameras},
            "depth": {c.name for c in embodiment.cameras if c.depth},
        }
        for what, names in known.items():
            extra = getattr(self, what).keys() - names
            if extra:
                raise UserError(
                    f"episode has {what} of {sorted(extra)}; embodiment {embodiment.name!r}: {sorted(names)}"
                )

    def _expected(self, embodiment: Embodiment) -> dict[str, tuple[np.ndarray | None, tuple[int, ...], str]]:
        n = len(self)
        expected: dict[str, tuple[np.ndarray | None, tuple[int, ...], str]] = {
            "state": (self.state, (n, embodiment.state_dim), "float32"),
            "action": (self.action, (n, embodiment.action_dim), "float32"),
            "action_executed": (self.action_executed, (n, embodiment.action_dim), "float32"),
        }
        if self.privileged is not None:
            expected["privileged"] = (self.privileged, (n, embodiment.privileged_dim), "float32")
        for camera in embodiment.cameras:
            size = (n, camera.height, camera.width)
            expected[f"images[{camera.name!r}]"] = (self.images.get(camera.name), (*size, 3), "uint8")
            if camera.depth:
                expected[f"depth[{camera.name!r}]"] = (self.depth.get(camera.name), size, "float32")
        return expected


def _first_bad(value: np.ndarray) -> int:
    return int(np.argwhere(~np.isfinite(value))[0, 0])


def fake_episode(
    embodiment: Embodiment,
    *,
    steps: int = 8,
    seed: int = 0,
    task: str = "fake/task-0",
    privileged: bool = False,
) -> Episode:
    """A random episode that fits `embodiment`, for tests and benchmarks. The same seed gives the same bits.

    Frames are a random coarse picture that drifts one column a step, with noise in its upper quarter.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((steps, *shape), dtype=np.float32)

    def frames(height: int, width: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
        picture = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
        video = np.stack([np.roll(picture, n, axis=1) for n in range(steps)])
        video[:, : height // 4] = rng.integers(0, 256, (steps, height // 4, width, 3), dtype=np.uint8)
        return video

    low, high = embodiment.action_low, embodiment.action_high
    action = low + (high - low) * rng.random((steps, embodiment.action_dim), dtype=np.float32)
    return Episode(
        images={c.name: frames(c.height, c.width) for c in embodiment.cameras},
        depth={c.name: np.abs(normal(c.height, c.width)) for c in embodiment.cameras if c.depth},
        state=normal(embodiment.state_dim),
        action=action,
        action_executed=np.clip(action + np.float32(0.1) * normal(embodiment.action_dim), low, high),
        privileged=normal(embodiment.privileged_dim) if privileged else None,
        task=task,
        instruction=f"do {task}",
        seed=seed,
        source="fake",
        success=True,
    )
