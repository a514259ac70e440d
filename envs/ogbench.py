"""OGBench's ManipSpace: a UR5e arm on MuJoCo, with the benchmark's own scenes, physics and oracles.

What the simulator does not give, and this adapter does: one definite task an episode, a start that is not its end,
views from above and from the hand, and oracles that are the same in each run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import Env
from .mujoco_env import MujocoEnv
from .ogbench_tasks import EMBODIMENT, SLIDES, Slide
from .render import import_mujoco
from .spec import Camera, Task

_FAR = 0.1  # from the cube to its goal at the start, at least [m]
_AWAY = (0.30, 0.08), (0.45, 0.18)  # where the cube lies while something else is to be done [m]
# What slides has to be this near its goal, and the fingertips to its handle [m]: by the benchmark's own rule, 0.04 and
# nothing, an arm that flails closes three drawers of ten.
_SLID, _AT_HANDLE = 0.015, 0.04
_HIDDEN = (0.0, 0.0, -0.3)  # where the benchmark puts a goal that is not one
_PALE = (0.9, 0.9, 0.9, 0.6)  # its own colour, the cube's at 20 %, is hard to see on the dark floor
_GENTLE = 0.1  # least length of an oracle's move [m]; its own 0.4 is full speed at all times, 0.05 slips off the drawer
# Views that the benchmark lacks: the body, position and axes of the picture in that body's frame, field of view.
_CAMERAS = {
    "top": (None, (0.425, 0.0, 1.0), (0, 1, 0, -1, 0, 0), 50.0),
    "wrist": ("ur5e/robotiq/base", (-0.09, 0.0, 0.02), (0, 1, 0, 0.811, 0, -0.584), 75.0),
}


def make(task: Task, *, cameras: Sequence[Camera] | None, privileged: bool) -> Env:
    """The environment of one task; see `envs.make`."""
    return OGBench(task, cameras=cameras, privileged=privileged)


class OGBench(MujocoEnv):
    """One ManipSpace task behind the environment contract."""

    def __init__(self, task: Task, *, cameras: Sequence[Camera] | None = None, privileged: bool = False):
        self._mujoco = import_mujoco()
        self._slide = SLIDES[task.name]
        self._sim = _scene(self._slide)
        super().__init__(EMBODIMENT, task, self._sim.model, self._sim.data, cameras=cameras, privileged=privileged)
        self._oracle = _oracle(self._sim, self._slide)

    def _restart(self, seed: int) -> None:
        sim = self._sim
        sim.reset(seed=seed)
        if self._slide is None:
            while np.linalg.norm(self._object() - self._goal()) < _FAR:
                sim.set_new_target(return_info=False)
        else:
            self._prepare(self._slide)
        self._mujoco.mj_forward(sim.model, sim.data)
        sim.post_step()
        self._mark_goal()
        self._oracle._step, self._oracle._done = 0, False

    def _prepare(self, slide: Slide) -> None:
        """Nothing locked, the cube out of the way, and only what slides away from its goal."""
        sim = self._sim
        sim._cur_button_states[:] = sim._target_button_states[:] = 1
        sim._apply_button_states()
        sim.data.joint("object_joint_0").qpos[:2] = sim.np_random.uniform(*_AWAY)
        sim.data.mocap_pos[0] = _HIDDEN
        sim._target_task = slide.part
        low, high = sorted((slide.start, slide.goal))
        start = slide.start + sim.np_random.uniform(-0.01, 0.01)
        sim.data.joint(f"{slide.part}_slide").qpos[0] = np.clip(start, low, high)
        setattr(sim, f"_target_{slide.part}_pos", slide.goal)
        axis = {"drawer": 1, "window": 0}[slide.part]
        sim.model.site(f"{slide.part}_handle_center_target").pos[axis] = slide.goal

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self._sim.step(action.astype(np.float64))
        self._mark_goal()
        return float(reward), bool(info["success"]) if self._slide is None else self._slid(self._slide, info)

    def _slid(self, slide: Slide, info: dict[str, Any]) -> bool:
        """Where it belongs, and put there by its handle."""
        left = self._data.joint(f"{slide.part}_slide").qpos[0] - slide.goal
        apart = np.linalg.norm(info["proprio/effector_pos"] - self._object())
        return bool(abs(left) <= _SLID and apart <= _AT_HANDLE)

    def _mark_goal(self) -> None:
        self._model.geom("target_object_0").rgba = _PALE  # each step of the simulator puts back its own

    def _state(self) -> np.ndarray:
        info = self._sim.compute_ob_info()
        yaw = info["proprio/effector_yaw"]
        parts = (info["proprio/effector_pos"], np.cos(yaw), np.sin(yaw), 1 - info["proprio/gripper_opening"])
        return np.concatenate(parts)

    def _object(self) -> np.ndarray:
        if self._slide is None:
            return self._data.joint("object_joint_0").qpos[:3]
        return self._data.site(f"{self._slide.part}_handle_center").xpos

    def _goal(self) -> np.ndarray:
        if self._slide is None:
            return self._data.mocap_pos[0]  # not its body's place, which is moved later
        return self._data.site(f"{self._slide.part}_handle_center_target").xpos

    def privileged(self) -> np.ndarray:
        """Positions [m] of the cube or handle and of its goal, (6,) float32."""
        return np.concatenate([self._object(), self._goal()]).astype(np.float32)

    def expert_action(self) -> np.ndarray:
        """The benchmark's own closed-loop oracle for this task.

        When it is done it goes to the middle of the workspace, without turning: its own end, a pose drawn from NumPy's
        global generator, is one that nobody could learn.
        """
        info = self._sim.compute_ob_info()
        self._oracle._final_pos = np.mean(self._sim._arm_sampling_bounds, axis=0)
        self._oracle._final_yaw = info["proprio/effector_yaw"][0]
        return self._oracle.select_action(None, info).astype(np.float32)


def _scene(slide: Slide | None) -> Any:
    """The benchmark's environment, compiled, with more cameras than it has."""
    from ogbench.manipspace.envs.cube_env import CubeEnv
    from ogbench.manipspace.envs.scene_env import SceneEnv

    settings = {"mode": "data_collection", "terminate_at_goal": False}
    sim = CubeEnv("single", **settings) if slide is None else SceneEnv("single", **settings)
    tree = sim.build_mjcf_model()
    for name, (body, position, axes, fovy) in _CAMERAS.items():
        parent: Any = tree.worldbody if body is None else tree.find("body", body)
        parent.add("camera", name=name, pos=position, xyaxes=axes, fovy=fovy)
    sim._mjcf_model = tree
    sim.reset(seed=0)
    return sim


def _oracle(sim: Any, slide: Slide | None) -> Any:
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle

    oracles = {None: CubeMarkovOracle, "drawer": DrawerMarkovOracle, "window": WindowMarkovOracle}
    return oracles[slide and slide.part](env=sim, min_norm=_GENTLE)
