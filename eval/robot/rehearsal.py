"""A robot without a body: what a scripted expert saw, over and over, at no cost. What is timed is then the loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import envs
from ...envs.spec import Camera, Embodiment, Task
from .clock import Clock
from .robots import Stamped


class Rehearsal:
    """Observations that lie in memory, the next one at each control step, first forwards and then backwards: a robot
    whose drivers keep the newest picture and state at hand, and which goes on for ever. What is sent moves nothing.

    seen: observations, {"images": {camera: (H, W, 3) uint8}, "state": (S,)}.
    """

    def __init__(self, seen: Sequence[dict[str, Any]], embodiment: Embodiment, task: Task, clock: Clock):
        self.embodiment, self.clock = embodiment, clock
        self.task, self.instruction = task.id, task.instruction
        self._seen, self._next = [*seen, *seen[-2:0:-1]], 0

    def connect(self) -> None:
        """Nothing to do."""

    def begin(self, episode: int) -> None:
        """It begins where it was."""

    def observe(self, pictures: bool = True) -> Stamped:
        """The next observation, as new as can be; with pictures whether or not they are asked for."""
        self._next = (self._next + 1) % len(self._seen)
        return Stamped(self._seen[self._next], self.clock.now())

    def act(self, action: np.ndarray) -> None:
        """It does not move."""

    def stop(self) -> None:
        """It does not move."""

    def outcome(self) -> str | None:
        """It does not end."""

    def close(self) -> None:
        """Nothing to do."""


def demonstrated(
    task: str, cameras: Sequence[Camera], *, seed: int = 1000, steps: int = 64
) -> tuple[list[dict[str, Any]], Embodiment, Task]:
    """What the expert of a simulated task sees in its first `steps` control steps, with the robot and the task: what a
    `Rehearsal` is made of.
    """
    env = envs.make(task, cameras=cameras)
    try:
        seen = [env.reset(seed=seed)[0]]
        while len(seen) < min(steps, env.task.max_steps):
            seen.append(env.step(env.expert_action())[0])
        return seen, env.embodiment, env.task
    finally:
        env.close()
