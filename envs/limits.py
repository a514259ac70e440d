"""What the actions of a robot may do to it: a table in its embodiment, one row for each field of the action.

The rows are data, as JSON in every store; `eval/robot/safety.py` holds a robot to them.
"""

from dataclasses import dataclass
from typing import Any

from .errors import UserError, choose

KINDS = {
    "target": "where the driven state should be; on a fault the last one is held",
    "delta": "how far the driven state moves in one control step; on a fault it is braked to 0",
    "effort": "a force, such as a gripper's; on a fault it is kept, so that nothing is dropped",
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The limits of one field of the action; None or empty: no such limit. The action's own bounds hold beside them.

    field: of the action · kind: what its numbers mean, one of `KINDS` · drives: the field of the state that a target or
    delta moves, '' for a delta that moves none of them · scale: what 1 of the action is, in the state's unit · low,
    high: where the state may be sent, in its unit, one number each for every component · velocity, acceleration: of
    what is sent, of every component [the state's unit / s and / s²] · force: largest magnitude of an effort, in the
    action's unit.
    """

    field: str
    kind: str
    drives: str = ""
    scale: float = 1.0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    velocity: float | None = None
    acceleration: float | None = None
    force: float | None = None

    def __post_init__(self):
        choose(self.kind, KINDS, f"kind of limit for field {self.field!r}:")
        for name in ("velocity", "acceleration", "force"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"limit of {self.field!r}: {name} must be above 0, got {value}")
        if not self.scale > 0:
            raise UserError(f"limit of {self.field!r}: scale must be above 0, got {self.scale}")
        if len(self.low) != len(self.high) or any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise UserError(f"limit of {self.field!r}: the workspace {self.low} to {self.high} is no box")
        moves = bool(self.drives or self.low or self.velocity or self.acceleration)
        if self.kind == "effort" and moves:
            raise UserError(f"limit of {self.field!r}: an effort has a force, and no place, velocity or acceleration")
        if not self.drives and (self.kind == "target" or self.low):
            what = "a target" if self.kind == "target" else "a workspace"
            raise UserError(f"limit of {self.field!r}: {what} is of a field of the state; say which in drives")
        if self.kind != "effort" and self.force is not None:
            raise UserError(f"limit of {self.field!r}: a {self.kind} has no force")


def check(limits: tuple[Limit, ...], robot: str, state: tuple[Any, ...], action: tuple[Any, ...]) -> None:
    """`UserError` where a table does not fit the fields of its robot: what it names, sizes, and rest in the bounds."""
    actions, states = {f.name: f for f in action}, {f.name: f for f in state}
    names = [limit.field for limit in limits]
    if len(set(names)) != len(names):
        raise UserError(f"embodiment {robot!r}: two limits are of one field in {names}")
    for limit in limits:
        field = actions[choose(limit.field, actions, f"action field in the limits of {robot!r}:")]
        if limit.low and len(limit.low) != field.size:
            raise UserError(f"limit of {limit.field!r}: a box of {len(limit.low)} for {field.size} components")
        if limit.kind == "delta" and not all(a <= 0 <= b for a, b in zip(field.low, field.high, strict=True)):
            raise UserError(f"limit of {limit.field!r}: bounds {field.low} to {field.high} leave no delta of 0, rest")
        if limit.drives:
            driven = states[choose(limit.drives, states, f"state field in the limits of {robot!r}:")]
            if driven.size != field.size:
                raise UserError(
                    f"limit of {limit.field!r}: {field.size} components drive the {driven.size} of {limit.drives!r}"
                )
