"""PushT as data: a round pusher seen from above, and one task. Lengths are in units of the board, which has no size.

The task of Florence et al. 2021 (Implicit Behavioral Cloning) in the form of Chi et al. 2023 (Diffusion Policy), whose
units are kept: published actions fit.
"""

from .limits import Limit
from .spec import Camera, Embodiment, Field, Task

BOARD = 512.0  # side of the board

CAMERA = Camera(name="main", mount="board", height=96, width=96)
VIEWS = {CAMERA.name: CAMERA}

_UNIT = "1/512 of the board"

EMBODIMENT = Embodiment(
    name="pusht-pusher",
    cameras=(CAMERA,),
    state=(Field(name="pusher_position", unit=_UNIT, low=(0.0, 0.0), high=(BOARD, BOARD)),),
    action=(Field(name="pusher_target", unit=_UNIT, low=(0.0, 0.0), high=(BOARD, BOARD), per_step=(40.0, 40.0)),),
    privileged=(
        Field(name="block_position", unit=_UNIT, low=(-BOARD, -BOARD), high=(2 * BOARD, 2 * BOARD)),
        Field(name="block_heading", unit="cosine and sine", low=(-1.0, -1.0), high=(1.0, 1.0)),
    ),
    control_hz=10.0,
    conventions={
        "frame": "picture: x to the right, y down, from the upper left corner",
        "action": "absolute: where a spring pulls the pusher",
        "block_position": "the middle of the bar's outer edge",
    },
    limits=(
        Limit(field="pusher_target", kind="target", drives="pusher_position", low=(0.0, 0.0), high=(BOARD, BOARD)),
    ),
)

TASKS = {
    "pusht-v0": Task(
        id="pusht/pusht-v0",
        instruction="Push the grey T onto the green T",
        success="95 % of the green T covered",
        max_steps=300,
    )
}
