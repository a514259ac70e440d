"""Which samples, in which order, prepared ahead: a function of (seed, step), so a run resumes exactly."""

import itertools
import queue
import threading
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ..envs.errors import UserError
from .batch import Batch
from .dataset import Dataset
from .workers import batches

_AHEAD = 2  # batches prepared in advance, by the thread or by each process


class Loader:
    """Endless batches of a dataset in an order that is a function of (seed, step) alone.

    Without `weights` each epoch is a permutation, and batches run on across the ends of epochs. With
    `weights` (N,) each sample is drawn with a probability proportional to its weight. workers: processes that
    prepare batches, started afresh (a script needs its `if __name__ == "__main__"`); 0: a thread of this one.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
        weights: np.ndarray | None = None,
    ):
        if batch_size < 1 or workers < 0 or seed < 0:
            raise UserError(
                "the loader needs batch_size from 1 on, workers and seed from 0 on; "
                f"got batch_size={batch_size}, workers={workers}, seed={seed}"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self._cumulative = None if weights is None else _cumulative(np.asarray(weights, np.float64), len(dataset))

    def rows_at(self, step: int) -> np.ndarray:
        """The samples (B,) of batch `step`."""
        if step < 0:
            raise UserError(f"batches are numbered from 0, got {step}")
        if self._cumulative is not None:
            draws = np.random.default_rng([self.seed, step]).random(self.batch_size)
            return np.searchsorted(self._cumulative, draws, side="right")
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epoch, place = np.divmod(position, len(self.dataset))
        rows = np.empty(self.batch_size, np.int64)
        for e in np.unique(epoch):
            rows[epoch == e] = _permutation(self.seed, int(e), len(self.dataset))[place[epoch == e]]
        return rows

    def batch_at(self, step: int) -> Batch:
        """Batch `step`: the same samples in any process."""
        return self.dataset.batch(self.rows_at(step))

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """batch_at(start), batch_at(start + 1), … prepared ahead. Close the iterator (or drop it) to stop."""
        if self.workers:
            return batches(self.batch_at, start, workers=self.workers, ahead=_AHEAD)
        return self._from_thread(start)

    def _from_thread(self, start: int) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
        stop = threading.Event()

        def prepare() -> None:
            for step in itertools.count(start):
                try:
                    item = self.batch_at(step)
                except BaseException as error:
                    item = error
                ready.put(item)
                if stop.is_set() or isinstance(item, BaseException):
                    return

        thread = threading.Thread(target=prepare, name="foreact-loader", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            while thread.is_alive():
                _drain(ready)
                thread.join(0.01)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _cumulative(weights: np.ndarray, n: int) -> np.ndarray:
    if weights.shape != (n,):
        raise UserError(f"weights have shape {weights.shape}, the dataset has {n} samples")
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise UserError("weights must be finite, not negative, and not all zero")
    cumulative = np.cumsum(weights)
    return cumulative / cumulative[-1]


def _drain(ready: queue.Queue) -> None:
    while not ready.empty():
        ready.get_nowait()
