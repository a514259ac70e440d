"""A toy to collect from: a point that goes to a goal. Imported by processes that are killed, too."""

import time

import numpy as np
from foreact import envs
from foreact.data.collect import collect
from foreact.envs.base import Env
from foreact.envs.spec import Camera, Embodiment, Field, Task

TOY = Embodiment(
    name="toy",
    cameras=(Camera(name="main", mount="top", height=8, width=8),),
    state=(Field(name="arm_position", unit="m", low=(-1, -1), high=(1, 1)),),
    action=(
        Field(name="arm_velocity", unit="m/s", low=(-1, -1), high=(1, 1)),
        Field(name="gripper_effort", unit="1", low=(-1,), high=(1,)),
    ),
    privileged=(Field(name="goal", unit="m", low=(-1, -1), high=(1, 1)),),
    control_hz=10.0,
)
TASKS = {f"toy/{n}": Task(id=f"toy/{n}", instruction=n, success="there", max_steps=60) for n in ("go", "odd", "never")}


class Toy(Env):
    """A point that goes to a goal. 'odd' fails at every odd seed, 'never' always. Counts the pictures drawn."""

    drawn = 0
    seconds_a_step = 0.0

    def __init__(self, task, cameras=None):
        spec = TOY.to_dict()
        spec |= {"cameras": [vars(c) for c in cameras]} if cameras else {}
        super().__init__(Embodiment.from_dict(spec), task)

    def _restart(self, seed):
        rng = np.random.default_rng(seed)
        self.position, self.goal = rng.uniform(-0.9, 0.9, (2, 2))
        self.possible = not (self.task.name == "never" or (self.task.name == "odd" and seed % 2))

    def _advance(self, action):
        time.sleep(self.seconds_a_step)
        self.position = np.clip(self.position + 0.1 * action[:2], -1, 1)
        return 0.0, self.possible and np.abs(self.position - self.goal).max() < 0.1

    def _state(self):
        return self.position

    def privileged(self):
        return self.goal.astype(np.float32)

    def expert_action(self):
        return np.float32([*(9 * (self.goal - self.position)), 0.5])  # not clipped: collect must

    def _draw(self, camera):
        Toy.drawn += 1
        shade = np.uint8(200 if camera.look == "reference" else 100)
        return np.full((8, 8, 3), shade) + np.uint8(20 * (1 + self.position[0])), None


def use_toys(setattr_):
    setattr_(envs, "resolve", lambda name: name)
    setattr_(envs, "make", lambda name, cameras=None, privileged=False, every=1: Toy(TASKS[name], cameras))
    setattr_(envs, "packages", lambda name: ("mujoco",))


def content(store):
    meta = store.meta
    return [
        (
            *(meta.task[i], int(meta.seed[i]), meta.source[i]),
            *(x.tobytes() for x in (e.state, e.action, e.action_executed, e.images["main"])),
        )
        for i, e in ((i, store.episode(i)) for i in range(len(store)))
    ]


def run(path, tasks=("toy/go",), episodes=3, **kwargs):
    return collect(tasks, episodes, path, **({"workers": 1, "progress": False} | kwargs))
