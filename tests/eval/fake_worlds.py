"""A registry of toy environments: a dot that must reach a goal. Imported by worker processes, too."""

import os
import time

import numpy as np
from foreact.envs.base import Env
from foreact.envs.errors import UserError, choose
from foreact.envs.limits import Limit
from foreact.envs.spec import Camera, Embodiment, Field, Task

SIZE = 12
EMBODIMENT = Embodiment(
    name="dot",
    cameras=(Camera(name="main", mount="top", height=SIZE, width=SIZE),),
    state=(Field(name="position", unit="m", low=(-1, -1), high=(1, 1)),),
    action=(Field(name="velocity", unit="m/s", low=(-1, -1), high=(1, 1)),),
    privileged=(Field(name="goal", unit="m", low=(-1, -1), high=(1, 1)),),
    control_hz=10.0,
    limits=(Limit(field="velocity", kind="delta", drives="position", scale=0.1, low=(-1, -1), high=(1, 1)),),
)
KINDS = {"near": "easy", "slow": "easy", "far": "hard", "crash": "hard", "raise": "hard", "refuse": "hard"}
TASKS = {
    f"fake/{kind}": Task(
        id=f"fake/{kind}",
        instruction=f"go to the {kind} goal",
        success="at the goal",
        max_steps=60,
        group=group,
    )
    for kind, group in KINDS.items()
}


def tasks():
    return sorted(TASKS)


def task(name):
    return TASKS[choose(name if "/" in name else f"fake/{name}", TASKS, "task")]


def embodiment(name):
    return EMBODIMENT


def make(name, *, cameras=None, privileged=False):
    return Dot(task(name), cameras)


class Dot(Env):
    """The state moves by a tenth of the action. The picture shows the dot (red) and the goal (green)."""

    def __init__(self, task, cameras):
        embodiment = Embodiment.from_dict(EMBODIMENT.to_dict())
        if cameras is not None:
            embodiment = Embodiment.from_dict(EMBODIMENT.to_dict() | {"cameras": [vars(c) for c in cameras]})
        super().__init__(embodiment, task)
        self.kind = task.id.split("/")[1]
        self.drawn = 0

    def _restart(self, seed):
        rng = np.random.default_rng(seed)
        self.position = rng.uniform(-0.2, 0.2, 2)
        reach = 0.95 if self.kind == "far" else 0.5
        self.goal = rng.choice([-reach, reach], 2) * rng.uniform(0.8, 1, 2)

    def _advance(self, action):
        if self.kind == "slow":
            time.sleep(0.002)
        if self._steps == 2:
            if self.kind == "crash":
                os.write(2, b"the simulator fell over\n")
                os._exit(7)
            if self.kind == "raise":
                raise ZeroDivisionError("the simulator divided by zero")
            if self.kind == "refuse":
                raise UserError("the simulator has no batteries; put some in")
        self.position = np.clip(self.position + 0.1 * action.astype(np.float64), -1, 1)
        distance = float(np.abs(self.position - self.goal).max())
        return -distance, distance < 0.1

    def _state(self):
        return self.position

    def privileged(self):
        return self.goal.astype(np.float32)

    def expert_action(self):
        return np.clip(5 * (self.goal - self.position), -1, 1).astype(np.float32)

    def _draw(self, camera):
        self.drawn += 1
        picture = np.zeros((camera.height, camera.width, 3), np.uint8)
        for channel, place in enumerate((self.position, self.goal)):
            row, column = ((place + 1) / 2 * (camera.height - 1e-6)).astype(int)
            picture[row, column, channel] = 255
        return picture, None
