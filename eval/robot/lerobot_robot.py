"""A lerobot robot (`lerobot.robots.Robot`) as one of ours; lerobot is imported only to make one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np

from ...envs.errors import UserError
from ...envs.spec import Embodiment
from .clock import Clock
from .robots import Stamped


@dataclass(frozen=True, kw_only=True)
class LerobotSettings:
    """type: lerobot's name of the robot · settings: of its config · state, action: names of the robot's features that
    are the policy's, in its order; None: all, in the robot's · cameras {policy's camera: the robot's}; others share the
    name.
    """

    type: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    state: tuple[str, ...] | None = None
    action: tuple[str, ...] | None = None
    cameras: dict[str, str] = field(default_factory=dict)


class LerobotRobot:
    """Drives any robot with lerobot's interface: `connect`, `get_observation`, `send_action`, `disconnect`, and the
    features that name its motors and cameras.

    embodiment: of the policy. settings: which of the robot's features are the policy's. ready: waits until the scene is
    set up for an episode. It has no simulator's eye for success: whoever watches must say. Raises `UserError` where
    features and embodiment do not fit.
    """

    def __init__(
        self,
        device: Any,
        embodiment: Embodiment,
        clock: Clock,
        *,
        task: str,
        instruction: str,
        settings: LerobotSettings | None = None,
        ready: Callable[[int], None] = lambda episode: None,
    ):
        self.device, self.embodiment, self.clock = device, embodiment, clock
        self.task, self.instruction, self.ready = task, instruction, ready
        seen, moved = device.observation_features, device.action_features
        settings = settings or LerobotSettings()
        self.state = list(settings.state or [k for k, v in seen.items() if not isinstance(v, tuple)])
        self.action = list(settings.action or moved)
        self.cameras = {c.name: settings.cameras.get(c.name, c.name) for c in embodiment.cameras}
        self._check(seen, moved)

    def connect(self) -> None:
        """Connect and, where the driver asks for it, calibrate."""
        if not self.device.is_connected:
            self.device.connect()

    def begin(self, episode: int) -> None:
        """Wait until the scene is ready."""
        self.ready(episode)

    def observe(self, pictures: bool = True) -> Stamped:
        """One reading of all motors and cameras."""
        moment = self.clock.now()  # before: what is read while this takes is at least so new
        seen = self.device.get_observation()
        observation: dict[str, Any] = {"state": np.array([seen[name] for name in self.state], np.float32)}
        if pictures:
            observation["images"] = {ours: np.asarray(seen[theirs]) for ours, theirs in self.cameras.items()}
        return Stamped(observation, moment)

    def act(self, action: np.ndarray) -> None:
        """Send it, one number for each of the robot's features."""
        self.device.send_action({name: float(value) for name, value in zip(self.action, action, strict=True)})

    def stop(self) -> None:
        """Send it to where it is. Only a driver of targets can be stopped so; others have their own switch."""
        if self.device.is_connected and set(self.action) <= set(self.state):
            seen = self.device.get_observation()
            self.device.send_action({name: float(seen[name]) for name in self.action})

    def outcome(self) -> str | None:
        """It cannot tell."""

    def close(self) -> None:
        """Disconnect, if it is connected."""
        if self.device.is_connected:
            self.device.disconnect()

    def _check(self, seen: Mapping[str, Any], moved: Mapping[str, Any]) -> None:
        robot = self.embodiment
        for what, names, there, size in (
            ("state", self.state, seen, robot.state_dim),
            ("action", self.action, moved, robot.action_dim),
        ):
            lacking = [name for name in names if name not in there]
            if lacking or len(names) != size:
                raise UserError(
                    f"the policy's {what} has {size} numbers, the robot's features are {list(there)}; name the {size} "
                    f"that are meant in lerobot.{what}=[…]" + (f" (it has no {', '.join(lacking)})" if lacking else "")
                )
        for camera in robot.cameras:
            size, theirs = (camera.height, camera.width, 3), self.cameras[camera.name]
            if tuple(seen.get(theirs, ())) != size:
                raise UserError(
                    f"the policy's camera {camera.name!r} gives {size}, the robot's {theirs!r} gives "
                    f"{seen.get(theirs, 'nothing')}; set the driver's camera to that size"
                )


def make_device(kind: str, settings: Mapping[str, Any]) -> Any:
    """lerobot's robot of that type, such as 'so101_follower', with the settings of its config; also one of a package
    named `lerobot_robot_…` (lerobot's plug-ins).

    Raises `UserError` where lerobot is not installed, or knows no such robot or setting.
    """
    try:
        robots = import_module("lerobot.robots")
    except ImportError as error:
        raise UserError(f"robot=lerobot needs lerobot: pip install lerobot ({error})") from error
    lacking = _register(robots)
    try:
        config = robots.RobotConfig.get_choice_class(kind)(**settings)
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(sorted(robots.RobotConfig.get_known_choices()))
        without = f"; not to be had here: {'; '.join(lacking)}" if lacking else ""
        raise UserError(
            f"lerobot has no robot {kind!r} with settings {dict(settings)}: {error}; it knows {known}{without}"
        ) from error
    return robots.make_robot_from_config(config)


def _register(robots: Any) -> list[str]:
    """lerobot knows a robot once its module has been imported. Import all; returns why some could not be."""
    lacking = []
    for module in iter_modules(robots.__path__, "lerobot.robots."):
        try:
            import_module(module.name)
        except ImportError as error:
            lacking.append(f"{module.name.rpartition('.')[2]} ({error})")
    import_module("lerobot.utils.import_utils").register_third_party_plugins()
    return lacking
