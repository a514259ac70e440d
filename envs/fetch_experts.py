"""Scripted experts of the Fetch tasks: the next action from what is where now, with no memory.

Each takes the positions [m] of hand, object and goal (3,) and the gripper's opening (0 to 1), and returns where the
hand goes next (3,) [m] and the gripper's effort.
"""

from collections.abc import Callable

import numpy as np

Expert = Callable[[np.ndarray, np.ndarray, np.ndarray, float], tuple[np.ndarray, float]]

OPEN, CLOSE = -1.0, 1.0
_BEHIND = 0.075  # from the box's middle to where a push begins
_ABOVE = 0.1  # over the box, where the hand passes
_STRIDE = 0.03  # of a push, a step
_NEAR = 0.01
_HELD = 0.55  # opening at which the fingers touch the box, and a little more


def reach(hand: np.ndarray, thing: np.ndarray, goal: np.ndarray, opening: float) -> tuple[np.ndarray, float]:
    """Straight to the goal."""
    return goal, CLOSE


def push(hand: np.ndarray, thing: np.ndarray, goal: np.ndarray, opening: float) -> tuple[np.ndarray, float]:
    """Behind the box as seen from the goal, down, and forward."""
    way = (goal - thing)[:2]
    left = float(np.linalg.norm(way))
    if left < _NEAR:
        return hand, CLOSE
    ahead = way / left
    offset = (hand - thing)[:2]
    along, aside = float(offset @ ahead), float(offset @ [-ahead[1], ahead[0]])
    low = hand[2] < thing[2] + 0.02
    if low and along < -0.03 and abs(aside) < 0.025:
        forward = min(_STRIDE, left + 0.01)
        step = forward * ahead - aside * np.array([-ahead[1], ahead[0]])
        return np.array([*(hand[:2] + step), thing[2]]), CLOSE
    begin = thing[:2] - _BEHIND * ahead
    if np.linalg.norm(hand[:2] - begin) < _NEAR:
        return np.array([*begin, thing[2]]), CLOSE
    if hand[2] < thing[2] + _ABOVE - 0.02 and np.linalg.norm(offset) < 0.12:
        return np.array([*hand[:2], thing[2] + _ABOVE]), CLOSE
    return np.array([*begin, thing[2] + _ABOVE]), CLOSE


def pick_and_place(hand: np.ndarray, thing: np.ndarray, goal: np.ndarray, opening: float) -> tuple[np.ndarray, float]:
    """Above the box, down around it, close, and with it to the goal."""
    aside = float(np.linalg.norm((hand - thing)[:2]))
    apart = float(np.linalg.norm(hand - thing))
    if apart < 0.02:
        return (hand + goal - thing if opening < _HELD else thing), CLOSE
    if aside < _NEAR:
        return thing, OPEN
    height = _ABOVE if aside > 0.03 else max(0.0, hand[2] - thing[2])
    return np.array([*thing[:2], thing[2] + height]), OPEN


EXPERTS: dict[str, Expert] = {
    "fetch-reach-v4": reach,
    "fetch-push-v4": push,
    "fetch-pick-and-place-v4": pick_and_place,
}
