"""Made-up robots with the fields of the known slot tables: their simulators are not needed."""

from ..metaworld_tasks import EMBODIMENT as SAWYER
from ..spec import Camera, Embodiment, Field
from . import with_slots


def field(name: str, size: int, unit: str = "m", low: float = -1.0, high: float = 1.0) -> Field:
    return Field(name=name, unit=unit, low=(low,) * size, high=(high,) * size)


def camera(name: str, pixels: int = 32) -> Camera:
    return Camera(name=name, mount=name, height=pixels, width=pixels)


_ARMS = (
    field("left_arm", 6, "rad", -3.1, 3.1),
    field("left_gripper", 1, "normalised", 0.0, 1.0),
    field("right_arm", 6, "rad", -3.1, 3.1),
    field("right_gripper", 1, "normalised", 0.0, 1.0),
)
ROBOTS: dict[str, Embodiment] = {
    "metaworld-sawyer": SAWYER,
    "aloha": Embodiment(name="aloha", cameras=(camera("top"),), state=_ARMS, action=_ARMS, control_hz=50.0),
    "pusht": Embodiment(
        name="pusht",
        cameras=(camera("top"),),
        state=(field("agent_position", 2, "px", 0.0, 512.0),),
        action=(field("target_position", 2, "px", 0.0, 512.0),),
        control_hz=10.0,
    ),
    "ogbench-ur5e": Embodiment(
        name="ogbench-ur5e",
        cameras=(camera("front"), camera("side")),
        state=(
            field("joint_position", 6, "rad", -6.3, 6.3),
            field("joint_velocity", 6, "rad/s", -6.3, 6.3),
            field("hand_position", 3),
            field("hand_yaw", 2, "cosine and sine"),
            field("gripper_opening", 1, "normalised", 0.0, 1.0),
        ),
        action=(
            field("hand_delta", 3, "normalised"),
            field("yaw_delta", 1, "normalised"),
            field("gripper_delta", 1, "normalised"),
        ),
        control_hz=20.0,
    ),
    "fetch": Embodiment(
        name="fetch",
        cameras=(camera("front"),),
        state=(field("hand_position", 3), field("hand_velocity", 3, "m/s"), field("finger_position", 1, "m", 0, 0.05)),
        action=(field("hand_delta", 3, "normalised"), field("gripper_command", 1, "normalised")),
        control_hz=25.0,
    ),
}
"""A robot of each of `slot_tables.TABLES`, without places as its stores may be."""


def placed(name: str) -> Embodiment:
    return with_slots(ROBOTS[name])
