"""The environment contract: a `gymnasium.Env` whose physics and pictures can be asked for apart."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .errors import UserError
from .spec import Camera, Embodiment, Field, Task

Obs = dict[str, Any]


class Env(gymnasium.Env):
    """One task of one robot. A simulator's adapter fills in the methods at the end.

    `step` is `advance` (physics only) followed by `observe` (which draws). Code that does not need a picture
    at every step calls the two apart. `reset(seed=k)` gives the same episode, bit for bit, in any process.
    """

    def __init__(self, embodiment: Embodiment, task: Task, *, observe_privileged: bool = False):
        self.embodiment = embodiment
        self.task = task
        self.metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": embodiment.control_hz}
        self.render_mode = "rgb_array"
        self._observe_privileged = observe_privileged
        self._steps = -1  # steps of the simulator's own rate since reset; -1 before the first
        self.action_space = spaces.Box(embodiment.action_low, embodiment.action_high, dtype=np.float32)
        self.observation_space = _observation_space(embodiment, observe_privileged)

    def slow_down(self, every: int) -> None:
        """From now on a control step is `every` of the present ones, with one action (`Embodiment.at`)."""
        self.embodiment = self.embodiment.at(every)
        self.metadata["render_fps"] = self.embodiment.control_hz

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Begin the episode that `seed` names; without one, the next of this environment's own generator.

        The seed in use is in ``info["seed"]``, so that every episode can be had again.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._restart(seed)
        self._steps = 0
        return self.observe(), {"seed": seed, "success": False}

    def advance(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Move the simulator by one control step, drawing nothing: (reward, success, truncated).

        `action` (A,) is clipped to its bounds. Of a step that has several of the simulator's own, rewards are added,
        success in any of them counts, and the task's limit, which is of those, may cut it short. Raises `UserError` for
        NaN, a wrong shape or a step too many.
        """
        action = self._checked(action)
        total, success = 0.0, False
        for _ in range(min(self.embodiment.every, self.task.max_steps - self._steps)):
            self._steps += 1
            reward, reached = self._advance(action)
            total, success = total + float(reward), success or bool(reached)
        return total, success, self._steps >= self.task.max_steps

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """`advance`, then `observe`. An episode terminates on success and is cut at the task's step limit."""
        reward, success, truncated = self.advance(action)
        return self.observe(), reward, success, truncated, {"success": success}

    def observe(self) -> Obs:
        """What the robot sees now. Keys: images, state, and where asked for depth [m] and privileged."""
        if self._steps < 0:
            raise UserError(f"{self.task.id}: nothing to observe before the first reset; call reset() first")
        obs: Obs = {"images": {}, "state": self.state()}
        for camera in self.embodiment.cameras:
            obs["images"][camera.name], depth = self._draw(camera)
            if depth is not None:
                obs.setdefault("depth", {})[camera.name] = depth
        if self._observe_privileged:
            obs["privileged"] = self.privileged()
        return obs

    def state(self) -> np.ndarray:
        """Proprioception (S,) float32 now; draws nothing."""
        return self._state().astype(np.float32)

    def render(self) -> np.ndarray:
        """The first camera's picture, for gymnasium's wrappers."""
        return self._draw(self.embodiment.cameras[0])[0]

    def _checked(self, action: np.ndarray) -> np.ndarray:
        robot, what = self.embodiment, f"{self.task.id}: action"
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (robot.action_dim,):
            fields = ", ".join(f"{f.name} ({f.size})" for f in robot.action)
            raise UserError(f"{what} has shape {action.shape}; {robot.name} takes ({robot.action_dim},): {fields}")
        if np.isnan(action).any():
            raise UserError(f"{what} {action.tolist()} has NaN; {robot.name} takes numbers")
        if not 0 <= self._steps < self.task.max_steps:
            when = "before the first reset" if self._steps < 0 else f"past its limit of {self.task.max_steps}"
            raise UserError(f"{self.task.id}: a step {when}; call reset() first")
        return np.clip(action, robot.action_low, robot.action_high)

    def close(self) -> None:
        """Free what the simulator holds. May be called twice."""

    def privileged(self) -> np.ndarray:
        """Simulator state (P,) float32, for debugging and training-only targets; never a policy's input."""
        raise NotImplementedError

    def expert_action(self) -> np.ndarray:
        """The scripted expert's action (A,) float32 from the simulator's own state, within the bounds."""
        raise NotImplementedError

    def _restart(self, seed: int) -> None:
        """Put the simulator at the start of episode `seed`, whatever went before."""
        raise NotImplementedError

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        """Apply a checked action; (reward, success)."""
        raise NotImplementedError

    def _state(self) -> np.ndarray:
        """Proprioception (S,)."""
        raise NotImplementedError

    def _draw(self, camera: Camera) -> tuple[np.ndarray, np.ndarray | None]:
        """A picture (H, W, 3) uint8 and, if the camera has it, depth (H, W) float32 in metres."""
        raise NotImplementedError


def _observation_space(embodiment: Embodiment, privileged: bool) -> spaces.Dict:
    images: dict[str, spaces.Space[Any]] = {}
    depth: dict[str, spaces.Space[Any]] = {}
    for c in embodiment.cameras:
        images[c.name] = spaces.Box(0, 255, (c.height, c.width, 3), np.uint8)
        if c.depth:
            depth[c.name] = spaces.Box(0, np.inf, (c.height, c.width), np.float32)
    parts: dict[str, spaces.Space[Any]] = {"images": spaces.Dict(images), "state": _box(embodiment.state)}
    if depth:
        parts["depth"] = spaces.Dict(depth)
    if privileged:
        parts["privileged"] = _box(embodiment.privileged)
    return spaces.Dict(parts)


def _box(fields: tuple[Field, ...]) -> spaces.Box:
    low = np.array([x for f in fields for x in f.low], np.float32)
    high = np.array([x for f in fields for x in f.high], np.float32)
    return spaces.Box(low, high, dtype=np.float32)
