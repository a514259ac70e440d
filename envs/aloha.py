"""ALOHA in simulation: two ViperX arms that hand over a cube; gym-aloha's scene and task on MuJoCo.

What the simulator does not give, and this adapter does: control steps that draw no pictures (its own draw three of 640
x 480 in each), episodes named by their seed, and an expert whose actions are the robot's own joint targets.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from .aloha_expert import plan
from .aloha_tasks import EMBODIMENT
from .base import Env
from .mujoco_env import MujocoEnv
from .render import import_mujoco
from .spec import Camera, Task

_TRANSFERRED = 4  # the task's reward for it


def make(task: Task, *, cameras: Sequence[Camera] | None, privileged: bool) -> Env:
    """The environment of one task; see `envs.make`."""
    return Aloha(task, cameras=cameras, privileged=privileged)


class Aloha(MujocoEnv):
    """gym-aloha's cube transfer behind the environment contract."""

    def __init__(self, task: Task, *, cameras: Sequence[Camera] | None = None, privileged: bool = False):
        self._mujoco = import_mujoco()
        from dm_control.rl.control import PhysicsError
        from gym_aloha.constants import DT
        from gym_aloha.tasks.sim import TransferCubeTask

        self._physics = _physics()
        self._task = TransferCubeTask()
        model, data = self._physics.model.ptr, self._physics.data.ptr
        super().__init__(EMBODIMENT, task, model, data, cameras=cameras, privileged=privileged)
        self._substeps = round(DT / model.opt.timestep)
        self._diverged = PhysicsError
        self._plan: np.ndarray | None = None
        self._planned_at = 0

    def _restart(self, seed: int) -> None:
        from gym_aloha.tasks import sim
        from gym_aloha.utils import sample_box_pose

        pose: Any = sample_box_pose(seed)
        sim.BOX_POSE[0] = pose  # a global of the package, read in the next lines
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)
        self._plan = None

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        self._task.before_step(action.astype(np.float64), self._physics)
        self._step_or_stop()
        reward = self._task.get_reward(self._physics)
        return float(reward), reward == _TRANSFERRED

    def _step_or_stop(self) -> None:
        """One control step; where targets are so far off that the simulator diverges, the arms stop instead."""
        everything = self._mujoco.mjtState.mjSTATE_INTEGRATION
        before = np.empty(self._mujoco.mj_stateSize(self._model, everything))
        self._mujoco.mj_getState(self._model, self._data, before, everything)
        try:
            self._physics.step(self._substeps)
        except self._diverged:
            self._mujoco.mj_setState(self._model, self._data, before, everything)
            self._data.qvel[:] = 0
            self._mujoco.mj_forward(self._model, self._data)

    def _state(self) -> np.ndarray:
        return self._task.get_qpos(self._physics)

    def privileged(self) -> np.ndarray:
        """Position [m] of the cube, (3,) float32."""
        return self._data.body("box").xpos.astype(np.float32)

    def expert_action(self) -> np.ndarray:
        """The joint targets of this step of a plan made when an episode's expert is first asked."""
        if self._plan is None:
            self._plan = plan(self._mujoco, self._model, self._data, self._data.body("box").xpos.copy())
            self._planned_at = self._steps
        step = min(self._steps - self._planned_at, len(self._plan) - 1)
        robot = self.embodiment
        return np.clip(self._plan[step], robot.action_low, robot.action_high).astype(np.float32)


def _physics() -> Any:
    from dm_control import mujoco
    from gym_aloha.constants import ASSETS_DIR

    logging.getLogger("absl").setLevel(
        logging.ERROR
    )  # where dm_control says that a step diverged, as it does in raising
    return mujoco.Physics.from_xml_path(str(ASSETS_DIR / "bimanual_viperx_transfer_cube.xml"))
