"""PushT: push a T onto its outline with a round pusher, seen from above; gym-pusht's physics, drawn here.

What the simulator does not give, and this adapter does: pictures at the size asked for (its own are drawn large and
made small), and an expert.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from .base import Env
from .errors import UserError
from .pusht_expert import OUTLINE, RADIUS, Expert, Pose
from .pusht_tasks import BOARD, CAMERA, EMBODIMENT
from .spec import Camera, Task

_WALL = 5.0  # middle of the frame around the board, from its edge
_COLOURS = {"board": (255, 255, 255), "wall": (211, 211, 211), "goal": (144, 238, 144)}
_COLOURS |= {"block": (119, 136, 153), "pusher": (65, 105, 225)}
_FRACTION = 4  # bits of a pixel in which OpenCV takes positions


def make(task: Task, *, cameras: Sequence[Camera] | None, privileged: bool) -> Env:
    """The environment of one task; see `envs.make`."""
    return PushT(task, cameras=cameras, privileged=privileged)


class PushT(Env):
    """gym-pusht's PushT behind the environment contract."""

    def __init__(self, task: Task, *, cameras: Sequence[Camera] | None = None, privileged: bool = False):
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import cv2
        from gym_pusht.envs.pusht import PushTEnv

        embodiment = EMBODIMENT if cameras is None else dataclasses.replace(EMBODIMENT, cameras=tuple(cameras))
        for camera in embodiment.cameras:
            _check(camera)
        super().__init__(embodiment, task, observe_privileged=privileged)
        self._cv2 = cv2
        self._sim = PushTEnv(obs_type="state")
        self._sim.reset(seed=0)
        self._goal = Pose(self._sim.goal_pose[:2], float(self._sim.goal_pose[2]))
        block = self._sim.block
        self._expert = Expert(self._goal, block.moment / block.mass, BOARD)

    def _restart(self, seed: int) -> None:
        self._sim.reset(seed=seed)
        self._expert.reset()

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self._sim.step(action.astype(np.float64))
        return float(reward), bool(info["is_success"])

    def _state(self) -> np.ndarray:
        return np.array(self._sim.agent.position)

    def _block(self) -> Pose:
        return Pose(np.array(self._sim.block.position), float(self._sim.block.angle))

    def privileged(self) -> np.ndarray:
        """The T's position [board units] and the cosine and sine of its angle, (4,) float32."""
        position, angle = self._block()
        return np.array([*position, np.cos(angle), np.sin(angle)], np.float32)

    def expert_action(self) -> np.ndarray:
        """The scripted pusher's next target, within the board."""
        target = self._expert.act(self._state(), self._block())
        return np.clip(target, 0, BOARD).astype(np.float32)

    def _draw(self, camera: Camera) -> tuple[np.ndarray, None]:
        if camera.look != "fast":
            return np.ascontiguousarray(self._sim._get_img(self._sim._draw(), camera.width, camera.height)), None
        scale = np.array([camera.width, camera.height]) / BOARD
        picture = np.full((camera.height, camera.width, 3), _COLOURS["board"], np.uint8)
        frame = np.array([(_WALL, _WALL), (BOARD - _WALL, _WALL), (BOARD - _WALL,) * 2, (_WALL, BOARD - _WALL)])
        width = max(1, round(4 * float(scale.min())))
        self._cv2.polylines(
            picture, [_fixed(frame * scale)], True, _COLOURS["wall"], width, self._cv2.LINE_AA, _FRACTION
        )
        for name, pose in (("goal", self._goal), ("block", self._block())):
            self._fill(picture, _corners(pose) * scale, name)
        turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        circle = self._state() + RADIUS * np.stack([np.cos(turn), np.sin(turn)], 1)
        self._fill(picture, circle * scale, "pusher")
        return picture, None

    def _fill(self, picture: np.ndarray, corners: np.ndarray, name: str) -> None:
        self._cv2.fillPoly(picture, [_fixed(corners)], _COLOURS[name], self._cv2.LINE_AA, _FRACTION)


def _corners(pose: Pose) -> np.ndarray:
    """The T's outline on the board (8, 2)."""
    c, s = np.cos(pose.angle), np.sin(pose.angle)
    return OUTLINE @ np.array([[c, s], [-s, c]]) + pose.position


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points in pixels, whose middles are whole numbers there, as OpenCV's fixed-point numbers."""
    return np.round((points - 0.5) * 2**_FRACTION).astype(np.int32)


def _check(camera: Camera) -> None:
    if camera.mount != CAMERA.mount:
        raise UserError(f"unknown mount (camera {camera.name!r}) {camera.mount!r}; choose one of: {CAMERA.mount}")
    if camera.depth or camera.pos is not None or camera.fovy is not None or camera.flip != "none":
        raise UserError(
            f"camera {camera.name!r}: PushT is drawn flat, from above, at the size asked for; it has no depth, "
            f"and no other pos, fovy or flip; got depth={camera.depth}, pos={camera.pos}, fovy={camera.fovy}, "
            f"flip={camera.flip!r}"
        )
