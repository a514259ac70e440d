"""Drive a robot to poses that a policy foresaw: PAD's way of acting (Guo et al. 2024, §4.1), instead of raw actions.

The hand goes straight to the pose at a steady speed and slower at its end; the gripper is switched where the pose's
opening differs from the present one, and then given time. A pose that cannot be reached (the hand pushes something) is
given up after `MOST` steps.
"""

import numpy as np

from .errors import UserError
from .spec import Embodiment

NEAR = 0.005  # reached [m]
SLOW_WITHIN = 0.02  # [m]
FAST, SLOW = 0.6, 0.3  # of the action's range
GRIP_DIFFERENCE = 0.2  # of the opening's range: less is not worth a switch
GRIP_STEPS = 20  # to open or close
MOST = 50  # steps for one pose


class Planner:
    """Actions towards one pose after another. Raises `UserError` for a robot whose fields it does not know."""

    def __init__(self, embodiment: Embodiment):
        state, action = [f.name for f in embodiment.state], [f.name for f in embodiment.action]
        if state != ["hand_position", "gripper_opening"] or action != ["hand_delta", "gripper_effort"]:
            raise UserError(
                f"poses are executed for a state of hand_position and gripper_opening and actions of hand_delta and "
                f"gripper_effort; {embodiment.name!r} has {state} and {action}: train it on raw actions"
            )
        self._effort, self._waiting, self._steps = -1.0, 0, 0

    def aim(self) -> None:
        """Begin with a new pose."""
        self._steps = 0

    def step(self, state: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, bool]:
        """The next action (4,) from state (4,) towards pose (4,) [m, opening], and whether it is the last for it."""
        self._steps += 1
        gap, difference = pose[:3] - state[:3], pose[3] - state[3]
        effort = -float(np.sign(difference)) if abs(difference) > GRIP_DIFFERENCE else self._effort
        if effort != self._effort:
            self._effort, self._waiting = effort, GRIP_STEPS
        self._waiting = max(0, self._waiting - 1)
        distance = float(np.linalg.norm(gap))
        speed = FAST if distance > SLOW_WITHIN else SLOW
        move = gap / distance * speed if distance > NEAR else np.zeros(3)
        done = (distance <= NEAR and self._waiting == 0) or self._steps >= MOST
        return np.concatenate([move, [self._effort]]).astype(np.float32), done
