"""What the doctor looks at: a store's numbers in memory, and a summary of each episode's pictures."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..envs.errors import UserError
from ..envs.spec import Embodiment, Field
from .store import Store

Severity = Literal["error", "warning", "note"]
_SIDE = 96  # pictures are summarised at about this size


class Problem(NamedTuple):
    """What a check found: how bad, where, what, and how to mend it."""

    severity: Severity
    where: str
    message: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One camera in one episode of N frames."""

    same: np.ndarray  # (N - 1,) bool: frame n + 1 equals frame n in every pixel
    spread: np.ndarray  # (N,) standard deviation of a frame's pixels
    mean: np.ndarray  # (h, w, 3) uint8, over time, thinned
    first: np.ndarray  # (H, W, 3) uint8


@dataclass(frozen=True)
class Rows:
    """One episode: its number, where it is, and its rows."""

    index: int
    task: str
    seed: int
    source: str
    success: bool
    rows: slice

    @property
    def where(self) -> str:
        return f"episode {self.index} ({self.task}, seed {self.seed})"


@dataclass(kw_only=True)
class Evidence:
    """A store as far as it can be read. arrays: 'state', 'action' … (N, D); pictures: camera → episode → summary;
    slots: the table of the robot's slots, None for its own."""

    path: Path
    embodiment: Embodiment
    episodes: list[Rows]
    instructions: list[str]
    arrays: dict[str, np.ndarray]
    pictures: dict[str, dict[int, Pictures]]
    unreadable: list[Problem]
    checkpoint: dict[str, Any] = field(default_factory=dict)
    slots: str | None = None

    def of(self, episode: Rows, name: str) -> np.ndarray:
        """The rows of an array (n, D) that belong to an episode."""
        return self.arrays[name][episode.rows]

    def by_task(self) -> dict[str, list[Rows]]:
        groups: dict[str, list[Rows]] = {}
        for episode in self.episodes:
            groups.setdefault(episode.task, []).append(episode)
        return groups


def gather(store: Store) -> Evidence:
    """Read everything once. What cannot be read becomes a problem, and the checks see the rest."""
    arrays, unreadable = {}, []
    for name in _vectors(store):
        try:
            arrays[name] = store.read(name)
        except UserError as error:
            unreadable.append(_damage(f"array {name}", error))
    meta, ends = store.meta, store.episode_ends
    facts = zip(meta.task, meta.seed.tolist(), meta.source, meta.success.tolist(), strict=True)
    starts = [0, *ends[:-1]]
    episodes = [
        Rows(i, *fact, slice(int(start), int(end)))
        for i, (fact, start, end) in enumerate(zip(facts, starts, ends, strict=True))
    ]
    return Evidence(
        path=store.path,
        embodiment=store.embodiment,
        episodes=episodes,
        instructions=meta.instruction,
        arrays=arrays,
        pictures={c.name: _pictures(store, c.name, episodes, unreadable) for c in store.embodiment.cameras},
        unreadable=unreadable,
    )


def _vectors(store: Store) -> list[str]:
    """The small arrays that the store should have: video alone has neither state nor actions."""
    spec = store.embodiment
    sizes = {"state": spec.state_dim, "action": spec.action_dim, "action_executed": spec.action_dim}
    return [name for name, size in sizes.items() if size] + (["privileged"] if store.has_privileged else [])


def is_gripper(field_: Field) -> bool:
    return "gripper" in field_.name


def span(field_: Field) -> float:
    """The length of a field's diagonal, in its unit."""
    return float(np.linalg.norm(np.subtract(field_.high, field_.low)))


def _pictures(store: Store, camera: str, episodes: list[Rows], unreadable: list[Problem]) -> dict[int, Pictures]:
    found = {}
    for episode in episodes:
        try:
            found[episode.index] = _summary(store.read(f"image/{camera}", episode.rows))
        except UserError as error:
            unreadable.append(_damage(f"{episode.where}, camera {camera}", error))
    return found


def _summary(frames: np.ndarray) -> Pictures:
    flat = frames.reshape(len(frames), -1)
    step = max(1, frames.shape[1] // _SIDE)
    return Pictures(
        same=np.array([np.array_equal(a, b) for a, b in pairwise(flat)], bool),
        spread=np.array([frame.std() for frame in flat[:, :: step * step]]),
        mean=frames[:, ::step, ::step].mean(axis=0).round().astype(np.uint8),
        first=frames[0],
    )


def _damage(where: str, error: Exception) -> Problem:
    return Problem("error", where, str(error), "restore the file from a copy, or collect the store again")
