"""Who records demonstrations: this process, or several others, each with its own simulator and renderer."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Protocol, runtime_checkable

import numpy as np

from .. import envs
from ..envs.base import Env
from ..envs.errors import UserError, positive
from ..envs.spec import Camera
from .demonstrate import EXPERT, LABELLED, PILOT, Labels, Noise, Pilot, demonstrate
from .schema import Episode

# Mesa's software renderer and BLAS start a thread a core each; one a process is what scales
_ONE_THREAD: dict[str, str] = dict.fromkeys(("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

Job = tuple[str, int]  # task id, seed
Result = tuple[Job, Episode | None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How every attempt is recorded. `reference`: share of episodes drawn in the simulator's own look. `pilot`: who
    drives, None for the expert; `labels`: of the expert on another's drive. `max_steps`: None for the task's own.
    `every`: how many of the simulator's own steps a control step has."""

    noise: Noise
    hold: int
    keep_failures: bool
    cameras: tuple[Camera, ...] | None
    reference: float
    pilot: Pilot | None = None
    labels: Labels | None = None
    max_steps: int | None = None
    every: int = 1

    def __post_init__(self):
        if self.hold < 0 or not 0 <= self.reference <= 1:
            raise UserError(
                f"collect needs hold >= 0 and 0 <= reference <= 1, got hold={self.hold}, reference={self.reference}"
            )
        if self.labels is not None and self.pilot is None:
            raise UserError("labels are the expert's on another's drive: give the pilot as well")
        positive("every", self.every)
        if self.pilot is not None and self.pilot.every != self.every:
            raise UserError(
                f"the pilot drives every {self.pilot.every} steps, and every={self.every} is to be recorded"
            )
        if self.max_steps is not None and self.max_steps < 1:
            raise UserError(f"collect needs max_steps >= 1, or None for each task's own, got {self.max_steps}")

    @property
    def driver(self) -> str:
        """Who drives, and who tells the actions if that is another: an episode's source, but for its look."""
        return EXPERT if self.pilot is None else LABELLED if self.labels else PILOT

    def look(self, seed: int) -> str | None:
        """The render look of the episode of this seed, None for that of its cameras."""
        return "reference" if np.random.default_rng([seed, 1]).random() < self.reference else None


class Recorder:
    """Records attempts one after the other; keeps the simulators of one task open."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self._envs: dict[tuple[str, str | None], Env] = {}

    def record(self, job: Job) -> Episode | None:
        (task, seed), recipe = job, self.recipe
        look = recipe.look(seed)
        env = self._env(task, look)
        return demonstrate(
            env,
            seed,
            noise=recipe.noise,
            hold=recipe.hold,
            act=None if recipe.pilot is None else recipe.pilot.begin(env.task, seed),
            keep_failures=recipe.keep_failures,
            source=recipe.driver if look is None else f"{recipe.driver}@{look}",
            labels=recipe.labels,
            max_steps=recipe.max_steps,
        )

    def close(self) -> None:
        while self._envs:
            self._envs.popitem()[1].close()

    def _env(self, task: str, look: str | None) -> Env:
        if any(name != task for name, _ in self._envs):
            self.close()
        if (task, look) not in self._envs:
            env = envs.make(task, cameras=self.recipe.cameras, every=self.recipe.every)
            if look is not None:
                cameras = [dataclasses.replace(c, look=look) for c in env.embodiment.cameras]
                env.close()
                env = envs.make(task, cameras=cameras, every=self.recipe.every)
            self._envs[task, look] = env
        return self._envs[task, look]


@runtime_checkable
class Crew(Protocol):
    """Takes jobs while `free`, gives each back with its episode (None: failed, not kept), in any order."""

    @property
    def free(self) -> bool: ...
    def start(self, job: Job) -> None: ...
    def results(self) -> list[Result]: ...
    def close(self) -> None: ...


class Alone:
    """A crew of one: this process."""

    def __init__(self, recipe: Recipe):
        self._recorder = Recorder(recipe)
        self._jobs: list[Job] = []

    @property
    def free(self) -> bool:
        return not self._jobs

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def results(self) -> list[Result]:
        job = self._jobs.pop()
        return [(job, self._recorder.record(job))]

    def close(self) -> None:
        self._recorder.close()


class Processes:
    """A crew of worker processes. They end when told, and also when this process is killed."""

    def __init__(self, recipe: Recipe, workers: int):
        context = multiprocessing.get_context("spawn")  # GL contexts and threads do not survive a fork
        self._busy: dict[Connection, Job] = {}
        self._idle: list[Connection] = []
        self._processes = []
        with _environment(_ONE_THREAD):
            for i in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, recipe), name=f"collect-{i}", daemon=True)
                process.start()
                theirs.close()  # so that a worker's death ends our read
                self._processes.append(process)
                self._idle.append(ours)

    @property
    def free(self) -> bool:
        return bool(self._idle)

    def start(self, job: Job) -> None:
        connection = self._idle.pop(0)
        self._busy[connection] = job
        connection.send(job)

    def results(self) -> list[Result]:
        found = []
        for connection in wait(list(self._busy)):
            assert isinstance(connection, Connection)
            job = self._busy[connection]
            try:
                result = connection.recv()
            except (EOFError, ConnectionError):
                raise UserError(
                    f"the worker recording {job[0]} seed {job[1]} died, perhaps for want of memory; run "
                    "the same command again to continue, with fewer workers if it repeats (a script must "
                    "call collect under: if __name__ == '__main__')"
                ) from None
            if isinstance(result, BaseException):
                raise result
            del self._busy[connection]
            self._idle.append(connection)
            found.append((job, result))
        return found

    def close(self) -> None:
        for connection in (*self._idle, *self._busy):
            connection.close()  # a waiting worker reads the end and leaves, its renderer closed
        for process in self._processes:
            process.join(timeout=0.0 if self._busy else 5.0)
            if process.is_alive():
                process.terminate()
                process.join()
        self._processes.clear()


def _work(connection: Connection, recipe: Recipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends us in order
    recorder = Recorder(recipe)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone or done
        while True:
            job = connection.recv()
            try:
                result = recorder.record(job)
            except UserError as error:
                result = error
            except Exception:
                result = RuntimeError(f"recording {job[0]} seed {job[1]} failed\n{traceback.format_exc()}")
            connection.send(result)
    recorder.close()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started inside; those that the user has set stay."""
    added = {k: v for k, v in values.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
