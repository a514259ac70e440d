"""Metaworld as data: the embodiment, and 50 tasks with an instruction, a success rule and a difficulty group.

Every instruction is unique (elsewhere push and push-back share one, and no policy can tell them apart). The
groups are those of Seo et al. 2022 (Masked World Models), which published tables use: 28, 11, 6 and 5 tasks.
"""

from .limits import Limit
from .spec import Camera, Embodiment, Field, Task

# lerobot's Metaworld view: from the stock pose of corner2 a button covers 8 pixels of a 96 x 96 picture.
CAMERA = Camera(name="main", mount="corner2", height=96, width=96, pos=(0.75, 0.075, 0.7), flip="rot180")
# One view does not tell how far away a goal is that floats in the air: of the variance of the goals of reach it leaves
# 68 % along y unknown, 16 % along x. A view from above beside it determines the point.
TOP = Camera(name="top", mount="topview", height=96, width=96, pos=(0.0, 0.7, 1.2), fovy=45.0)
# The same two with a longer lens: what the 50 tasks touch fills a third of `main` and half of `top`, so that a puck
# covers 3 pixels of 64 x 64 in `main`, and 10 in `near` (docs/metaworld.md has all tasks).
NEAR = Camera(name="near", mount="corner2", height=96, width=96, pos=(0.75, 0.075, 0.7), fovy=42.0, flip="rot180")
NEAR_TOP = Camera(name="near_top", mount="topview", height=96, width=96, pos=(0.0, 0.7, 1.2), fovy=36.0)
WRIST = Camera(name="wrist", mount="gripperPOV", height=96, width=96)
VIEWS = {camera.name: camera for camera in (CAMERA, TOP, NEAR, NEAR_TOP, WRIST)}

EMBODIMENT = Embodiment(
    name="metaworld-sawyer",
    cameras=(CAMERA,),
    state=(
        Field(name="hand_position", unit="m", low=(-0.525, 0.348, -0.0525), high=(0.525, 1.025, 0.7)),
        Field(name="gripper_opening", unit="fraction of 0.1 m", low=(0.0,), high=(1.0,)),
    ),
    action=(
        Field(
            name="hand_delta",
            unit="normalised (1 = 0.01 m a step)",
            low=(-1.0, -1.0, -1.0),
            high=(1.0, 1.0, 1.0),
        ),
        Field(name="gripper_effort", unit="normalised", low=(-1.0,), high=(1.0,)),
    ),
    privileged=(
        Field(name="object_position", unit="m", low=(-3.0, -3.0, -3.0), high=(3.0, 3.0, 3.0)),
        Field(name="object2_position", unit="m", low=(-3.0, -3.0, -3.0), high=(3.0, 3.0, 3.0)),
        Field(name="goal_position", unit="m", low=(-3.0, -3.0, -3.0), high=(3.0, 3.0, 3.0)),
    ),
    control_hz=80.0,
    conventions={
        "frame": "world: x to the robot's right, y away from its base, z up",
        "rotation": "fixed: the hand points down",
        "gripper": "effort +1 closes, -1 opens; opening 1 is open, 0 closed",
        "object2_position": "zeros where a task has one object",
    },
    # The hand leads what the action moves by a spring, so its own range is the workspace.
    limits=(
        Limit(
            field="hand_delta",
            kind="delta",
            drives="hand_position",
            scale=0.01,
            low=(-0.525, 0.348, -0.0525),
            high=(0.525, 1.025, 0.7),
        ),
        Limit(field="gripper_effort", kind="effort", force=1.0),
    ),
)

_MAX_STEPS = 500

