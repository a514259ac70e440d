"""Which attempts to make next and in which order they enter the store: pure bookkeeping."""

from collections.abc import Iterator

from ..envs.errors import UserError
from .crew import Job
from .schema import Episode
from .store import Store

PATIENCE = 50  # attempts before a task is given up whose success rate is below 2 %


class Todo:
    """What is left of one task: successes still wanted, the next attempt to start and the next to enter."""

    def __init__(self, task: str, wanted: int, first: int, attempt: int):
        self.task, self.wanted, self.first = task, wanted, first
        self.started = self.entered = attempt
        self.waiting: dict[int, Episode | None] = {}
        self.kept = 0

    @property
    def short(self) -> bool:
        """Whether another attempt is needed even if all that are under way succeed."""
        failed = sum(episode is None for episode in self.waiting.values())
        return self.started - self.entered - failed < self.wanted


class Agenda:
    """Which attempt to make next, and in which order finished ones enter the store."""

    def __init__(self, tasks: list[Todo]):
        self.tasks = tasks

    @classmethod
    def of(cls, store: Store, names: list[str], episodes: int, first: int) -> "Agenda":
        """Go on after the last attempt of each task in the store; failed ones after it are made again."""
        todos, meta = [], store.meta
        for name in names:
            seeds = [int(s) for s, task in zip(meta.seed, meta.task, strict=True) if task == name]
            if len(seeds) > episodes:
                raise UserError(
                    f"{store.path} holds {len(seeds)} episodes of {name}, episodes={episodes} asks for fewer; "
                    "ask for at least as many, or use another path"
                )
            todos.append(Todo(name, episodes - len(seeds), first, max(seeds, default=first - 1) - first + 1))
            todos[-1].kept = len(seeds)
        return cls(todos)

    def next_job(self, *, ahead: int) -> Job | None:
        """The next attempt; None where enough are under way or `ahead` results wait for an earlier one."""
        todo = next((todo for todo in self.tasks if todo.short), None)
        if todo is None:
            return None
        full = sum(len(todo.waiting) for todo in self.tasks) >= ahead
        if full and not (todo.wanted and todo.started == todo.entered):
            return None  # only the one that all others wait for may start
        todo.started += 1
        return todo.task, todo.first + todo.started - 1

    def finish(self, job: Job, episode: Episode | None) -> None:
        todo = next(todo for todo in self.tasks if todo.task == job[0])
        todo.waiting[job[1] - todo.first] = episode

    def enter(self) -> Iterator[Episode]:
        """Episodes whose turn it is, in order."""
        for todo in self.tasks:
            while todo.wanted and todo.entered in todo.waiting:
                episode = todo.waiting.pop(todo.entered)
                todo.entered += 1
                if episode is not None:
                    todo.wanted -= 1
                    todo.kept += 1
                    yield episode
                _check_patience(todo)
            if todo.wanted:
                return


def _check_patience(todo: Todo) -> None:
    attempts = todo.entered
    if todo.wanted and attempts >= PATIENCE and todo.kept < attempts / PATIENCE:
        raise UserError(
            f"{todo.task}: {todo.kept} of {attempts} attempts succeeded; lower the noise, or keep "
            "failures with successes_only=False"
        )
