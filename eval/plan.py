"""What is rolled out: the tasks, and the episodes of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..envs.errors import UserError
from ..envs.spec import Camera, Task
from .engine import Job


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is rolled out: episode i of each task begins with `env.reset(seed=seed + i)`.

    max_steps: of the simulator's own, of which a control step has `every` · video: films of the first so many episodes
    of each task, of every `film_every`-th control step.
    """

    tasks: tuple[Task, ...]
    episodes: int
    seed: int
    max_steps: int
    cameras: tuple[Camera, ...] | None
    every: int = 1
    video: int = 0
    film_every: int = 2

    def __post_init__(self):
        for name, least in {"episodes": 1, "max_steps": 1, "every": 1, "film_every": 1, "video": 0, "seed": 0}.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}")
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            what = "a name twice" if names else "no tasks"
            raise UserError(f"tasks: {what} in {[task.id for task in self.tasks]}; results are keyed by bare names")

    def jobs(self, done: set[tuple[str, int]]) -> Iterator[Job]:
        """Episodes that are not `done`, given as (bare task name, episode)."""
        for task in self.tasks:
            for i in range(self.episodes):
                if (task.name, i) not in done:
                    yield Job(task=task, episode=i, seed=self.seed + i, key=(self.seed, i))

    def describe(self) -> dict[str, Any]:
        """What decides the records and must be the same to resume; how much is filmed is not part of it."""
        cameras = None if self.cameras is None else [camera.to_dict() for camera in self.cameras]
        tasks = [task.id for task in self.tasks]
        found = {"tasks": tasks, "cameras": cameras}
        found |= {k: getattr(self, k) for k in ("episodes", "seed", "max_steps")}
        return found if self.every == 1 else found | {"every": self.every}