# name: (instruction, when it counts as done)
_EASY = {
    "button-press": ("Press the button on the front of the box", "button within 2 cm of fully pressed"),
    "button-press-topdown": ("Press the button down from above", "button within 2.4 cm of fully pressed"),
    "button-press-topdown-wall": (
        "Go over the wall and press the button down from above",
        "button within 2.4 cm of fully pressed",
    ),
    "button-press-wall": ("Go over the wall and press the button", "button within 3 cm of fully pressed"),
    "coffee-button": ("Push the button on the coffee machine", "button within 2 cm of fully pressed"),
    "dial-turn": ("Turn the dial halfway around", "dial handle within 7 cm of the goal"),
    "door-close": ("Close the open door by pushing its handle", "handle within 8 cm of its closed place"),
    "door-lock": ("Lock the door by turning its lock clockwise", "lock within 2 cm of locked"),
    "door-open": ("Open the door by pulling its handle", "handle within 8 cm of the goal, left to right"),
    "door-unlock": ("Unlock the door by turning its lock counter-clockwise", "lock within 2 cm of unlocked"),
    "drawer-close": ("Push the drawer closed", "drawer handle within 6.5 cm of closed"),
    "drawer-open": ("Pull the drawer open by its handle", "drawer handle within 3 cm of fully open"),
    "faucet-close": ("Turn the faucet clockwise to close it", "faucet handle within 7 cm of closed"),
    "faucet-open": ("Turn the faucet counter-clockwise to open it", "faucet handle within 7 cm of open"),
    "handle-press": ("Press the handle down", "handle within 2 cm of fully down"),
    "handle-press-side": ("Press the handle on the side of the box down", "handle within 2 cm of fully down"),
    "handle-pull": ("Pull the handle up", "handle within 5 cm of fully up"),
    "handle-pull-side": ("Pull the handle on the side of the box up", "handle within 8 cm of fully up"),
    "lever-pull": ("Pull the lever up by a quarter turn", "lever within 7.5 degrees of upright"),
    "peg-unplug-side": ("Unplug the peg from the box sideways", "end of the peg within 7 cm of the goal"),
    "plate-slide": ("Slide the plate forward into the rack", "plate within 7 cm of the goal"),
    "plate-slide-back": ("Slide the plate back out of the rack", "plate within 7 cm of the goal"),
    "plate-slide-back-side": ("Slide the plate sideways out of the rack", "plate within 7 cm of the goal"),
    "plate-slide-side": ("Slide the plate sideways into the rack", "plate within 7 cm of the goal"),
    "reach": ("Move the hand to the red goal point", "hand within 5 cm of the goal"),
    "reach-wall": ("Move the hand over the wall to the red goal point", "hand within 5 cm of the goal"),
    "window-close": ("Slide the window closed", "window handle within 5 cm of closed"),
    "window-open": ("Slide the window open", "window handle within 5 cm of open"),
}
_MEDIUM = {
    "basketball": ("Pick up the basketball and drop it through the hoop", "ball within 8 cm of the goal"),
    "bin-picking": ("Pick the block from one bin and place it in the other", "block within 5 cm of the goal"),
    "box-close": ("Pick up the lid and put it on the box", "lid within 8 cm of its place on the box"),
    "coffee-pull": ("Pull the mug away from the coffee machine to the goal", "mug within 7 cm of the goal"),
    "coffee-push": ("Push the mug under the coffee machine", "mug within 7 cm of the goal"),
    "hammer": ("Pick up the hammer and drive the nail into the box", "nail driven in by more than 9 cm"),
    "peg-insert-side": (
        "Pick up the peg and insert it sideways into the hole",
        "peg head within 7 cm of the goal",
    ),
    "push-wall": ("Push the puck around the wall to the goal", "puck within 7 cm of the goal"),
    "soccer": ("Kick the soccer ball into the goal", "ball within 7 cm of the goal"),
    "sweep": ("Sweep the block off the table", "block within 5 cm of the goal"),
    "sweep-into": ("Sweep the block into the hole in the table", "block within 5 cm of the goal"),
}
_HARD = {
    "assembly": ("Pick up the nut and place it onto the peg", "nut around the peg"),
    "hand-insert": ("Pick up the block and insert it into the hole", "block within 5 cm of the goal"),
    "pick-out-of-hole": (
        "Pick the puck out of the hole and lift it to the goal",
        "puck within 7 cm of the goal",
    ),
    "pick-place": ("Pick up the puck and place it at the goal", "puck within 7 cm of the goal"),
    "push": ("Push the puck forward to the goal", "puck within 5 cm of the goal"),
    "push-back": ("Pull the block back towards the robot to the goal", "block within 7 cm of the goal"),
}
_VERY_HARD = {
    "disassemble": ("Pick the nut up off the peg", "nut lifted clear of the peg"),
    "pick-place-wall": (
        "Pick up the puck and carry it over the wall to the goal",
        "puck within 7 cm of the goal",
    ),
    "shelf-place": ("Pick up the block and place it onto the shelf", "block within 7 cm of the goal"),
    "stick-pull": (
        "Pick up the stick and pull the thermos with it",
        "thermos within 12 cm of the goal, stick in its handle",
    ),
    "stick-push": ("Pick up the stick and push the thermos with it", "thermos within 12 cm of the goal"),
}
# Tasks whose simulators are built from one model, and the three whose models look alike: a puck or block and a goal.
_SCENES = {
    "coffee": ("coffee-button", "coffee-pull", "coffee-push"),
    "door": ("door-close", "door-open"),
    "door-lock": ("door-lock", "door-unlock"),
    "drawer": ("drawer-close", "drawer-open"),
    "faucet": ("faucet-close", "faucet-open"),
    "handle": ("handle-press", "handle-pull"),
    "handle-side": ("handle-press-side", "handle-pull-side"),
    "hole": ("hand-insert", "sweep-into"),
    "nut": ("assembly", "disassemble"),
    "plate": ("plate-slide", "plate-slide-back"),
    "plate-side": ("plate-slide-back-side", "plate-slide-side"),
    "puck": ("pick-place", "push", "reach"),
    "stick": ("stick-pull", "stick-push"),
    "window": ("window-close", "window-open"),
}


def _tasks() -> dict[str, Task]:
    groups = {"easy": _EASY, "medium": _MEDIUM, "hard": _HARD, "very_hard": _VERY_HARD}
    scenes = {name: scene for scene, names in _SCENES.items() for name in names}
    return {
        f"{name}-v3": Task(
            id=f"metaworld/{name}-v3",
            instruction=instruction,
            success=success,
            max_steps=_MAX_STEPS,
            group=group,
            scene=scenes.get(name, ""),
        )
        for group, members in groups.items()
        for name, (instruction, success) in members.items()
    }


TASKS: dict[str, Task] = _tasks()
