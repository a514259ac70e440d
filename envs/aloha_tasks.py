"""ALOHA as data: two ViperX arms with six joints and a gripper each, on either side of a table (Zhao et al. 2023)."""

from .limits import Limit
from .spec import Camera, Embodiment, Field, Task

CAMERA = Camera(name="main", mount="angle", height=96, width=96, fovy=60.0)
TOP = Camera(name="top", mount="top", height=96, width=96, fovy=66.0)
LEFT_WRIST = Camera(name="left_wrist", mount="left_wrist", height=96, width=96, fovy=70.0)
RIGHT_WRIST = Camera(name="right_wrist", mount="right_wrist", height=96, width=96, fovy=70.0)
VIEWS = {camera.name: camera for camera in (CAMERA, TOP, LEFT_WRIST, RIGHT_WRIST)}

# Of the joints waist, shoulder, elbow, forearm roll, wrist angle and wrist rotation [rad].
LOW = (-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158)
HIGH = (3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158)
_SLACK = 0.2  # by which a joint in motion may pass its limit
_PER_STEP = (0.06,) * 6  # the arm's top speed, 3 rad/s


def _state(side: str) -> tuple[Field, Field]:
    low, high = tuple(x - _SLACK for x in LOW), tuple(x + _SLACK for x in HIGH)
    return (
        Field(name=f"{side}_arm_joints", unit="rad", low=low, high=high),
        Field(name=f"{side}_gripper_opening", unit="fraction of 0.04 m", low=(-0.5,), high=(1.5,)),
    )


def _action(side: str) -> tuple[Field, Field]:
    return (
        Field(name=f"{side}_arm_targets", unit="rad", low=LOW, high=HIGH, per_step=_PER_STEP),
        Field(name=f"{side}_gripper_target", unit="fraction of 0.04 m", low=(0.0,), high=(1.0,)),
    )


def _limits(side: str) -> tuple[Limit, Limit]:
    joints, gripper = f"{side}_arm_joints", f"{side}_gripper_opening"
    return (
        Limit(field=f"{side}_arm_targets", kind="target", drives=joints, low=LOW, high=HIGH),
        Limit(field=f"{side}_gripper_target", kind="target", drives=gripper, low=(0.0,), high=(1.0,)),
    )


EMBODIMENT = Embodiment(
    name="aloha-viperx",
    cameras=(CAMERA,),
    state=(*_state("left"), *_state("right")),
    action=(*_action("left"), *_action("right")),
    privileged=(Field(name="object_position", unit="m", low=(-3.0, -3.0, -3.0), high=(3.0, 3.0, 3.0)),),
    control_hz=50.0,
    conventions={
        "frame": "world: x from the left arm to the right one, y away from the camera of the angle view, z up",
        "action": "absolute: where the joints' position controllers drive",
        "gripper": "1 is open, 0 closed",
    },
    limits=(*_limits("left"), *_limits("right")),
)

TASKS = {
    "transfer-cube-v0": Task(
        id="aloha/transfer-cube-v0",
        instruction="Pick up the red cube with the right arm and hand it to the left arm",
        success="left gripper touches the cube, and the table does not",
        max_steps=400,
    )
}
