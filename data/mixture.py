"""Several stores in one training, of one robot or many: what is held out, and how much of a batch each fills."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.errors import UserError, choose
from ..envs.slot_tables import with_slots
from ..envs.spec import Embodiment, rig_of
from .batch import Batch
from .cache import fingerprint
from .dataset import Dataset, split_episodes
from .loader import Loader
from .slower import at_rate
from .sources import Learned, Source, sources_of
from .store import Store
from .windows import Windows


class Mixture:
    """The training data of one run: a dataset for each source, and the held-out episodes of those with actions.

    Sources with actions say what the robots are; those of one name must fit each other. The first is the main robot,
    and films of unknown ones are taken for its. Episodes are held out from those that no source uses where there are
    any, or else a share `held_out` of the used ones. robots {name: embodiment}, with their places where a source gives
    them · acting: the stores with actions, and the episodes of each that are learned from · held {robot: dataset}: the
    held-out episodes of its first store, `held_out` the main robot's · learn {robot: dataset}: of its first source ·
    learned: the episodes of every source · latents: a function of a store, as the dataset's `latents` · labels: a
    function of a store, the actions of sources without them · reader: the dataset's.
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
            recorded = [opened.enter_context(Store.open(source.path)) for source in self.sources]
            stores = [at_rate(store, s.every, s.slots) for store, s in zip(recorded, self.sources, strict=True)]
            self._read(stores, windows, held_out, seed)

    def _read(self, stores: list[Store], windows: Windows, held_out: float, seed: int) -> None:
        acting = [i for i, s in enumerate(self.sources) if s.actions and stores[i].embodiment.action_dim]
        if not acting:
            raise UserError(f"none of {[s.path for s in self.sources]} has actions; a policy needs one that has")
        self.main = stores[acting[0]]
        self.robots = _robots([(self.sources[i], stores[i].embodiment) for i in acting])
        for i, (source, store) in enumerate(zip(self.sources, stores, strict=True)):
            if i not in acting:
                _shares_a_camera(self._robot_of(store), store, source)
        self.acting: list[tuple[Store, np.ndarray]] = []
        sentences: dict[str, str] = {}
        for store in stores:
            sentences |= store.instructions
        self.instructions = dict(sorted(sentences.items()))
        self.tasks = list(self.instructions)
        used = [source.pick(store) for source, store in zip(self.sources, stores, strict=True)]
        held = self._hold_out(stores, used, acting, held_out, seed)
        self.datasets, self.learned = [], []
        self.learn: dict[str, Dataset] = {}
        self.held: dict[str, Dataset] = {}
        for i, (source, store) in enumerate(zip(self.sources, stores, strict=True)):
            episodes = np.setdiff1d(used[i], held.get(store.path, []))
            if i in acting:
                self.acting.append((store, episodes))
            data = self._dataset(store, windows, episodes, source)
            self.datasets.append(data)
            if i in acting and data.robot not in self.held:
                self.learn[data.robot] = data
                self.held[data.robot] = self._dataset(store, windows, held[store.path], None)
            mark = {"path": source.path, "episodes": len(store), "mark": fingerprint(store, len(store))}
            self.learned.append(Learned(**mark, spans=_spans(episodes)))

    @property
    def held_out(self) -> Dataset:
        """The held-out episodes of the main robot."""
        return self.held[self.main.embodiment.name]

    def has_privileged(self, robot: str) -> bool:
        """Do all stores of a robot with its actions hold the simulator's state?"""
        return all(store.has_privileged for store, _ in self.stores_of(robot))

    def stores_of(self, robot: str) -> list[tuple[Store, np.ndarray]]:
        """The stores of a robot with its actions, and the episodes of each that are learned from."""
        return [(store, episodes) for store, episodes in self.acting if store.embodiment.name == robot]

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
        latents = self._latents(store.recorded)
        options: dict[str, Any] = {"tasks": self.tasks, "latents": latents, "reader": self._reader}
        if source is not None:
            options |= {"actions": source.actions, "state": source.state}
            if self._labels and not source.actions:
                options["labels"] = self._labels(store)
        robot = self._robot_of(store)
        return Dataset(store, windows.on(robot.control_hz), episodes=episodes, robot=robot.name, **options)

    def _robot_of(self, store: Store) -> Embodiment:
        """Whose actions its are, or would be: films are taken for the main robot's."""
        return self.robots.get(store.embodiment.name, self.embodiment)

    @property
    def embodiment(self) -> Embodiment:
        """The main robot."""
        return self.robots[self.main.embodiment.name]

    @property
    def rig(self) -> Embodiment:
        """The main robot with the cameras of all."""
        return rig_of(list(self.robots.values()))

    def shares(self, mix: str = "shares", temperature: float = 1.0) -> list[float]:
        """How much of each batch a source fills, relative to the others, by one of `MIXES`.

        temperature: with mix 'temperature' a robot's weight is its number of steps to the power of 1 / temperature
        (Conneau et al. 2020, XLM-R, §3.1, α = 1 / temperature): 1 as the data are, a large one nearly balanced.
        """
        if temperature <= 0:
            raise UserError(f"the temperature of a mixture must be above 0, got {temperature}")
        weigh = MIXES[choose(mix, MIXES, "mix of sources")]
        parts = list(zip(self.datasets, self.sources, strict=True))
        factor = {}
        for robot in self.robots:
            own = [(len(data), source.share) for data, source in parts if data.robot == robot]
            steps, share = map(sum, zip(*own, strict=True))
            factor[robot] = weigh(share, steps, temperature)
        return [source.share * factor[data.robot] for data, source in parts]

    def loaders(
        self, batch_size: int, seed: int, workers: int, weigh: Any, *, mix: str = "shares", temperature: float = 1.0
    ) -> list[Loader]:
        """A loader for each source; their batch sizes add up to `batch_size`. weigh(dataset): weights, or None. mix,
        temperature: see `shares`."""
        sizes = _sizes(self.shares(mix, temperature), batch_size)
        return [
            Loader(data, batch_size=size, seed=seed + i, workers=workers, weights=weigh(data))
            for i, (data, size) in enumerate(zip(self.datasets, sizes, strict=True))
        ]


MIXES: dict[str, Callable[[float, int, float], float]] = {
    "shares": lambda share, steps, temperature: 1.0,
    "balanced": lambda share, steps, temperature: 1.0 / share,
    "temperature": lambda share, steps, temperature: steps ** (1 / temperature) / share,
}
"""What the shares of a robot's sources are multiplied by, from their sum, its steps and a temperature: they are taken
as they are, each robot gets as much, or more the more steps it has."""


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


def _robots(sources: Sequence[tuple[Source, Embodiment]]) -> dict[str, Embodiment]:
    """The robots of sources with actions; those of one name must be the same."""
    found: dict[str, Embodiment] = {}
    for source, own in sources:
        embodiment = own if source.slots is None else with_slots(own, source.slots)
        known = found.get(own.name)
        lines = [] if known is None else known.differences(embodiment)
        if lines:
            raise UserError(
                f"source {source.path} is of another robot or camera than the first of {own.name!r}:\n  "
                + "\n  ".join(lines)
            )
        if known is None or source.slots is not None:
            found[own.name] = embodiment
    return found


def _shares_a_camera(main: Embodiment, store: Store, source: Source) -> None:
    ours, theirs = ([c.name for c in e.cameras] for e in (main, store.embodiment))
    if not set(ours) & set(theirs):
        raise UserError(
            f"source {source.path} has cameras {theirs}, none of the robot's {ours}; import it as one of them"
        )
