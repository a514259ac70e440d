"""The doctor's checks of pictures: frozen, blank, and turned or mirrored against what they should be."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from .. import envs
from ..envs.cameras import Camera
from ..envs.errors import UserError
from ..envs.fields import columns
from .evidence import Evidence, Problem, Rows, is_gripper, span

_FROZEN_FRAMES = 5
_FROZEN_MOTION = 0.01  # of the state's span, while the picture stands still
_BLANK = 2.0  # grey levels
_TASKS_TO_SIMULATE = 8

# how a picture can have gone wrong, and how to get it right again (each is its own inverse)
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda x: x[::-1],
    "mirrored": lambda x: x[:, ::-1],
    "rotated by half a turn": lambda x: x[::-1, ::-1],
    "in BGR instead of RGB": lambda x: x[..., ::-1],
}


def frozen_cameras(e: Evidence) -> Iterator[Problem]:
    """Identical frames, one after the other, while the robot moves."""
    if "state" not in e.arrays:
        return
    for camera, pictures in e.pictures.items():
        for episode in e.episodes:
            if episode.index not in pictures:
                continue
            frames, moved = _longest_freeze(pictures[episode.index].same, _motion(e, episode))
            if frames:
                message = (
                    f"camera {camera} repeats one frame {frames} times while the robot moves {moved:.0%} of its span"
                )
                remedy = "leave the episode out, and look at the camera's driver"
                yield Problem("error", episode.where, message, remedy)


def blank_frames(e: Evidence) -> Iterator[Problem]:
    for camera, pictures in e.pictures.items():
        for episode in e.episodes:
            if episode.index in pictures and (blank := int((pictures[episode.index].spread < _BLANK).sum())):
                message = f"camera {camera} shows one flat colour in {blank} frames"
                yield Problem("error", episode.where, message, "leave the episode out, and look at the camera")


def odd_ones_out(e: Evidence) -> Iterator[Problem]:
    """Episodes whose mean picture looks like the others' only when it is turned."""
    for camera, pictures in e.pictures.items():
        if len(pictures) < 3:
            continue
        usual = np.median([p.mean for p in pictures.values()], axis=0)
        for episode in e.episodes:
            if episode.index in pictures and (turn := _turned(pictures[episode.index].mean, usual)):
                message = f"camera {camera} is {turn}, compared to the other episodes"
                yield Problem("error", episode.where, message, "turn its pictures as the others are")


def against_simulator(e: Evidence) -> Iterator[Problem]:
    """Draw the first frame of some stored seeds again. Silent where the simulator is not installed."""
    for task, episodes in list(e.by_task().items())[:_TASKS_TO_SIMULATE]:
        episode = episodes[0]
        try:
            spec = envs.task(task)
            cameras = [_as_drawn(c, episode.source) for c in e.embodiment.cameras]
            env = envs.make(spec.id, cameras=cameras, privileged=True)
        except UserError:
            continue
        try:
            if env.embodiment.name == e.embodiment.own_name and episode.seed >= 0:
                obs, _ = env.reset(seed=episode.seed)
                yield from _compare(e, episode, obs)
        finally:
            env.close()


def _compare(e: Evidence, episode: Rows, obs: dict) -> Iterator[Problem]:
    for camera, pictures in e.pictures.items():
        stored, drawn = pictures.get(episode.index), obs["images"][camera]
        if stored is None or np.array_equal(stored.first, drawn):
            continue
        apart = _distance(stored.first, drawn)
        if turn := _turned(stored.first, drawn):
            message = f"camera {camera} is {turn}, against the declared convention (upright RGB) as simulated"
            yield Problem("error", episode.where, message, "turn the pictures of the store")
        elif apart > 5:
            message = f"camera {camera}: frame 0 differs from the simulated one by {apart:.0f} grey levels"
            remedy = "correct the seed or the camera's pose; or the simulator's version has changed"
            yield Problem("warning", episode.where, message, remedy)
    again = {"state": obs["state"], "privileged": obs["privileged"]}
    for name in again.keys() & e.arrays.keys():
        stored = e.of(episode, name)[0]
        if stored.shape == again[name].shape and np.abs(stored - again[name]).max() > 0.002:
            message = f"{name} begins at {stored}, its seed gives {again[name]} in the simulator"
            yield Problem("warning", episode.where, message, "correct the seed, or the unit or order of the numbers")


def _as_drawn(camera: Camera, source: str) -> Camera:
    return dataclasses.replace(camera, look="reference") if source.endswith("@reference") else camera


def _turned(picture: np.ndarray, usual: np.ndarray) -> str | None:
    """Which turn brings a picture clearly nearer to the usual one, if any does."""
    if picture.shape[0] != picture.shape[1] and picture.shape != usual.shape:
        return None
    apart = {turn: _distance(mend(picture), usual) for turn, mend in TURNS.items()}
    best = min(apart, key=lambda turn: apart[turn])
    return best if apart[best] < 0.6 * _distance(picture, usual) else None


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b).mean())


def _motion(e: Evidence, episode: Rows) -> np.ndarray:
    """How far the robot moves from each step to the next, as a share of its span (N - 1,)."""
    state = e.of(episode, "state")
    moves = [
        np.linalg.norm(np.diff(state[:, where], axis=0), axis=1) / max(span(field), 1e-9)
        for field, where in columns(e.embodiment.state)
        if not is_gripper(field)
    ]
    return np.max(moves, axis=0) if moves else np.zeros(max(len(state) - 1, 0))


def _longest_freeze(same: np.ndarray, motion: np.ndarray) -> tuple[int, float]:
    """The longest run of identical frames in which the robot moves: (frames, share of its span); or (0, 0)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    runs = [(int(b - a), float(np.nansum(motion[a:b]))) for a, b in edges.reshape(-1, 2)]
    runs = [(n, moved) for n, moved in runs if n >= _FROZEN_FRAMES and moved > _FROZEN_MOTION]
    return max(runs, default=(0, 0.0))
