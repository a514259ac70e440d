"""Several stores in one training: which episodes of each, with actions or without, and their shares of a batch."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.errors import UserError, choose
from ..envs.spec import Embodiment
from .batch import Batch
from .cache import fingerprint
from .dataset import Dataset, split_episodes
from .loader import Loader
from .store import Store
from .windows import Windows


@dataclass(frozen=True, kw_only=True)
class Source:
    """A part of the training data.

    path: a store · share: how much of each batch it fills, relative to the other sources · episodes: from the first to
    before the second of each task, in the store's order; None for all · actions: False takes the frames alone · state:
    False leaves out the robot's state, for a policy that should also know actions from frames alone.
    """

    path: str
    share: float = 1.0
    episodes: tuple[int, int] | None = None
    actions: bool = True
    state: bool = True

    def __post_init__(self):
        if self.share <= 0:
            raise UserError(f"source {self.path}: share must be above 0, got {self.share}")
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


class Mixture:
    """The training data of one run: a dataset for each source, and the held-out episodes of those with actions.

    The first source with actions says what the robot is; the others must fit it. Episodes are held out from those that
    no source uses where there are any, or else a share `held_out` of the used ones. acting: the stores with actions,
    and the episodes of each that are learned from. learned: the same of every source. latents: a function of a store,
    as the dataset's `latents`. labels: a function of a store, the actions of sources without them. reader: the
    dataset's.
    """

    def __init__(
        self,
        data: Any,
        windows: Windows,
        *,
        held_out: float,
        seed: int,
        latents: Callable[[Store], dict[str, Path]] | None = None,
        labels: Callable[[Store], Path] | None = None,
        reader: str = "memmap",
    ):
        self.sources, self._labels, self._reader = sources_of(data), labels, reader
        self._latents = latents or (lambda store: {})
        with contextlib.ExitStack() as opened:
            stores = [opened.enter_context(Store.open(source.path)) for source in self.sources]
            self._read(stores, windows, held_out, seed)

    def _read(self, stores: list[Store], windows: Windows, held_out: float, seed: int) -> None:
        acting = [i for i, s in enumerate(self.sources) if s.actions and stores[i].embodiment.action_dim]
        if not acting:
            raise UserError(f"none of {[s.path for s in self.sources]} has actions; a policy needs one that has")
        self.main = stores[acting[0]]
        for i, (source, store) in enumerate(zip(self.sources, stores, strict=True)):
            (_fits if i in acting else _shares_a_camera)(self.main.embodiment, store, source)
        self.acting: list[tuple[Store, np.ndarray]] = []
        sentences: dict[str, str] = {}
        for store in stores:
            sentences |= store.instructions
        self.instructions = dict(sorted(sentences.items()))
        self.tasks = list(self.instructions)
        used = [source.pick(store) for source, store in zip(self.sources, stores, strict=True)]
        held = self._hold_out(stores, used, acting, held_out, seed)
        self.datasets, self.learned = [], []
        for i, (source, store) in enumerate(zip(self.sources, stores, strict=True)):
            episodes = np.setdiff1d(used[i], held.get(store.path, []))
            if i in acting:
                self.acting.append((store, episodes))
            self.datasets.append(self._dataset(store, windows, episodes, source))
            mark = {"path": source.path, "episodes": len(store), "mark": fingerprint(store, len(store))}
            self.learned.append(Learned(**mark, spans=_spans(episodes)))
        self.held_out = self._dataset(self.main, windows, held[self.main.path], None)
        self.learn = self.datasets[acting[0]]

    def _hold_out(
        self, stores: list[Store], used: list[np.ndarray], acting: list[int], held_out: float, seed: int
    ) -> dict[Path, np.ndarray]:
        """The episodes of each store with actions that nothing is learned from, not even their frames."""
        held: dict[Path, np.ndarray] = {}
        for i in acting:
            store = stores[i]
            here = np.concatenate([u for u, s in zip(used, stores, strict=True) if s.path == store.path])
            unused = np.setdiff1d(np.arange(len(store)), here)
            if store.path not in held:
                held[store.path] = unused if len(unused) else split_episodes(store, held_out, seed, used[i])[1]
        return held

    def _dataset(self, store: Store, windows: Windows, episodes: np.ndarray, source: Source | None) -> Dataset:
        options: dict[str, Any] = {"tasks": self.tasks, "latents": self._latents(store), "reader": self._reader}
        if source is not None:
            options |= {"actions": source.actions, "state": source.state}
            if self._labels and not source.actions:
                options["labels"] = self._labels(store)
        return Dataset(store, windows, episodes=episodes, **options)

    @property
    def embodiment(self) -> Embodiment:
        return self.main.embodiment

    def loaders(self, batch_size: int, seed: int, workers: int, weigh: Any) -> list[Loader]:
        """A loader for each source; their batch sizes add up to `batch_size`. weigh(dataset): weights, or None."""
        sizes = _sizes([s.share for s in self.sources], batch_size)
        return [
            Loader(data, batch_size=size, seed=seed + i, workers=workers, weights=weigh(data))
            for i, (data, size) in enumerate(zip(self.datasets, sizes, strict=True))
        ]


def iterate(loaders: Sequence[Loader], start: int) -> Iterator[tuple[Batch, ...]]:
    """The sources' batches side by side, from `start` on, prepared ahead."""
    with contextlib.ExitStack() as closing:
        parts = [closing.enter_context(contextlib.closing(loader.iterate(start))) for loader in loaders]  # type: ignore[type-var]
        yield from zip(*parts, strict=True)


def _spans(numbers: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Rising numbers as [first, end) spans."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return tuple((int(part[0]), int(part[-1]) + 1) for part in parts if len(part))


def _sizes(shares: Sequence[float], batch_size: int) -> list[int]:
    """Whole numbers in proportion to the shares that add up to batch_size, each at least 1."""
    if batch_size < len(shares):
        raise UserError(f"batch_size {batch_size} cannot hold a sample of each of {len(shares)} sources")
    sizes = np.diff(np.round(np.cumsum([0, *shares]) / sum(shares) * batch_size).astype(int))
    while sizes.min() < 1:
        sizes[sizes.argmin()] += 1
        sizes[sizes.argmax()] -= 1
    return sizes.tolist()


def _fits(main: Embodiment, store: Store, source: Source) -> None:
    lines = main.differences(store.embodiment)
    if lines:
        raise UserError(f"source {source.path} is of another robot or camera than the first:\n  " + "\n  ".join(lines))


def _shares_a_camera(main: Embodiment, store: Store, source: Source) -> None:
    ours, theirs = ([c.name for c in e.cameras] for e in (main, store.embodiment))
    if not set(ours) & set(theirs):
        raise UserError(
            f"source {source.path} has cameras {theirs}, none of the robot's {ours}; import it as one of them"
        )
