"""How many pixels goal and object cover in each view: ``python -m foreact.envs.visible PIXELS [SUITE or TASK …]``.

The way to see that a policy can see what it is asked to move and where to, before it is trained. Of those of MuJoCo's
suites that tell the positions of both; by default Metaworld.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import SUITES, make, task, tasks, views
from .errors import UserError
from .fields import columns
from .mujoco_env import MujocoEnv

CLEAR = 20  # of 255: a pixel counts whose colour changes by more when the thing is not drawn
NEAR = 5e-3  # [m]: a marker so near to the goal is the goal's
HIDDEN_GROUPS = 3  # geoms of this group and above are not drawn
Counts = dict[str, list[int]]  # camera → pixels at the start of each episode


def visible(name: str, pixels: int, seeds: Sequence[int]) -> dict[str, Counts]:
    """Pixels of 'goal' and 'object' in all views of a task's suite, `pixels` a side, at the start of these episodes.

    The goal is its marker, where it has one that is drawn (none: no counts); the object the body that is drawn nearest
    to where the simulator says that the object is. Raises `UserError` for a task that does not tell these places.
    """
    env = make(name, cameras=views(name, list(SUITES[task(name).id.split("/")[0]].views), pixels))
    try:
        places = _places(env)
        found: dict[str, Counts] = {"goal": {}, "object": {}}
        for seed in seeds:
            shown = env.reset(seed=seed)[0]["images"]
            position = env.privileged()
            for what, without in (("goal", _without_marker), ("object", _without_body)):
                with without(env, position[places[what]]) as there:
                    for camera, frame in env.observe()["images"].items() if there else ():
                        changed = np.abs(shown[camera].astype(int) - frame).max(-1) > CLEAR
                        found[what].setdefault(camera, []).append(int(changed.sum()))
        return found
    finally:
        env.close()


def _places(env: Any) -> dict[str, np.ndarray]:
    """Where goal and object are among the privileged numbers."""
    known = {field.name: places for field, places in columns(env.embodiment.privileged)}
    wanted = {what: f"{what}_position" for what in ("goal", "object")}
    if not isinstance(env, MujocoEnv) or not set(wanted.values()) <= known.keys():
        raise UserError(f"{env.task.id} does not tell {' and '.join(wanted.values())} of a MuJoCo model")
    return {what: known[field] for what, field in wanted.items()}


@contextmanager
def _without_marker(env: Any, place: np.ndarray) -> Iterator[bool]:
    """The sites at a place not drawn; whether there are any."""
    model, kept = env._model, env._model.site_rgba.copy()
    at = (np.linalg.norm(env._data.site_xpos - place, axis=1) < NEAR) & (kept[:, 3] > 0)
    model.site_rgba[at, 3] = 0
    yield bool(at.any())
    model.site_rgba[:] = kept


@contextmanager
def _without_body(env: Any, place: np.ndarray) -> Iterator[bool]:
    """The drawn geoms of the body at a place not drawn, the world's and the robot's left out; whether there are any."""
    model, colours, materials = env._model, env._model.geom_rgba.copy(), env._model.geom_matid.copy()
    body, root = model.geom_bodyid, model.body_rootid[model.geom_bodyid]
    robot = {model.body_rootid[i] for i in range(model.nbody) if model.body(i).name in ("hand", "right_hand")}
    drawn = (model.geom_group < HIDDEN_GROUPS) & (colours[:, 3] > 0) & (body != 0) & ~np.isin(root, list(robot))
    away = np.where(drawn, np.linalg.norm(env._data.geom_xpos - place, axis=1), np.inf)
    own = drawn & (body == body[away.argmin()])
    model.geom_rgba[own, 3], model.geom_matid[own] = 0, -1  # a material has a colour of its own
    yield bool(own.any())
    model.geom_rgba[:], model.geom_matid[:] = colours, materials


def table(
    names: Sequence[str], pixels: int, seeds: Sequence[int], progress: Callable[[str], None] = lambda name: None
) -> str:
    """A Markdown table: the fewest pixels of these episodes and their median, for each task, thing and view."""
    lines: list[str] = []
    for name in names:
        progress(name)
        cameras = list(SUITES[task(name).id.split("/")[0]].views)
        if not lines:
            head = [f"{what}, {camera}" for what in ("goal", "object") for camera in cameras]
            lines = [f"| task | {' | '.join(head)} |", "|---" * (1 + len(head)) + "|"]
        found = visible(name, pixels, seeds)
        cells = [_cell(found[what].get(camera)) for what in ("goal", "object") for camera in cameras]
        lines.append(f"| {task(name).name.rsplit('-v', 1)[0]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(counts: list[int] | None) -> str:
    return "" if not counts else f"{min(counts)} · {np.median(counts):.0f}"


def main(argv: Sequence[str]) -> int:
    """Print the table of the tasks that are named, at so many pixels, over seeds 1000 to 1007."""
    if not argv or not argv[0].isdigit():
        print("usage: python -m foreact.envs.visible PIXELS [SUITE or TASK …]", file=sys.stderr)
        return 2
    names = [t for name in argv[1:] or ["metaworld"] for t in (tasks(name) if name in SUITES else [name])]
    print(table(names, int(argv[0]), range(1000, 1008), lambda name: print(name, file=sys.stderr)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
