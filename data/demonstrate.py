"""One attempt at a task, recorded: what drives the robot, what disturbs it, and when it stops."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..envs.base import Env
from ..envs.errors import UserError
from ..envs.spec import Embodiment, Field, Task
from .schema import Episode

Act = Callable[[dict[str, Any]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """A policy that drives in the expert's place.

    name: of its weights, kept in the store · begin: task and seed of an episode → the function that acts in it. Where
    several processes record, `begin` is sent to each, so it must be picklable · every: how many of the simulator's own
    steps its control steps have.
    """

    name: str
    begin: Callable[[Task, int], Act]
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The expert says what it would do at every step of another's drive: `action` is the expert's and
    `action_executed` what was done (DAgger; Ross, Gordon and Bagnell 2011).

    beta: share of the steps, each drawn for itself, at which the expert also acts.
    """

    beta: float = 0.0

    def __post_init__(self):
        if not 0 <= self.beta <= 1:
            raise UserError(f"beta is the share of steps at which the expert acts, from 0 to 1, got {self.beta}")


EXPERT, PILOT, LABELLED = "expert", "policy", "policy+expert"
"""Sources of an episode: who drove, and where the expert told the actions of another's drive, that too."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Pushes that lead the robot off the expert's path, so that the way back is demonstrated too.

    Bursts of about `burst` steps, in which one random direction is added to the action, with rests of about
    `rest` steps between them. `std`: standard deviation of each component, as a fraction of half the action's
    range, or of what the robot follows an absolute action by in a step. The gripper is left alone. Why bursts: steady
    noise shakes grasps loose (Metaworld's push expert: 80 % at a steady 0.1, 97 % with these bursts), and in the rests
    the expert returns undisturbed.
    """

    std: float = 0.3
    burst: int = 15
    rest: int = 75

    def __post_init__(self):
        if not 0 <= self.std <= 2 or self.burst < 1 or self.rest < 0:
            raise UserError(f"noise: need 0 <= std <= 2, burst >= 1 and rest >= 0, got {self}")

    def draw(self, embodiment: Embodiment, steps: int, rng: np.random.Generator) -> np.ndarray:
        """What is added to the action of each step, (steps, A) float32 in the action's units."""
        size = np.concatenate([_size(field) for field in embodiment.action])
        noise = np.zeros((steps, embodiment.action_dim), np.float32)
        start = int(rng.integers(0, self.rest + 1))
        while start < steps:
            stop = start + int(rng.integers(self.burst // 2 + 1, self.burst * 3 // 2 + 1))
            noise[start:stop] = self.std * size * rng.standard_normal(len(size))
            start = stop + int(rng.integers(self.rest // 2, self.rest * 3 // 2 + 1))
        return noise


@dataclass(kw_only=True)
class _Course:
    """What is to be learned from an attempt and what was done in it, (N, A) each, and whether it succeeded."""

    action: np.ndarray
    executed: np.ndarray
    success: bool


def demonstrate(
    env: Env,
    seed: int,
    *,
    noise: Noise,
    hold: int,
    act: Act | None,
    keep_failures: bool,
    source: str,
    labels: Labels | None = None,
    max_steps: int | None = None,
) -> Episode | None:
    """Attempt the task of `env` from `seed` and return the episode; None for a failure that is not kept.

    Without `act` the environment's expert drives; with it and `labels` the expert tells what it would have done. It
    stops `hold` steps after the first success, so that staying is learned too, or at the task's step limit, or after
    `max_steps` of the simulator's own. Equal arguments give equal episodes, bit for bit.
    An expert needs no pictures: its course is simulated first and, if kept, driven again before the cameras.
    """
    rng = np.random.default_rng([seed, zlib.crc32(env.task.id.encode())])
    steps = env.embodiment.control_steps(min(env.task.max_steps, max_steps or env.task.max_steps))
    pushes = noise.draw(env.embodiment, steps, rng)
    by_expert = rng.random(steps) < (labels.beta if labels else 0.0)
    if act is not None:
        course, frames = _drive(env, seed, pushes, hold, act, by_expert if labels else None)
    else:
        course, _ = _drive(env, seed, pushes, hold, None)
        frames = _film(env, seed, course.executed) if course.success or keep_failures else []
    if not (course.success or keep_failures):
        return None
    return _episode(env, seed, course, frames, source)


def _drive(
    env: Env, seed: int, pushes: np.ndarray, hold: int, act: Act | None, by_expert: np.ndarray | None = None
) -> tuple[_Course, list[dict]]:
    """by_expert (N,) bool: the expert labels every step and acts at these; None: who drives says what is learned."""
    low, high = env.embodiment.action_low, env.embodiment.action_high
    obs, _ = env.reset(seed=seed)
    actions, executed, frames = [], [], []
    left, success, done = hold, False, False
    while not done:
        step = len(executed)
        frames.append(_seen(env, obs) if act else {})
        own = np.clip(np.float32(act(obs) if act else env.expert_action()), low, high)
        actions.append(own if by_expert is None else np.clip(env.expert_action(), low, high))
        moved = own if by_expert is None or not by_expert[step] else actions[-1]
        executed.append(np.clip(moved + pushes[step], low, high))
        _, reached, truncated = env.advance(executed[-1])
        left -= success
        success = success or reached
        done = truncated or len(executed) == len(pushes) or (success and left <= 0)
        if act and not done:
            obs = env.observe()
    return _Course(action=np.stack(actions), executed=np.stack(executed), success=success), frames


def _film(env: Env, seed: int, executed: np.ndarray) -> list[dict]:
    obs, _ = env.reset(seed=seed)
    frames = [_seen(env, obs)]
    for action in executed[:-1]:
        env.advance(action)
        frames.append(_seen(env, env.observe()))
    return frames


def _seen(env: Env, obs: dict[str, Any]) -> dict[str, Any]:
    privileged = {"privileged": env.privileged()} if env.embodiment.privileged_dim else {}
    return obs | privileged


def _episode(env: Env, seed: int, course: _Course, frames: list[dict], source: str) -> Episode:
    cameras = env.embodiment.cameras
    return Episode(
        images={c.name: np.stack([f["images"][c.name] for f in frames]) for c in cameras},
        depth={c.name: np.stack([f["depth"][c.name] for f in frames]) for c in cameras if c.depth},
        state=np.stack([f["state"] for f in frames]),
        action=course.action,
        action_executed=course.executed,
        privileged=np.stack([f["privileged"] for f in frames]) if env.embodiment.privileged_dim else None,
        task=env.task.id,
        instruction=env.task.instruction,
        seed=seed,
        source=source,
        success=course.success,
    )


def _size(field: Field) -> np.ndarray:
    """What noise of one standard deviation adds to the components of an action field (n,); nothing to a gripper's."""
    if "gripper" in field.name:
        return np.zeros(field.size, np.float32)
    if field.per_step is not None:
        return np.array(field.per_step, np.float32)
    return (np.array(field.high, np.float32) - np.array(field.low, np.float32)) / 2
