"""What the numbers of a state, action or privileged vector are: named fields with unit, bounds and place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .errors import UserError


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

    def longer(self, every: int) -> "Field":
        """The same field of an action in control steps of `every` of the present ones."""
        if self.per_step is None:
            return self
        return replace(self, per_step=tuple(every * x for x in self.per_step))


def columns(fields: Sequence[Field]) -> Iterator[tuple[Field, np.ndarray]]:
    """Each field of a state, action or privileged vector, and the places (n,) of its numbers there."""
    start = 0
    for each in fields:
        yield each, np.arange(start, start + each.size)
        start += each.size
