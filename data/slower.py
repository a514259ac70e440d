"""A store read as if it had been recorded at a lower rate: rows are left out and actions put together."""

from functools import cached_property

import numpy as np

from ..envs.rates import changes, first_steps, repeated
from ..envs.slot_tables import with_slots
from ..envs.spec import Embodiment
from .store import Store


def at_rate(store: Store, every: int, slots: str | None = None) -> Store:
    """The store with steps of `every` recorded ones; itself where that is 1.

    slots: the robot's slot table, as of `Source`. Raises `UserError` where actions are read of which nothing tells what
    they are (`envs.rates.changes`).
    """
    if every == 1:
        return store
    recorded = store.recorded
    return SlowStore(recorded, every * store.embodiment.every // recorded.embodiment.every, slots)


def at_rate_of(store: Store, robot: Embodiment) -> Store:
    """The store with control steps as long as the robot's; as it is where those are no multiple of its own."""
    times, rest = divmod(robot.every, store.embodiment.every)
    return at_rate(store, times) if times and not rest else store


class SlowStore(Store):
    """Of each group of steps the pictures and the state of the first, and the action that does as much, repeated.

    Made by `at_rate`; it reads while `recorded` does.
    """

    def __init__(self, recorded: Store, every: int, slots: str | None):
        super().__init__(recorded.path, recorded._root, None)
        told = self.embodiment if slots is None else with_slots(self.embodiment, slots)
        self.embodiment = told.at(every)
        self._recorded = recorded
        self._rows, ends = first_steps(recorded.episode_ends, every)
        self._meta["episode_ends"] = ends.tolist()

    @property
    def recorded(self) -> Store:
        return self._recorded

    @property
    def recorded_rows(self) -> np.ndarray:
        return self._rows

    def read(self, name: str, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        rows = self._asked(rows)
        if name in ("action", "action_executed"):
            return self._actions[name][rows]
        return self._recorded.read(name, self._rows[rows])

    @cached_property
    def _actions(self) -> dict[str, np.ndarray]:
        change = changes(self.embodiment)
        names = ("action", "action_executed")
        return {name: repeated(self._recorded.read(name), self._rows, change) for name in names}
