"""From (episode ends, history, horizon) to row indices and padding masks. Pure numpy, no loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..envs.errors import UserError


class WindowIndex(NamedTuple):
    """Rows of n windows. *_pad is True where a window leaves its episode and repeats the edge row."""

    obs: np.ndarray  # (n, T) int64, the last is now
    action: np.ndarray  # (n, K), the first is now
    future: np.ndarray  # (n, F)
    obs_pad: np.ndarray  # (n, T) bool
    action_pad: np.ndarray  # (n, K)
    future_pad: np.ndarray  # (n, F)
    step: np.ndarray  # (n,) position of now inside its episode


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What of an episode one sample sees, relative to its present step.

    n_obs_steps: observation steps, `obs_stride` steps apart, the last one now · horizon: actions, the first
    now · future: how many steps ahead each foreseen frame lies, rising, from 1 on; () for none · seconds: a chunk is
    cut to so many at the robot's control rate (`on`), 0 for all `horizon` actions.
    """

    n_obs_steps: int = 1
    horizon: int = 16
    future: Sequence[int] = ()
    obs_stride: int = 1
    seconds: float = 0.0

    def __post_init__(self):
        for name in ("n_obs_steps", "horizon", "obs_stride"):
            if not _is_count(getattr(self, name)):
                raise UserError(f"windows.{name} must be a whole number from 1 on, got {getattr(self, name)!r}")
        future = tuple(self.future)
        if not all(_is_count(f) for f in future) or list(future) != sorted(set(future)):
            raise UserError(f"windows.future must be rising numbers of steps ahead, from 1 on, got {future!r}")
        object.__setattr__(self, "future", future)

    def on(self, hz: float) -> "Windows":
        """The windows of a robot with that control rate. `UserError` where its chunk would be empty."""
        if not self.seconds:
            return self
        steps = min(self.horizon, round(self.seconds * hz))
        if steps < 1:
            raise UserError(f"a chunk of {self.seconds:g} s has no action at {hz:g} Hz; a step takes {1 / hz:g} s")
        return replace(self, horizon=steps, seconds=0.0)

    def at(self, episode_ends: np.ndarray, rows: np.ndarray) -> WindowIndex:
        """The windows whose present step is each of `rows` (n,). episode_ends: (E,) rising."""
        ends, rows = np.asarray(episode_ends, np.int64), np.asarray(rows, np.int64)
        n_steps = int(ends[-1]) if len(ends) else 0
        if len(rows) and (rows.min() < 0 or rows.max() >= n_steps):
            raise UserError(f"rows {rows.min()} to {rows.max()} asked of episodes with {n_steps} steps")
        episode = np.searchsorted(ends, rows, side="right")
        start, end = np.concatenate([[0], ends])[episode], ends[episode]

        def reach(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            wanted = rows[:, None] + offsets
            inside = np.clip(wanted, start[:, None], end[:, None] - 1)
            return inside, inside != wanted

        obs, obs_pad = reach(np.arange(1 - self.n_obs_steps, 1) * self.obs_stride)
        action, action_pad = reach(np.arange(self.horizon))
        future, future_pad = reach(np.array(self.future, np.int64))
        return WindowIndex(obs, action, future, obs_pad, action_pad, future_pad, rows - start)


def rows_of(episode_ends: np.ndarray, episodes: np.ndarray | Sequence[int]) -> np.ndarray:
    """All rows of `episodes` (indices, in the given order)."""
    ends, episodes = np.asarray(episode_ends, np.int64), np.asarray(episodes, np.int64)
    if len(episodes) and (episodes.min() < 0 or episodes.max() >= len(ends)):
        raise UserError(f"episodes {episodes.min()} to {episodes.max()} asked of {len(ends)}, numbered from 0")
    starts = np.concatenate([[0], ends]).tolist()
    parts = [np.arange(starts[e], starts[e + 1]) for e in episodes.tolist()]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1
