"""A scripted expert for ALOHA's cube transfer: waypoints of both hands, as joint targets by inverse kinematics.

The right hand comes down on the cube at a slant and lifts it to the meeting place; the left one, rolled by a quarter
turn so that the fingers of both fit around one cube, comes from its side, closes, and the right one lets go. The joints
are interpolated between the waypoints.
"""

from typing import Any, NamedTuple

import numpy as np

from .aloha_tasks import HIGH, LOW

_FINGERTIPS = np.array([0.135, 0.0, 0.0])  # between them, from the frame of the gripper's link [m]
_SIDES = {"left": slice(0, 6), "right": slice(8, 14)}  # joints of an arm in the state; two of fingers follow
_MEET = np.array([0.0, 0.5, 0.25])  # [m]
_TOLERANCE = 1e-4  # of the inverse kinematics [m, rad]
_DAMPING = 1e-4


class Hand(NamedTuple):
    """Where a hand's fingertips are to be: a place and an offset from it [m], a turn (w, x, y, z), and the opening."""

    place: str
    offset: tuple[float, float, float]
    turn: tuple[float, float, float, float]
    opening: float


class Stage(NamedTuple):
    """So many control steps towards a pose of both hands."""

    steps: int
    right: Hand
    left: Hand


_SLANTED = (0.0, -0.5, 0.0, 0.866025)  # the right arm's hand, forward along -x, pitched down by 60 degrees
_ROLLED = (0.707107, 0.707107, 0.0, 0.0)  # the left arm's hand, forward along x, rolled by 90 degrees
_LEVEL = (1.0, 0.0, 0.0, 0.0)

_WAITING = Hand("home", (0, 0, 0), _LEVEL, 0.0)
_BESIDE = Hand("meet", (-0.15, 0, 0), _ROLLED, 1.0)
_AT = Hand("meet", (0, 0, 0), _ROLLED, 1.0)
_HELD = Hand("meet", (0, 0, 0), _SLANTED, 0.0)

STAGES = (
    Stage(60, Hand("cube", (0, 0, 0.1), _SLANTED, 1.0), _WAITING),
    Stage(40, Hand("cube", (0, 0, -0.01), _SLANTED, 1.0), _WAITING),
    Stage(25, Hand("cube", (0, 0, -0.01), _SLANTED, 0.0), _WAITING),
    Stage(80, _HELD, _BESIDE),
    Stage(40, _HELD, _AT),
    Stage(25, _HELD, _AT._replace(opening=0.0)),
    Stage(20, _HELD._replace(opening=1.0), _AT._replace(opening=0.0)),
    Stage(40, Hand("meet", (0.1, 0, 0.1), _SLANTED, 1.0), _BESIDE._replace(opening=0.0)),
)


def plan(mujoco: Any, model: Any, data: Any, cube: np.ndarray) -> np.ndarray:
    """Joint and gripper targets (steps, 14) from the arms' present pose, for a cube at `cube` (3,) [m]."""
    scratch = mujoco.MjData(model)
    scratch.qpos[:] = data.qpos
    mujoco.mj_kinematics(model, scratch)
    homes = {side: _tip(model, scratch, side) for side in _SIDES}
    targets = [_present(data)]
    for stage in STAGES:
        parts = []
        for side in ("left", "right"):
            hand: Hand = getattr(stage, side)
            place = {"cube": cube, "meet": _MEET, "home": homes[side]}[hand.place]
            joints = reach(mujoco, model, scratch, side, place + hand.offset, np.array(hand.turn))
            parts += [*joints, hand.opening]
        targets.append(np.array(parts))
    legs = [_smooth(a, b, stage.steps) for a, b, stage in zip(targets, targets[1:], STAGES, strict=False)]
    return np.concatenate(legs)


def _smooth(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """From rest to rest, without `start` itself (steps, 14)."""
    t = np.arange(1, steps + 1)[:, None] / steps
    return start + (3 * t**2 - 2 * t**3) * (end - start)


def _present(data: Any) -> np.ndarray:
    """Targets that hold the arms where they are, grippers closed (14,)."""
    return np.concatenate([data.qpos[_SIDES["left"]], [0.0], data.qpos[_SIDES["right"]], [0.0]])


def _tip(model: Any, data: Any, side: str) -> np.ndarray:
    link = data.body(f"vx300s_{side}/gripper_link")
    return link.xpos + link.xmat.reshape(3, 3) @ _FINGERTIPS


def reach(
    mujoco: Any, model: Any, data: Any, side: str, position: np.ndarray, turn: np.ndarray, most: int = 200
) -> np.ndarray:
    """Joints (6,) [rad] that bring an arm's fingertips to `position` (3,) [m] with the hand turned by `turn` (4,).

    Damped least squares from the joints in `data`, which are moved. A pose out of reach gives the nearest found.
    """
    joints, link = _SIDES[side], model.body(f"vx300s_{side}/gripper_link").id
    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    inverse, difference, spin = np.zeros(4), np.zeros(4), np.zeros(3)
    for _ in range(most):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        tip = _tip(model, data, side)
        mujoco.mju_negQuat(inverse, data.xquat[link])
        mujoco.mju_mulQuat(difference, turn, inverse)
        mujoco.mju_quat2Vel(spin, difference, 1.0)
        error = np.concatenate([position - tip, spin])
        if np.abs(error).max() < _TOLERANCE:
            break
        mujoco.mj_jac(model, data, linear, angular, tip, link)
        jacobian = np.concatenate([linear, angular])[:, joints]
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + _DAMPING * np.eye(6), error)
        data.qpos[joints] = np.clip(data.qpos[joints] + np.clip(step, -0.3, 0.3), LOW, HIGH)
    return data.qpos[joints].copy()
