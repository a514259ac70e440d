"""How each robot's own numbers lie in the slots that all share (`slots`), and the way there and back.

A change per control step is a velocity, and never lies in a slot of positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .conversions import CONVERSIONS, ROTATIONS, UNITS, in_slots
from .errors import UserError, choose
from .fields import Field, Place, columns
from .slots import BY_NAME, GROUPS, SIZE, SLOTS, Slot
from .spec import Embodiment


@dataclass(frozen=True)
class Part:
    """One field in the slots: its columns of the robot's own vector, its slots, and the way there and back."""

    field: Field
    place: Place
    columns: tuple[int, ...]
    slots: tuple[int, ...]
    into: Callable[[Any], Any]
    back: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SlotMap:
    """How a robot's own vector of `size` numbers lies in the slots; `parts` may leave some of them out."""

    parts: tuple[Part, ...]
    size: int

    @cached_property
    def present(self) -> np.ndarray:
        """Which slots the robot has: (128,) bool."""
        found = np.zeros(SIZE, bool)
        found[[i for part in self.parts for i in part.slots]] = True
        return found

    def fill(self, own: Any) -> Any:
        """A robot's own numbers (..., size), numpy or torch, to slots (..., 128); absent ones are 0."""
        self._check(own, self.size)
        shape = (*own.shape[:-1], SIZE)
        slots = np.zeros(shape, own.dtype) if isinstance(own, np.ndarray) else own.new_zeros(shape)
        for part in self.parts:
            slots[..., list(part.slots)] = part.into(own[..., list(part.columns)])
        return slots

    def read(self, slots: np.ndarray) -> np.ndarray:
        """Slots (..., 128) to the robot's own numbers (..., size). `UserError` where a field lies in none."""
        self._check(slots, SIZE)
        own = np.full((*slots.shape[:-1], self.size), np.nan, slots.dtype)
        for part in self.parts:
            own[..., list(part.columns)] = part.back(slots[..., list(part.slots)])
        told = [k for part in self.parts for k in part.columns]
        if len(told) < self.size:
            missing = sorted(set(range(self.size)) - set(told))
            raise UserError(f"numbers {missing} of this robot lie in no slot, so they cannot be read from slots")
        return own

    def _check(self, values: Any, size: int) -> None:
        if values.shape[-1] != size:
            raise UserError(f"a slot map of {self.size} numbers got values of shape {tuple(values.shape)}, not {size}")


def slot_map(embodiment: Embodiment, which: str) -> SlotMap:
    """Where the 'state' or the 'action' of a robot lies, from the places of its fields.

    Raises `UserError` where a field has no place or one that does not exist, its unit or size does not fit, or two
    fields share a slot.
    """
    fields: tuple[Field, ...] = getattr(embodiment, choose(which, ("state", "action"), "vector"))
    parts = []
    for field, places in columns(fields):
        what = f"{which} field {field.name!r} of {embodiment.name!r}"
        if field.place is None:
            raise UserError(
                f"{what} has no place in the slots; describe the robot's slots in a YAML file (docs/embodiments.md) "
                "and name it as slots= of the data source"
            )
        if field.place.slots:
            parts.append(_part(field, field.place, tuple(places.tolist()), embodiment.own_hz, what))
        elif which == "action":
            raise UserError(f"{what} is left out of the slots, and a policy must tell all of an action")
    _check_shared(parts, embodiment)
    return SlotMap(tuple(parts), sum(f.size for f in fields))


def padded_map(embodiment: Embodiment, which: str) -> SlotMap:
    """The naive alternative: a robot's own numbers in their own order and units, zeros after them."""
    parts = []
    for field, places in columns(getattr(embodiment, which)):
        if field.size and places[-1] >= SIZE:
            raise UserError(f"{which} of {embodiment.name!r} has more than {SIZE} numbers, which is all that fit")
        own = tuple(places.tolist())
        parts.append(Part(field, Place(slots=()), own, own, _same, _same))
    return SlotMap(tuple(parts), sum(part.field.size for part in parts))


