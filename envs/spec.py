"""What every robot and simulator says about itself: cameras, state and action fields, units, rate.

The spec travels inside each store and each checkpoint, so that a mismatch is an error that names both sides
and not a policy that silently fails. Pure data: numpy and the standard library only.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from .errors import UserError, positive
from .limits import Limit, check

Look = Literal["fast", "reference", "stock"]
Flip = Literal["none", "rot180"]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera: where it stands, how large its picture is, and how it is drawn.

    `mount` names the simulator's camera (or the driver's device); `pos` [m, world frame] moves it if given.
    `flip` is what turns the raw picture upright as a person sees it; stored pictures are already upright.
    `look`: 'fast' has no shadows, multisampling or reflections, 'reference' is the simulator's own, 'stock' that with
    goal markers as small as the simulator draws them. `source`: drawn so many pixels wide and averaged down to size.
    """

    name: str
    mount: str
    height: int = 96
    width: int = 96
    pos: tuple[float, float, float] | None = None
    fovy: float | None = None
    flip: Flip = "none"
    look: Look = "fast"
    depth: bool = False
    source: int | None = None

    def __post_init__(self):
        if self.source is not None and (self.source < self.width or self.depth):
            raise UserError(
                f"camera {self.name!r}: source={self.source} is drawn and averaged down to {self.width} pixels, so it "
                "is at least as many, and has no depth"
            )
        if self.height < 1 or self.width < 1:
            raise UserError(f"camera {self.name!r}: size must be positive, got {self.height} x {self.width}")

    @property
    def drawn(self) -> tuple[int, int]:
        """Height and width of what is drawn, before it is averaged down."""
        factor = 1 if self.source is None else self.source / self.width
        return round(self.height * factor), round(self.width * factor)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of its fields; `source` is not mentioned where there is none, as before it could be."""
        d = dataclasses.asdict(self)
        return d if self.source is not None else {k: v for k, v in d.items() if k != "source"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a field lies in the vector that all robots share, and how its numbers get there (`envs.slot_maps`).

    slots: names of slots or of groups of them, in the order of the field's numbers; () leaves the field out · convert:
    one of `conversions.CONVERSIONS` · scale, unit: a field's number times `scale` is measured in `unit`, by default the
    field's own; a change per step of the robot's own rate is '…/step' · closed, open: the field's numbers of a shut
    gripper and an open one.
    """

    slots: tuple[str, ...]
    convert: str = "linear"
    unit: str = ""
    scale: float = 1.0
    closed: float = 0.0
    open: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Field:
    """A named group of numbers in the state, action or privileged vector, with its unit and bounds.

    per_step: of an absolute action, how far the robot follows it in a control step; None where the action is itself a
    change, or not about motion · place: where it lies in the vector that all robots share; None where nobody has said.
    """

    name: str
    unit: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    per_step: tuple[float, ...] | None = None
    place: Place | None = None

    def __post_init__(self):
        if len(self.low) != len(self.high):
            raise UserError(f"field {self.name!r}: {len(self.low)} lower bounds but {len(self.high)} upper bounds")
        if self.per_step is not None and len(self.per_step) != len(self.low):
            raise UserError(
                f"field {self.name!r}: {len(self.low)} bounds but per_step has {len(self.per_step)} numbers"
            )

    @property
    def size(self) -> int:
        return len(self.low)


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
            action=tuple(_longer(f, every) for f in self.action),
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
        looks, and a policy may see any. So are places that
        only one of the two tells, and limits: they bind whoever drives the robot and change nothing of what a policy
        sees or says. `every` is told by name and rate.
        """
        lines: list[str] = []
        skip = {"limits", "every"} | ({"look", "source"} if ignore_look else set())
        _compare("", self.to_dict(), other.to_dict(), lines, skip=skip)
        return lines


def columns(fields: Sequence[Field]) -> Iterator[tuple[Field, np.ndarray]]:
    """Each field of a state, action or privileged vector, and the places (n,) of its numbers there."""
    start = 0
    for each in fields:
        yield each, np.arange(start, start + each.size)
        start += each.size


def rig_of(robots: Sequence[Embodiment]) -> Embodiment:
    """The first robot with the cameras of all, by name: where several have one of the same name, the first's."""
    cameras = {camera.name: camera for robot in reversed(robots) for camera in robot.cameras}
    names = dict.fromkeys(camera.name for robot in robots for camera in robot.cameras)
    return replace(robots[0], cameras=tuple(cameras[name] for name in names))


def _longer(action: Field, every: int) -> Field:
    """A field of the action where the control step is so many times as long."""
    if action.per_step is None:
        return action
    return replace(action, per_step=tuple(every * x for x in action.per_step))


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
