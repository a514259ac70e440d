"""Metaworld v3: one Sawyer arm, 50 tasks, scripted experts, MuJoCo.

What the simulator does not give, and this adapter does: episodes named by their seed, nothing carried over
from the episode before, a first observation that agrees with the physics, goals that can be seen.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from .base import Env
from .metaworld_tasks import EMBODIMENT
from .mujoco_env import MujocoEnv
from .render import import_mujoco
from .spec import Camera, Task

# Goal markers that Metaworld draws too small, in the wrong place, or behind or below something, so that they
# cannot be seen at 96 pixels: the site, its radius and half height [m] as drawn here. Sites have no physics.
_MARKERS = {
    "coffee-pull-v3": ("mug_goal", 0.02, 0.02),
    "coffee-push-v3": ("mug_goal", 0.02, 0.02),
    "hand-insert-v3": ("goal", 0.02, 0.06),
    "peg-unplug-side-v3": ("goal", 0.02, 0.02),
    "plate-slide-v3": ("goal", 0.02, 0.02),
    "plate-slide-side-v3": ("goal", 0.02, 0.02),
    "push-wall-v3": ("goal", 0.02, 0.06),
    "sweep-v3": ("goal", 0.02, 0.02),
}


def make(task: Task, *, cameras: Sequence[Camera] | None, privileged: bool) -> Env:
    """The environment of one task; see `envs.make`."""
    return Metaworld(task, cameras=cameras, privileged=privileged)


class Metaworld(MujocoEnv):
    """One Metaworld task behind the environment contract."""

    def __init__(self, task: Task, *, cameras: Sequence[Camera] | None = None, privileged: bool = False):
        self._mujoco = import_mujoco()
        self._sim = bare(task.name)
        super().__init__(EMBODIMENT, task, self._sim.model, self._sim.data, cameras=cameras, privileged=privileged)
        if not any(camera.look == "stock" for camera in self.embodiment.cameras):
            _mark_goal(self._mujoco, self._sim.model, task.name)
        self._policy = _policies()[task.name]()
        self._pristine = _Pristine(self._sim)
        self._obs = np.zeros(39)

    def _restart(self, seed: int) -> None:
        sim = self._sim
        self._pristine.restore()
        sim.seed(seed)
        sim.reset()  # draws twice and keeps the second, as wherever Metaworld is seeded by its users
        # Several tasks move a body, a site or a joint after their last forward pass: without another one the
        # first picture and observation would show the previous draw.
        self._mujoco.mj_forward(sim.model, sim.data)
        now = sim._get_curr_obs_combined_no_goal()
        sim._prev_obs = now
        self._obs = np.hstack((now, now, sim._get_pos_goal()))

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        self._obs, reward, _, _, info = self._sim.step(action)
        return float(reward), bool(info["success"])

    def _state(self) -> np.ndarray:
        return self._obs[:4]

    def privileged(self) -> np.ndarray:
        """Positions [m] of first object, second object (zeros if none) and goal, (9,) float32."""
        return np.concatenate([self._obs[4:7], self._obs[11:14], self._obs[36:39]]).astype(np.float32)

    def expert_action(self) -> np.ndarray:
        """Metaworld's own scripted policy for this task, clipped to the action bounds."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every action that needs the clipping below
            action = self._policy.get_action(self._obs)
        return np.clip(action, self.embodiment.action_low, self.embodiment.action_high).astype(np.float32)


class _Pristine:
    """A simulator as it was built, to begin each episode from: the model's poses, its state, its attributes.

    Metaworld's tasks move bodies and sites in the model and keep positions as attributes; its reset puts back
    neither.
    """

    _POSES = ("body_pos", "body_quat", "site_pos", "site_quat", "geom_pos", "geom_quat")

    def __init__(self, sim: Any):
        self._sim = sim
        self._poses = {name: getattr(sim.model, name).copy() for name in self._POSES}
        # Shared, not copied: the simulator's structures, its spaces, and arrays that are views of its state.
        shared = [v for v in vars(sim).values() if _is_shared(v)]
        self._shared = {id(v): v for v in shared}
        self._attributes = self._copied(vars(sim))

    def _copied(self, attributes: dict[str, Any]) -> dict[str, Any]:
        return copy.deepcopy(attributes, dict(self._shared))

    def restore(self) -> None:
        for name, poses in self._poses.items():
            getattr(self._sim.model, name)[:] = poses
        import_mujoco().mj_resetData(self._sim.model, self._sim.data)
        vars(self._sim).clear()
        vars(self._sim).update(self._copied(self._attributes))


def _is_shared(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.base is not None
    return isinstance(value, gymnasium.Space) or type(value).__name__ in (
        "MjModel",
        "MjData",
        "MujocoRenderer",
    )


def bare(name: str, **options: Any) -> Any:
    """Metaworld's own environment of one task, seeded from outside, with the goal in its observation.

    Built from its class, which takes `options`: Metaworld's benchmarks first draw 50 goals, and freeze them.
    """
    sim = _classes()[name](**options)
    sim._partially_observable = False
    sim._freeze_rand_vec = False
    sim.seeded_rand_vec = True
    sim._set_task_called = True
    del sim.sawyer_observation_space  # cached while the goal was hidden
    assert sim.sawyer_observation_space is not None  # cached anew
    return sim


def _mark_goal(mujoco: Any, model: Any, name: str) -> None:
    if name not in _MARKERS:
        return
    site, radius, half_height = _MARKERS[name]
    index = model.site(site).id
    model.site_type[index] = mujoco.mjtGeom.mjGEOM_ELLIPSOID
    model.site_size[index] = (radius, radius, half_height)
    # A site written at its body's origin is compiled as fixed to it, so that sweep's goal would never move.
    # Only for these sites: basketball's task relies on its goal being fixed to the hoop.
    model.site_sameframe[index] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE


def _classes() -> dict[str, Any]:
    import_mujoco()  # chooses the GL library, and says what is missing
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return ALL_V3_ENVIRONMENTS


def _policies() -> dict[str, Any]:
    from metaworld.policies import ENV_POLICY_MAP

    return ENV_POLICY_MAP
