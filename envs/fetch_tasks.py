"""The Fetch tasks as data: a robot's arm that reaches, pushes, and picks and places (Plappert et al. 2018).

Where the goal is, the picture shows: a red ball, which gymnasium-robotics draws only for people.
"""

from .limits import Limit
from .spec import Camera, Embodiment, Field, Task

CAMERA = Camera(name="main", mount="external_camera_0", height=96, width=96)
SIDE = Camera(name="side", mount="head_camera_rgb", height=96, width=96)
WRIST = Camera(name="wrist", mount="gripper_camera_rgb", height=96, width=96)
VIEWS = {camera.name: camera for camera in (CAMERA, SIDE, WRIST)}

_LOW, _HIGH = (0.4, 0.0, 0.0), (2.2, 1.5, 1.5)  # where the hand may be [m]
_PLACE = {"unit": "m", "low": (-5.0, -5.0, -5.0), "high": (5.0, 5.0, 5.0)}

EMBODIMENT = Embodiment(
    name="fetch",
    cameras=(CAMERA, SIDE),  # in one of a hundred episodes the gripper hides the goal from the first
    state=(
        Field(name="hand_position", unit="m", low=_LOW, high=_HIGH),
        Field(name="gripper_opening", unit="fraction of 0.1 m", low=(-0.1,), high=(1.1,)),
    ),
    action=(
        Field(name="hand_delta", unit="normalised (1 = 0.05 m a step)", low=(-1.0, -1.0, -1.0), high=(1.0, 1.0, 1.0)),
        Field(name="gripper_effort", unit="normalised", low=(-1.0,), high=(1.0,)),
    ),
    privileged=(
        Field(name="object_position", **_PLACE),
        Field(name="goal_position", **_PLACE),
    ),
    control_hz=25.0,
    conventions={
        "frame": "world: x away from the robot's base, y to its left, z up",
        "rotation": "fixed: the hand points down",
        "gripper": "effort +1 closes, -1 opens (the simulator's own sign is the other); opening 1 is open, 0 closed",
        "object_position": "the hand's own where a task has no object",
    },
    limits=(
        Limit(field="hand_delta", kind="delta", drives="hand_position", scale=0.05, low=_LOW, high=_HIGH),
        Limit(field="gripper_effort", kind="effort", force=1.0),
    ),
)

_SUCCESS = "{} within 5 cm of the goal for 10 steps together"
# name: (instruction, what has to be at the goal)
_TASKS = {
    "reach": ("Hold the hand at the red ball above the table", "hand"),
    "push": ("Push the black box along the table to the red ball", "box"),
    "pick-and-place": ("Pick up the black box and hold it at the red ball", "box"),
}

TASKS = {
    f"fetch-{name}-v4": Task(
        id=f"fetch/fetch-{name}-v4", instruction=instruction, success=_SUCCESS.format(what), max_steps=75
    )
    for name, (instruction, what) in _TASKS.items()
}
