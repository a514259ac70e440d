"""One vector for all robots: 128 named physical slots.

Names, order and units are those of RDT (Liu et al. 2024, "RDT-1B", appendix C), so that data and checkpoints agree
slot by slot. A single arm takes the right arm's slots.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["position", "velocity", "gripper", "rotation", "reserved"]
SIZE = 128


@dataclass(frozen=True)
class Slot:
    """A physical quantity and its place in the vector."""

    index: int
    name: str
    unit: str
    kind: Kind


class Group(NamedTuple):
    """Slots side by side with one name: from `start` on, `parts` of them by what is added to the name."""

    name: str
    start: int
    parts: tuple[str, ...]
    unit: str
    kind: Kind

    @property
    def slots(self) -> list[Slot]:
        names = [self.name + part for part in self.parts]
        return [Slot(self.start + i, name, self.unit, self.kind) for i, name in enumerate(names)]


_XYZ, _RPY = ("_x", "_y", "_z"), ("_roll", "_pitch", "_yaw")


def _numbers(n: int, start: int = 0) -> tuple[str, ...]:
    return tuple(f"_{i}" for i in range(start, n))


def _arm(side: str, first: int) -> list[Group]:
    return [
        Group(f"{side}_arm_joint_pos", first, _numbers(10), "rad", "position"),
        Group(f"{side}_gripper_open", first + 10, ("",), "open", "gripper"),
        Group(f"{side}_gripper_joint_pos", first + 11, _numbers(5, 1), "rad", "position"),
        Group(f"{side}_arm_joint_vel", first + 15, _numbers(10), "rad/s", "velocity"),
        Group(f"{side}_gripper_open_vel", first + 25, ("",), "open/s", "velocity"),
        Group(f"{side}_gripper_joint_vel", first + 26, _numbers(5, 1), "rad/s", "velocity"),
        Group(f"{side}_eef_pos", first + 30, _XYZ, "m", "position"),
        Group(f"{side}_eef_rot6d", first + 33, _numbers(6), "1", "rotation"),
        Group(f"{side}_eef_vel", first + 39, _XYZ, "m/s", "velocity"),
        Group(f"{side}_eef_angular_vel", first + 42, _RPY, "rad/s", "velocity"),
        Group(f"{side}_reserved", first + 45, _numbers(5), "", "reserved"),
    ]


GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        *_arm("right", 0),
        *_arm("left", 50),
        Group("base_vel", 100, ("_x", "_y"), "m/s", "velocity"),
        Group("base_angular_vel", 102, ("",), "rad/s", "velocity"),
        Group("reserved", 103, _numbers(25), "", "reserved"),
    )
}
SLOTS: tuple[Slot, ...] = tuple(slot for group in GROUPS.values() for slot in group.slots)
BY_NAME = {slot.name: [slot] for slot in SLOTS} | {group.name: group.slots for group in GROUPS.values()}
"""What a name stands for: one slot, or all those of a group."""
