"""The loop between worker processes and the policy: give out episodes, gather looks, infer in batches."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..envs.spec import Task
from .actors import PolicyActor
from .chunks import Chunks
from .policies import Asked
from .reports.film import Foresight
from .stage import Look, run
from .workers import Pool


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to roll out. seed: of the environment's reset; key: its noise is drawn for (*key, step)."""

    task: Task
    episode: int
    seed: int
    key: tuple[int, ...] = ()


@dataclass(kw_only=True)
class Running:
    """An episode under way: its chunks of actions, what each look cost and what was foreseen."""

    job: Job
    chunks: Chunks
    filmed: bool
    look: Look | None = None  # waits for inference
    costs: list[tuple[float, int]] = field(default_factory=list)  # (milliseconds, looks in the batch)
    foresights: list[Foresight] = field(default_factory=list)


class Schedule:
    """Episodes by task. A slot keeps its task while it can: to build costs more than to reset."""

    def __init__(self, jobs: Iterable[Job]):
        self._pending: dict[str, deque[Job]] = {}
        self._at_work: Counter[str] = Counter()
        for job in jobs:
            self._pending.setdefault(job.task.id, deque()).append(job)

    def __len__(self) -> int:
        return sum(map(len, self._pending.values()))

    def next(self, last: str | None) -> Job | None:
        """The next episode for a slot whose last task was `last`; None when all are given out."""
        if last is None or not self._pending.get(last):
            waiting = [task for task, jobs in self._pending.items() if jobs]
            if not waiting:
                return None
            self._at_work[last or ""] -= 1
            last = max(waiting, key=lambda task: len(self._pending[task]) / (1 + max(0, self._at_work[task])))
            self._at_work[last] += 1
        return self._pending[last].popleft()


class Engine:
    """Rolls out a schedule in a pool.

    launch: the command and its arguments that begin a job (`stage.begin`, or a command that plays it whole).
    finish: called with each finished episode and its last look. actor: answers the looks between.
    """

    def __init__(
        self,
        pool: Pool,
        schedule: Schedule,
        *,
        launch: Callable[[Job], tuple[Callable[..., Look], dict[str, Any]]],
        finish: Callable[[Running, Look], None],
        actor: PolicyActor | None = None,
        filmed: Callable[[Job], bool] = lambda job: False,
    ):
        self.pool, self.schedule, self.actor = pool, schedule, actor
        self.launch, self.finish, self.filmed = launch, finish, filmed
        self.running: dict[int, Running] = {}
        self.waiting: deque[int] = deque()  # slots, in the order in which they began to wait

    def run(self) -> None:
        """Until every episode is finished."""
        for slot in range(self.pool.slots):
            self._give(slot, None)
        while self.running:
            # Nobody waits for the slowest: whoever is there when a batch is full, or when none else can come.
            for slot, look in self.pool.gather(block=not self._enough()):
                self._take(slot, look)
            if self._enough():
                self._infer()

    def _give(self, slot: int, last: str | None) -> None:
        job = self.schedule.next(last)
        if job is None:
            return
        ensemble = self.actor.ensemble if self.actor else None
        self.running[slot] = Running(job=job, chunks=Chunks(ensemble), filmed=self.filmed(job))
        command, arguments = self.launch(job)
        self.pool.submit(slot, command, **arguments)

    def _take(self, slot: int, look: Look) -> None:
        if look.done:
            running = self.running.pop(slot)
            self._give(slot, running.job.task.id)  # before finish: the worker goes on while a film is written
            self.finish(running, look)
        else:
            self.running[slot].look = look
            self.waiting.append(slot)

    def _enough(self) -> bool:
        if self.actor is None or not self.waiting:
            return False
        return len(self.waiting) >= self.actor.rows or not self.pool.busy

    def _infer(self) -> None:
        assert self.actor is not None
        slots = [self.waiting.popleft() for _ in range(min(self.actor.rows, len(self.waiting)))]
        asked = [_asked(self.running[slot]) for slot in slots]
        chunks, took = self.actor.act(asked)
        for slot, one, chunk in zip(slots, asked, chunks, strict=True):
            running, step = self.running[slot], one.key[-1]
            running.costs.append((took, len(slots)))
            running.chunks.add(step, chunk)
            running.look = None
            self.pool.submit(slot, run, actions=running.chunks.actions(step, self.actor.steps))
        self._foresee(slots, asked)  # while the environments are at work

    def _foresee(self, slots: list[int], asked: list[Asked]) -> None:
        assert self.actor is not None
        rows = [i for i, slot in enumerate(slots) if self.running[slot].filmed]
        if not rows or not self.actor.can_imagine:
            return
        pictures = self.actor.imagine([asked[i] for i in rows])
        for j, i in enumerate(rows):
            foreseen = {camera: frames[j] for camera, frames in pictures.items()}
            foresight = Foresight(asked[i].key[-1], self.actor.future_offsets, foreseen)
            self.running[slots[i]].foresights.append(foresight)


def _asked(running: Running) -> Asked:
    job, look = running.job, running.look
    assert look is not None
    assert look.observation is not None
    return Asked(
        observation=look.observation,
        instruction=job.task.instruction,
        key=(*job.key, look.step),
        task=job.task.name,
    )
