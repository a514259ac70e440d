"""The Fetch robot of gymnasium-robotics on MuJoCo: reach, push, pick and place.

What the simulator does not give, and this adapter does: goals in the pictures, a start that is not its end, a success
that random motion does not come by (the goal has to be held), and experts.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import Env
from .fetch_experts import EXPERTS
from .fetch_tasks import EMBODIMENT
from .mujoco_env import MujocoEnv
from .render import import_mujoco
from .spec import Camera, Task

_FAR = 0.1  # from what has to be at the goal to the goal at the start, at least [m]
_HOLD = 10  # steps at the goal that make a success
_GAIN = 0.05  # of a whole action [m]
_BALL = 0.03  # radius of what marks the goal [m]; the simulator's 0.02 is three pixels, and often behind the gripper
# Cameras of the model that would see the fingers' inside and the sky: the body in whose frame they are put, where
# there, and what they look at [m]. The head's becomes one that stands beside the table.
_AIMED = {
    "head_camera_rgb": ("world", (1.34, 1.85, 0.95), (1.32, 0.75, 0.55)),
    "gripper_camera_rgb": ("robot0:gripper_link", (-0.08, 0.0, 0.12), (0.12, 0.0, -0.02)),
}
_FINGERS = ("robot0:l_gripper_finger_joint", "robot0:r_gripper_finger_joint")


def make(task: Task, *, cameras: Sequence[Camera] | None, privileged: bool) -> Env:
    """The environment of one task; see `envs.make`."""
    return Fetch(task, cameras=cameras, privileged=privileged)


class Fetch(MujocoEnv):
    """One Fetch task behind the environment contract."""

    def __init__(self, task: Task, *, cameras: Sequence[Camera] | None = None, privileged: bool = False):
        self._mujoco = import_mujoco()
        self._sim = _classes()[task.name]()
        super().__init__(EMBODIMENT, task, self._sim.model, self._sim.data, cameras=cameras, privileged=privileged)
        for name, (body, position, target) in _AIMED.items():
            _aim(self._mujoco, self._model, self._data, name, body, np.array(position), np.array(target))
        self._model.site("target0").size = _BALL
        self._expert = EXPERTS[task.name]
        self._held = 0

    def _restart(self, seed: int) -> None:
        sim = self._sim
        sim.reset(seed=seed)
        while np.linalg.norm(self._object() - sim.goal) < _FAR:
            sim.goal = sim._sample_goal()
        self._model.site("target0").pos = sim.goal - self._model.body("floor0").pos
        self._mujoco.mj_forward(self._model, self._data)
        self._held = 0

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self._sim.step(action.astype(np.float64) * [1, 1, 1, -1])
        self._held = self._held + 1 if info["is_success"] else 0
        return float(reward), self._held >= _HOLD

    def _hand(self) -> np.ndarray:
        return self._data.site("robot0:grip").xpos

    def _object(self) -> np.ndarray:
        return self._data.site("object0").xpos if self._sim.has_object else self._hand()

    def _opening(self) -> float:
        return float(sum(self._data.joint(name).qpos[0] for name in _FINGERS)) / 0.1

    def _state(self) -> np.ndarray:
        return np.array([*self._hand(), self._opening()])

    def privileged(self) -> np.ndarray:
        """Positions [m] of the box (the hand where there is none) and the goal, (6,) float32."""
        return np.concatenate([self._object(), self._sim.goal]).astype(np.float32)

    def expert_action(self) -> np.ndarray:
        """The scripted expert's step towards where it wants the hand."""
        target, effort = self._expert(self._hand(), self._object(), self._sim.goal, self._opening())
        move = (target - self._hand()) / _GAIN
        return np.clip([*move, effort], -1, 1).astype(np.float32)


def _aim(mujoco: Any, model: Any, data: Any, name: str, body: str, position: np.ndarray, target: np.ndarray) -> None:
    """Put a camera that `body` carries to `position` (3,) of its frame, looking at `target` (3,), its z upwards."""
    carrier, camera = data.body(body), model.camera(name)
    mount = data.body(int(camera.bodyid[0]))
    back = (position - target) / np.linalg.norm(position - target)  # a camera looks along its own -z
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    axes = carrier.xmat.reshape(3, 3) @ np.stack([right, np.cross(back, right), back], 1)
    turn = mount.xmat.reshape(3, 3).T
    camera.pos = turn @ (carrier.xpos + carrier.xmat.reshape(3, 3) @ position - mount.xpos)
    mujoco.mju_mat2Quat(camera.quat, (turn @ axes).ravel())


def _classes() -> dict[str, Any]:
    with contextlib.redirect_stderr(io.StringIO()):  # the package prints a notice about its other robots
        from gymnasium_robotics.envs.fetch.pick_and_place import MujocoFetchPickAndPlaceEnv
        from gymnasium_robotics.envs.fetch.push import MujocoFetchPushEnv
        from gymnasium_robotics.envs.fetch.reach import MujocoFetchReachEnv

    return {
        "fetch-reach-v4": MujocoFetchReachEnv,
        "fetch-push-v4": MujocoFetchPushEnv,
        "fetch-pick-and-place-v4": MujocoFetchPickAndPlaceEnv,
    }
