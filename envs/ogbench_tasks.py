"""OGBench's ManipSpace as data: a UR5e arm with a two-finger gripper, a cube to place, a drawer and a window to slide.

OGBench (Park et al. 2025) itself is goal-conditioned: there a policy is shown a picture of the goal. Here each task is
one sentence; where the goal is a place, it is marked in the picture.
"""

from typing import NamedTuple

from .limits import Limit
from .spec import Camera, Embodiment, Field, Task

CAMERA = Camera(name="main", mount="front_pixels", height=96, width=96)
TOP = Camera(name="top", mount="top", height=96, width=96)
WRIST = Camera(name="wrist", mount="ur5e/robotiq/wrist", height=96, width=96)
VIEWS = {camera.name: camera for camera in (CAMERA, TOP, WRIST)}

_LOW, _HIGH = (0.0, -0.6, -0.1), (0.9, 0.6, 0.7)  # where the hand may be [m]
_PLACE = {"unit": "m", "low": (-0.5, -0.8, -0.5), "high": (1.2, 0.8, 1.0)}

EMBODIMENT = Embodiment(
    name="ogbench-ur5e",
    cameras=(CAMERA,),
    state=(
        Field(name="hand_position", unit="m", low=_LOW, high=_HIGH),
        Field(name="hand_heading", unit="cosine and sine", low=(-1.0, -1.0), high=(1.0, 1.0)),
        Field(name="gripper_opening", unit="fraction of 0.085 m", low=(0.0,), high=(1.0,)),
    ),
    action=(
        Field(name="hand_delta", unit="normalised (1 = 0.05 m a step)", low=(-1.0, -1.0, -1.0), high=(1.0, 1.0, 1.0)),
        Field(name="hand_turn", unit="normalised (1 = 0.3 rad a step)", low=(-1.0,), high=(1.0,)),
        Field(name="gripper_effort", unit="normalised", low=(-1.0,), high=(1.0,)),
    ),
    privileged=(
        Field(name="object_position", **_PLACE),
        Field(name="goal_position", **_PLACE),
    ),
    control_hz=20.0,
    conventions={
        "frame": "world: x away from the robot's base, y to its left, z up",
        "rotation": "the hand points down; hand_heading is its turn about z",
        "gripper": "effort +1 closes, -1 opens; opening 1 is open, 0 closed",
        "object_position": "of the cube, or of the handle that slides",
    },
    limits=(
        Limit(field="hand_delta", kind="delta", drives="hand_position", scale=0.05, low=_LOW, high=_HIGH),
        Limit(field="hand_turn", kind="delta", scale=0.3),
        Limit(field="gripper_effort", kind="effort", force=1.0),
    ),
)


class Slide(NamedTuple):
    """A part of the scene that slides, and where it starts and has to go [m along its joint]."""

    part: str
    start: float
    goal: float


# name: (instruction, what counts as done, what slides; None: the cube is to be carried)
_TASKS: dict[str, tuple[str, str, Slide | None]] = {
    "cube-single": ("Put the red cube where the pale cube is", "cube within 4 cm of the goal", None),
    "scene-drawer-open": (
        "Open the white drawer",
        "drawer within 1.5 cm of open, hand at its handle",
        Slide("drawer", 0.0, -0.16),
    ),
    "scene-drawer-close": (
        "Close the white drawer",
        "drawer within 1.5 cm of closed, hand at its handle",
        Slide("drawer", -0.16, 0.0),
    ),
    "scene-window-open": (
        "Slide the white window open",
        "window within 1.5 cm of open, hand at its handle",
        Slide("window", 0.0, 0.2),
    ),
    "scene-window-close": (
        "Slide the white window closed",
        "window within 1.5 cm of closed, hand at its handle",
        Slide("window", 0.2, 0.0),
    ),
}

SLIDES = {f"{name}-v0": slide for name, (_, _, slide) in _TASKS.items()}

TASKS = {
    f"{name}-v0": Task(
        id=f"ogbench/{name}-v0", instruction=instruction, success=success, max_steps=200 if slide is None else 100
    )
    for name, (instruction, success, slide) in _TASKS.items()
}
