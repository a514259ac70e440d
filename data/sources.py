"""Parts of the training data: which episodes of a store are learned from, with actions or without."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.errors import UserError, choose, positive
from .cache import fingerprint
from .store import Store


@dataclass(frozen=True, kw_only=True)
class Source:
    """A part of the training data.

    path: a store · share: how much of each batch it fills, relative to the other sources · weight: how much its samples
    count in the loss, relative to those of the others · episodes: from the first to before the second of each task, in
    the store's order; None for all · actions: False takes the frames alone · state: False leaves out the robot's state,
    for a policy that should also know actions from frames alone · slots: where the
    robot's numbers lie in the slots that all robots share: a YAML file, or one of `slot_tables.TABLES`; None for what
    the store says, or the table of that robot's name · state_noise: as in `foreact train`, of this source alone ·
    every: so many recorded steps are read as one, of the same robot at a lower rate (`Embodiment.at`).
    """

    path: str
    share: float = 1.0
    weight: float = 1.0
    episodes: tuple[int, int] | None = None
    actions: bool = True
    state: bool = True
    slots: str | None = None
    state_noise: float | None = None
    every: int = 1

    def __post_init__(self):
        for name in ("share", "weight"):
            if getattr(self, name) <= 0:
                raise UserError(f"source {self.path}: {name} must be above 0, got {getattr(self, name)}")
        if self.state_noise is not None and self.state_noise < 0:
            raise UserError(f"source {self.path}: state_noise must be at least 0, got {self.state_noise}")
        positive(f"source {self.path}: every", self.every)
        if self.episodes is not None and not 0 <= self.episodes[0] < self.episodes[1]:
            raise UserError(f"source {self.path}: episodes must be [first, end] with first < end, got {self.episodes}")

    def pick(self, store: Store) -> np.ndarray:
        """The numbers of the episodes that are used. `UserError` where a task has fewer."""
        if self.episodes is None:
            return np.arange(len(store))
        tasks = np.array(store.meta.task)
        first, end = self.episodes
        for task in store.tasks:
            if (tasks == task).sum() < end:
                raise UserError(
                    f"{self.path} has {(tasks == task).sum()} episodes of {task}, episodes=[{first}, {end}]"
                )
        return np.sort(np.concatenate([np.flatnonzero(tasks == task)[first:end] for task in store.tasks]))


def sources_of(data: Any) -> list[Source]:
    """A path, or a list of paths and mappings with the fields of `Source`, as sources."""
    entries = [data] if isinstance(data, str | Path | Mapping | Source) else list(data)
    return [_source(entry) for entry in entries]


def _source(entry: Any) -> Source:
    if isinstance(entry, Source):
        return entry
    if not isinstance(entry, Mapping):
        return Source(path=str(entry))
    for key in entry:
        choose(str(key), Source.__dataclass_fields__, "setting of a data source:")
    episodes = entry.get("episodes")
    if "path" not in entry or (episodes is not None and len(episodes) != 2):
        raise UserError(f"a data source needs path=, and episodes=[first, end] if any; got {dict(entry)}")
    return Source(**{**entry, "path": str(entry["path"]), "episodes": tuple(episodes) if episodes else None})


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Which episodes of a store a training learned from.

    path: where the store was · episodes, mark: how many it had, and their `fingerprint` · spans: [first, end) of the
    numbers of those that were learned from, if only their frames.
    """

    path: str
    episodes: int
    mark: str
    spans: tuple[tuple[int, ...], ...]

    def of(self, store: Store) -> set[int]:
        """The numbers in that store; none where it is another, wherever it lies. It may have grown."""
        if len(store) < self.episodes or fingerprint(store, self.episodes) != self.mark:
            return set()
        return {number for first, end in self.spans for number in range(first, end)}