SPACES: dict[str, Callable[[Embodiment, str], SlotMap] | None] = {
    "native": None,
    "slots": slot_map,
    "padded": padded_map,
}
"""What the numbers of 'state' and 'action' are, by name: how a robot's own lie in them, None for just those."""


def _same(x: Any) -> Any:
    return x


def _part(field: Field, place: Place, own: tuple[int, ...], hz: float, what: str) -> Part:
    choose(place.convert, CONVERSIONS, f"conversion of {what}:")
    size = 6 if place.convert in ROTATIONS else field.size
    slots = _chosen(place, size, what)
    into, back = _ways(field, place, slots, hz, what)
    return Part(field, place, own, tuple(slot.index for slot in slots), into, back)


def _chosen(place: Place, size: int, what: str) -> list[Slot]:
    """The first slots of those that are named: an arm of six joints takes the first six of ten."""
    named = [slot for name in place.slots for slot in BY_NAME[choose(name, BY_NAME, f"slot of {what}:")]]
    last = len(BY_NAME[place.slots[-1]])
    if not len(named) - last < size <= len(named):
        raise UserError(f"{what} needs {size} slots, and {', '.join(place.slots)} are {len(named)}")
    return named[:size]


def _ways(
    field: Field, place: Place, slots: list[Slot], hz: float, what: str
) -> tuple[Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]:
    wanted = slots[0].unit
    unit = place.unit or field.unit
    if place.convert == "gripper":
        _check_unit("open", "open", slots, what)
        if place.open == place.closed:
            raise UserError(f"{what}: closed and open are both {place.open:g}; say the field's numbers of each")
        return _linear(1 / (place.open - place.closed), -place.closed / (place.open - place.closed))
    if place.convert in ROTATIONS:
        rotation = ROTATIONS[place.convert]
        if field.size != rotation.size:
            raise UserError(f"{what} has {field.size} numbers, and {place.convert} has {rotation.size}")
        _check_unit("1", place.convert, slots, what)
        if rotation.unit != "rad":
            return rotation.into, rotation.back
        si, factor = _known_unit(unit, hz, what)
        if si != "rad":
            raise UserError(
                f"{what} is in {unit!r}, and {place.convert} needs an angle: rad or deg, not a change of it"
            )
        scale = place.scale * factor
        return lambda x: rotation.into(x * scale), lambda six: rotation.back(six) / scale
    si, factor = _known_unit(unit, hz, what)
    if unit.endswith("/step") and wanted != si and f"{wanted}/s" == si:
        velocity = sorted({g.name for g in GROUPS.values() if g.unit == si})
        raise UserError(
            f"{what} is a change per control step ({unit}), and {slots[0].name} is a position; "
            f"changes lie in slots of velocities: {', '.join(velocity)}"
        )
    _check_unit(si, unit, slots, what)
    return _linear(place.scale * factor, 0.0)


def _linear(scale: float, offset: float) -> tuple[Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]:
    return lambda x: x * scale + offset, lambda y: (y - offset) / scale


def _known_unit(unit: str, hz: float, what: str) -> tuple[str, float]:
    found = in_slots(unit, hz)
    if found is None:
        raise UserError(
            f"{what} is in {unit!r}, which is no known unit; say in its place what it is measured in (unit: and scale:)"
            f": {', '.join(UNITS)}, or one of them with /step"
        )
    return found


def _check_unit(si: str, unit: str, slots: list[Slot], what: str) -> None:
    for slot in slots:
        if slot.unit != si:
            raise UserError(
                f"{what} is in {unit} and slot {slot.name} ({slot.kind}) in {slot.unit or 'nothing: it is reserved'}"
            )


def _check_shared(parts: Sequence[Part], embodiment: Embodiment) -> None:
    owner: dict[int, str] = {}
    for part in parts:
        for i in part.slots:
            if owner.setdefault(i, part.field.name) != part.field.name:
                both = f"fields {owner[i]!r} and {part.field.name!r} of {embodiment.name!r}"
                raise UserError(f"{both} both lie in slot {SLOTS[i].name}")
