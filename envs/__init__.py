"""Robots and simulators, by task id ('suite/name'). Simulators are imported only when one is made."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .errors import UserError, choose
from .metaworld_tasks import EMBODIMENT as SAWYER
from .metaworld_tasks import TASKS as METAWORLD
from .spec import Camera, Embodiment, Field, Look, Task

if TYPE_CHECKING:
    from .base import Env

__all__ = [
    "Camera",
    "Embodiment",
    "Field",
    "Look",
    "Task",
    "UserError",
    "embodiment",
    "make",
    "resolve",
    "task",
    "tasks",
]

# suite → (its tasks, its robot, the module whose `make(task, cameras, privileged)` builds one); a new one is one line.
SUITES: dict[str, tuple[dict[str, Task], Embodiment, str]] = {
    "metaworld": (METAWORLD, SAWYER, ".metaworld"),
}


def tasks(suite: str | None = None) -> list[str]:
    """All task ids, sorted, of one suite or of all."""
    suites = SUITES if suite is None else [choose(suite, SUITES, "suite")]
    return sorted(task.id for name in suites for task in SUITES[name][0].values())


def resolve(name: str) -> str:
    """The full id of a task: 'suite/name-v3' itself, or 'name-v3' or 'name' while only one task is called so."""
    ids = tasks()
    matches = [task_id for task_id in ids if name in _names(task_id)]
    if len(matches) > 1:
        raise UserError(f"task {name!r} is in several suites; say which: {', '.join(matches)}")
    return matches[0] if matches else choose(name, ids, "task")


def _names(task_id: str) -> tuple[str, str, str]:
    bare = task_id.split("/", 1)[1]
    return task_id, bare, bare.rsplit("-v", 1)[0]


def task(name: str) -> Task:
    """The task of that id or bare name."""
    suite, bare = resolve(name).split("/", 1)
    return SUITES[suite][0][bare]


def embodiment(name: str) -> Embodiment:
    """The robot of the task of that id or bare name, with its default cameras; needs no simulator."""
    return SUITES[resolve(name).split("/", 1)[0]][1]


def make(name: str, *, cameras: Sequence[Camera] | None = None, privileged: bool = False) -> "Env":
    """An environment, ready for `reset`.

    cameras: other views than the embodiment's own. privileged: add simulator state to the observations.
    Raises `UserError` for an unknown task, mount or camera, and where the simulator is not installed.
    """
    found = task(name)
    suite = found.id.split("/", 1)[0]
    try:
        return import_module(SUITES[suite][2], __package__).make(found, cameras=cameras, privileged=privileged)
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).split(".")[0]
        raise UserError(f'{suite} needs the package {missing}; mend: pip install "foreact[sim]"') from error
