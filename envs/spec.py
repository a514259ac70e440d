"""What every robot and simulator says about itself: cameras, state and action fields, units, rate.

The spec travels inside each store and each checkpoint, so that a mismatch is an error that names both sides
and not a policy that silently fails. Pure data: numpy and the standard library only, like its parts in cameras.py,
fields.py and limits.py.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .cameras import Camera
from .errors import UserError, positive
from .fields import Field, Place
from .limits import Limit, check


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """The contract that environments, stores, checkpoints and robots share.

    state, action, privileged: fields in the order in which they are concatenated. `privileged` is simulator
    state (object and goal positions) for debugging and training-only targets; no policy input can reach it.
    limits: what its actions may do to a robot, a row for each action field; empty where nobody has said.
    every: how many steps of the robot's own rate a control step has, all with the same action; see `at`.
    """

    name: str
    cameras: tuple[Camera, ...]
    state: tuple[Field, ...]
    action: tuple[Field, ...]
    privileged: tuple[Field, ...] = ()
    control_hz: float
    conventions: dict[str, str] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    every: int = 1

    def __post_init__(self):
        names = [c.name for c in self.cameras]
        if len(set(names)) != len(names):
            raise UserError(f"embodiment {self.name!r}: two cameras share a name in {names}")
        check(self.limits, self.name, self.state, self.action)
        positive(f"embodiment {self.name!r}: every", self.every)

    def at(self, every: int) -> "Embodiment":
        """The same robot with control steps of `every` of its present ones, in which the action is repeated.

        A number of an action means what it meant, and its place in the slots stays, because units '…/step' are of the
        robot's own steps. What is told of a control step, how far a target is followed and what a limited change moves,
        is `every` times as much. `UserError` for an `every` below 1.
        """
        positive("every", every)
        if every == 1:
            return self
        steps = every * self.every
        hz = self.own_hz / steps
        return replace(
            self,
            name=f"{self.own_name}@{hz:g}hz",
            control_hz=hz,
            every=steps,
            action=tuple(f.longer(every) for f in self.action),
            limits=tuple(replace(x, scale=every * x.scale) if x.kind == "delta" else x for x in self.limits),
        )

    @property
    def own_name(self) -> str:
        """Its name at its own rate."""
        return self.name if self.every == 1 else self.name.rpartition("@")[0]

    @property
    def own_hz(self) -> float:
        """Its own rate: that of '…/step' in units and places."""
        return self.control_hz * self.every

    def control_steps(self, own: int) -> int:
        """The control steps of so many steps of its own; the last may be cut short."""
        return -(-own // self.every)

    @property
    def state_dim(self) -> int:
        return sum(f.size for f in self.state)

    @property
    def action_dim(self) -> int:
        return sum(f.size for f in self.action)

    @property
    def privileged_dim(self) -> int:
        return sum(f.size for f in self.privileged)

    @property
    def action_low(self) -> np.ndarray:  # (A,)
        return np.concatenate([np.array(f.low, np.float32) for f in self.action])

    @property
    def action_high(self) -> np.ndarray:  # (A,)
        return np.concatenate([np.array(f.high, np.float32) for f in self.action])

    @property
    def action_names(self) -> list[str]:
        """A name for each number of an action: 'gripper', or 'velocity[0]' where the field has several."""
        return [f"{f.name}[{i}]" if f.size > 1 else f.name for f in self.action for i in range(f.size)]

    def camera(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise UserError(f"embodiment {self.name!r} has no camera {name!r}; it has {[c.name for c in self.cameras]}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `from_dict` is its exact inverse. What nobody has said is not mentioned, as before
        it could be: what is named after the dictionary keeps its name."""
        d = json.loads(json.dumps({**dataclasses.asdict(self), "cameras": [c.to_dict() for c in self.cameras]}))
        if not self.limits:
            del d["limits"]
        if self.every == 1:
            del d["every"]
        for each in (*d["state"], *d["action"], *d["privileged"]):
            for key in ("per_step", "place"):
                if each[key] is None:
                    del each[key]
        return d

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "Embodiment":
        def made(kind, item):
            return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in item.items()})

        def placed(item):
            return item if "place" not in item else {**item, "place": made(Place, item["place"])}

        fields = {key: tuple(made(Field, placed(f)) for f in d[key]) for key in ("state", "action", "privileged")}
        return cls(
            name=d["name"],
            cameras=tuple(made(Camera, camera) for camera in d["cameras"]),
            control_hz=d["control_hz"],
            conventions=d["conventions"],
            limits=tuple(made(Limit, limit) for limit in d.get("limits", ())),
            every=d.get("every", 1),
            **fields,
        )

    def differences(self, other: "Embodiment", *, ignore_look: bool = True) -> list[str]:
        """Where two specs disagree, one line each as 'what: self's, other's'. Empty when compatible.

        The render look is ignored by default, and the size that is drawn before it is averaged down: stores may mix
        looks, and a policy may see any. So are places that only one of the two tells, and limits: they bind whoever
        drives the robot and change nothing of what a policy sees or says. `every` is told by name and rate.
        """
        lines: list[str] = []
        skip = {"limits", "every"} | ({"look", "source"} if ignore_look else set())
        _compare("", self.to_dict(), other.to_dict(), lines, skip=skip)
        return lines


def rig_of(robots: Sequence[Embodiment]) -> Embodiment:
    """The first robot with the cameras of all, by name: where several have one of the same name, the first's."""
    cameras = {camera.name: camera for robot in reversed(robots) for camera in robot.cameras}
    names = dict.fromkeys(camera.name for robot in robots for camera in robot.cameras)
    return replace(robots[0], cameras=tuple(cameras[name] for name in names))


def _compare(where: str, a: Any, b: Any, lines: list[str], skip: set[str]) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if key not in skip and not (key == "place" and not (key in a and key in b)):
                _compare(f"{where}.{key}".lstrip("."), a.get(key), b.get(key), lines, skip)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _compare(f"{where}[{i}]", x, y, lines, skip)
    elif a != b:
        lines.append(f"{where}: {a!r} here, {b!r} there")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a robot: `id` is 'suite/name', the instruction is one unique sentence. Tasks of one scene look alike at
    first sight, so that the instruction tells which it is."""

    id: str
    instruction: str
    success: str
    max_steps: int
    group: str = ""
    scene: str = ""

    @property
    def name(self) -> str:
        """The bare name, as used for result keys."""
        return self.id.split("/", 1)[1]
