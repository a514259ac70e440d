"""Robots and simulators, by task id ('suite/name'). Simulators are imported only when one is made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from . import aloha_tasks, fetch_tasks, metaworld_tasks, ogbench_tasks, pusht_tasks
from .cameras import Camera, Look
from .errors import UserError, choose
from .fields import Field
from .spec import Embodiment, Task

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
    "packages",
    "resolve",
    "task",
    "tasks",
    "views",
]


class Suite(NamedTuple):
    """A simulator's tasks by bare name, its robot, its named views, and the module whose `make` builds a task.

    `packages` decide what an episode is; `extra` of foreact installs them.
    """

    tasks: Mapping[str, Task]
    embodiment: Embodiment
    views: Mapping[str, Camera]
    module: str
    packages: tuple[str, ...] = ()
    extra: str = "robots"


def _suite_of(data: Any, module: str, packages: tuple[str, ...], extra: str = "robots") -> Suite:
    return Suite(data.TASKS, data.EMBODIMENT, data.VIEWS, module, packages, extra)


SUITES = {  # a new one is one line
    "aloha": _suite_of(aloha_tasks, ".aloha", ("mujoco", "dm-control", "gym-aloha")),
    "fetch": _suite_of(fetch_tasks, ".fetch", ("mujoco", "gymnasium-robotics")),
    "metaworld": _suite_of(metaworld_tasks, ".metaworld", ("mujoco", "metaworld"), "sim"),
    "ogbench": _suite_of(ogbench_tasks, ".ogbench", ("mujoco", "dm-control", "ogbench")),
    "pusht": _suite_of(pusht_tasks, ".pusht", ("pymunk", "gym-pusht")),
}


def tasks(suite: str | None = None) -> list[str]:
    """All task ids, sorted, of one suite or of all."""
    suites = SUITES if suite is None else [choose(suite, SUITES, "suite")]
    return sorted(task.id for name in suites for task in SUITES[name].tasks.values())


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
    return SUITES[suite].tasks[bare]


def embodiment(name: str) -> Embodiment:
    """The robot of the task of that id or bare name, with its default cameras; needs no simulator."""
    return _suite(name).embodiment


def views(
    name: str, cameras: Sequence[str] | None = None, pixels: int | None = None, *, depth: bool = False
) -> list[Camera]:
    """Named views of a task's suite, by default the embodiment's own cameras, drawn at `pixels` a side if given."""
    chosen = [c.name for c in embodiment(name).cameras] if cameras is None else cameras
    known = _suite(name).views
    found = [known[choose(camera, known, "camera")] for camera in chosen]
    sized = [c if pixels is None else replace(c, height=pixels, width=pixels) for c in found]
    return [replace(c, depth=True) for c in sized] if depth else sized


def packages(name: str) -> tuple[str, ...]:
    """The packages that simulate the task of that id or bare name."""
    return _suite(name).packages


def _suite(name: str) -> Suite:
    return SUITES[resolve(name).split("/", 1)[0]]


def make(name: str, *, cameras: Sequence[Camera] | None = None, privileged: bool = False, every: int = 1) -> "Env":
    """An environment, ready for `reset`.

    cameras: other views than the embodiment's own. privileged: add simulator state to the observations. every: how many
    of the simulator's own steps a control step has (`Embodiment.at`).
    Raises `UserError` for an unknown task, mount or camera, and where the simulator is not installed.
    """
    found, suite = task(name), _suite(name)
    try:
        env = import_module(suite.module, __package__).make(found, cameras=cameras, privileged=privileged)
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).split(".")[0]
        raise UserError(
            f'{found.id} needs the package {missing}; mend: pip install "foreact[{suite.extra}]"'
        ) from error
    env.slow_down(every)
    return env
