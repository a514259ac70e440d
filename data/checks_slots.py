"""The doctor's checks of where a robot's numbers lie in the shared slots.

A store tells by itself whether its commands lie where their effects do: a command of a joint comes out in that joint, a
velocity in the change of its position, and a gripper opens when it is told to. What is wrong in state and action alike
cannot be seen in numbers.
"""

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np

from ..envs.errors import UserError
from ..envs.slot_maps import SlotMap, slot_map
from ..envs.slot_tables import TABLES, with_slots
from ..envs.slots import GROUPS, SLOTS
from .evidence import Evidence, Problem

_SIDES = ("right", "left")
_EFFECT = {
    "arm_joint_pos": "arm_joint_pos", "arm_joint_vel": "arm_joint_pos",
    "eef_pos": "eef_pos", "eef_vel": "eef_pos",
    "gripper_open": "gripper_open", "gripper_open_vel": "gripper_open",
}  # fmt: skip
"""Group of the action → group of the state whose change tells what came of it, of one arm."""


def mapping(e: Evidence) -> Iterator[Problem]:
    """Every check of the mapping, where somebody has told one."""
    fields = (*e.embodiment.state, *e.embodiment.action)
    if e.slots is None and e.embodiment.own_name not in TABLES and not any(f.place for f in fields):
        return
    try:
        embodiment = with_slots(e.embodiment, e.slots)
        state, action = (slot_map(embodiment, which) for which in ("state", "action"))
    except UserError as error:
        yield Problem("error", "slots", str(error), "correct the robot's slot table (docs/embodiments.md)")
        return
    yield from _sides(state, action)
    if e.arrays.keys() >= {"state", "action_executed"} and len(e.arrays["state"]) > 2:
        seen, done = state.fill(e.arrays["state"]), action.fill(e.arrays["action_executed"])
        yield from (p for lies, values in ((state, seen), (action, done)) for p in _ranges(lies, values))
        yield from _effects(e, state, action, seen, done)


def _sides(*maps: SlotMap) -> Iterator[Problem]:
    """A field called left in the slots of the right arm."""
    for lies in maps:
        for part in lies.parts:
            name = SLOTS[part.slots[0]].name
            for side, other in (_SIDES, _SIDES[::-1]):
                if side in part.field.name.lower() and name.startswith(other):
                    message = f"field {part.field.name!r} lies in slots of the {other} arm ({name})"
                    yield Problem("error", "slots", message, f"name the {side}_… slots in the robot's slot table")


def _ranges(lies: SlotMap, values: np.ndarray) -> Iterator[Problem]:
    """Angles of several turns are degrees; an open gripper is 1."""
    for part in lies.parts:
        slot, own = SLOTS[part.slots[0]], np.abs(values[:, list(part.slots)])
        top = float(np.percentile(own, 99))
        if slot.unit == "rad" and slot.kind == "position" and top > 4 * np.pi:
            message = f"field {part.field.name!r} reaches {top:.3g} rad in {slot.name}: degrees taken for radians?"
            yield Problem("error", "slots", message, "say `unit: deg` in the robot's slot table")
        elif slot.unit == "rad" and slot.kind == "position" and part.place.unit == "deg" and top < 0.1:
            message = f"field {part.field.name!r} stays below {top:.3g} rad in {slot.name}: radians taken for degrees?"
            yield Problem("warning", "slots", message, "say `unit: rad` in the robot's slot table")
        elif slot.kind == "gripper":
            low, high = np.percentile(values[:, part.slots[0]], [1, 99])
            if low < -0.2 or high > 1.2:
                message = f"field {part.field.name!r} goes from {low:.3g} to {high:.3g} in {slot.name}, not from 0 to 1"
                remedy = "say the numbers of a shut and an open gripper (closed:, open:) in the robot's slot table"
                yield Problem("error", "slots", message, remedy)


def _effects(e: Evidence, state: SlotMap, action: SlotMap, seen: np.ndarray, done: np.ndarray) -> Iterator[Problem]:
    """What was told, beside what came of it."""
    inside = np.ones(len(seen) - 1, bool)
    inside[[x.rows.stop - 1 for x in e.episodes if x.rows.stop <= len(inside)]] = False
    change = (np.diff(seen, axis=0) * e.embodiment.control_hz)[inside]
    level, told = seen[1:][inside], done[:-1][inside]
    found: dict[tuple[str, str, str], float] = {}
    for (group, effect), side, other in product(_EFFECT.items(), _SIDES, _SIDES):
        commands, follows = _both(f"{side}_{group}", action, f"{other}_{effect}", state)
        came = change if group.endswith("vel") else level
        same = _agreement(told[:, commands], came[:, follows]) if commands else None
        if same is not None:
            found[group, side, other] = same
    for group in _EFFECT:
        yield from _swapped(group, found)
        yield from (p for side in _SIDES for p in _inverted(group, side, found.get((group, side, side), 0.0)))


def _swapped(group: str, found: Mapping[tuple[str, str, str], float]) -> Iterator[Problem]:
    keys = [(group, a, b) for a in _SIDES for b in _SIDES]
    if not all(key in found for key in keys):
        return
    own = max(found[key] for key in keys if key[1] == key[2])
    crossed = min(found[key] for key in keys if key[1] != key[2])
    if crossed > 0.5 and own < 0.5 * crossed:
        message = (
            f"commands in {group} of each arm come out in the other (correlation {crossed:.2f}, with its own "
            f"{own:.2f}): swapped arms?"
        )
        remedy = "exchange left and right in the state or the action of the robot's slot table"
        yield Problem("error", "slots", message, remedy)


def _inverted(group: str, side: str, agreement: float) -> Iterator[Problem]:
    if agreement < -0.3:
        thing = "an inverted gripper" if "gripper" in group else "an inverted axis"
        message = f"commands in {side}_{group} come out with the other sign (correlation {agreement:.2f}): {thing}?"
        remedy = "exchange closed: and open:, or negate scale:, in the state or the action of the robot's slot table"
        yield Problem("error", "slots", message, remedy)


def _both(command: str, action: SlotMap, effect: str, state: SlotMap) -> tuple[list[int], list[int]]:
    """Slots of two groups, number by number, where the robot has both."""
    pairs = zip(GROUPS[command].slots, GROUPS[effect].slots, strict=True)
    both = [(a.index, b.index) for a, b in pairs if action.present[a.index] and state.present[b.index]]
    return [a for a, _ in both], [b for _, b in both]


def _agreement(told: np.ndarray, came: np.ndarray) -> float | None:
    """Pooled correlation of commands and effects (n, k); None where either hardly varies."""
    x, y = told - told.mean(0), came - came.mean(0)
    size = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / size) if size > 1e-9 * len(x) else None
