"""Episodes a minute: our evaluation against a loop like lerobot's, with the same policy and the same seeds."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ... import envs
from ...envs.errors import UserError
from ...envs.metaworld import bare
from ...envs.metaworld_tasks import CAMERA
from ...policy.policy import Policy
from ..actors import PolicyActor, as_actor
from ..rollout import evaluate
from .timing import Curves, console, draw_growth, machine, show

OURS, LIKE_LEROBOT = "foreact eval", "a loop like lerobot's"
PIXELS = 480  # that lerobot draws, at every step
EPISODES = (1, 2, 4)
"""What the growth plot goes through."""


class Drawn(gymnasium.Env):
    """A Metaworld task as lerobot's environment gives it: Metaworld's own renderer draws a large frame at every step.

    Beside it the frames of `cameras`, as the policy knows them, drawn only every `every` steps: the policy then does
    the same in both loops. They and a second simulator, which draws the large frame, cost a few per cent of a step.
    """

    def __init__(self, task: str, cameras: Sequence[envs.Camera], every: int):
        self.env, self.every = envs.make(task, cameras=cameras), every
        name = envs.task(task).name
        self.sim = bare(name, render_mode="rgb_array", camera_name=CAMERA.mount, width=PIXELS, height=PIXELS)
        box, shape = gymnasium.spaces.Box, (PIXELS, PIXELS, 3)
        small = {c.name: box(0, 255, (c.height, c.width, 3), np.uint8) for c in cameras}
        state = box(-np.inf, np.inf, (self.env.embodiment.state_dim,), np.float32)
        frame = box(0, 255, shape, np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"frame": frame, "state": state, **small})
        self.action_space = box(-1, 1, (self.env.embodiment.action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict]:
        assert seed is not None
        self._seen, _ = self.env.reset(seed=seed)
        self.sim.seed(seed)
        self.sim.reset()
        self._steps = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        reward, success, _ = self.env.advance(action)
        self.sim.step(action)
        self._steps += 1
        if self._steps % self.every == 0:
            self._seen = self.env.observe()
        return self._observation(), float(reward), False, False, {"success": success}

    def _observation(self) -> dict[str, np.ndarray]:
        return {"frame": np.ascontiguousarray(self.sim.render()), "state": self._seen["state"], **self._seen["images"]}

    def close(self) -> None:
        self.env.close()
        self.sim.close()


def like_lerobot(actor: PolicyActor, task: str, seeds: Sequence[int], first: int, max_steps: int) -> list[bool]:
    """Success of one task's episodes: a process for each, one batch, all in step until the last is done."""
    cameras, every = actor.policy.embodiment.cameras, actor.steps
    make = partial(Drawn, task, cameras, every)
    # not a fork: torch's threads do not survive one
    vector = gymnasium.vector.AsyncVectorEnv([make] * len(seeds), context="spawn")
    try:
        seen, _ = vector.reset(seed=list(seeds))
        done, succeeded = np.zeros(len(seeds), bool), np.zeros(len(seeds), bool)
        chunks = np.empty(0)
        for step in range(max_steps):
            if step % every == 0:
                looks = [_look(seen, i, [c.name for c in cameras]) for i in range(len(seeds))]
                keys = [(first, seed - first, step) for seed in seeds]
                instructions = [envs.task(task).instruction] * len(seeds)
                chunks = actor.policy.act(looks, instructions, keys, batch_shape=actor.rows)
            seen, _, _, _, info = vector.step(chunks[:, step % every])
            succeeded |= ~done & np.asarray(info["success"], bool)
            done |= succeeded
            if done.all():
                break
        return succeeded.tolist()
    finally:
        vector.close()


def _look(seen: dict[str, np.ndarray], i: int, cameras: Sequence[str]) -> dict[str, Any]:
    return {"images": {name: seen[name][i][None] for name in cameras}, "state": seen["state"][i][None]}


def _ours(actor: PolicyActor, tasks: Sequence[str], seeds: range, max_steps: int) -> int:
    """Successes of our evaluation."""
    plan = {"episodes": len(seeds), "seed": seeds[0], "max_steps": max_steps, "progress": False}
    rows = evaluate(actor, tasks, **plan)["per_task"].values()
    return sum(episode["success"] for row in rows for episode in row["episodes"])


def _theirs(actor: PolicyActor, tasks: Sequence[str], seeds: range, max_steps: int) -> int:
    """Successes of the loop like lerobot's."""
    return sum(sum(like_lerobot(actor, task, seeds, seeds[0], max_steps)) for task in tasks)


LOOPS = {OURS: _ours, LIKE_LEROBOT: _theirs}


def bench_eval(
    policy: Policy | str | Path,
    tasks: Sequence[str] | None = None,
    *,
    episodes: int = 2,
    rounds: int = 5,
    seed: int = 1000,
    max_steps: int = 500,
    device: str = "auto",
    growth: bool = True,
    out: Path | str = "bench",
) -> None:
    """Episodes a minute of both loops in alternation, on other seeds each round, and whether they succeed alike.

    tasks: default those of the checkpoint · episodes: of each task in a round, and so the batch of lerobot's loop ·
    growth: plot how the time of a round grows with them.
    """
    actor = as_actor(policy, device=device)
    if not isinstance(actor, PolicyActor) or actor.policy.n_obs_steps != 1 or actor.poses:
        raise UserError(f"bench eval takes a checkpoint that sees one frame and tells actions, not {policy}")
    names = [envs.resolve(task) for task in tasks or actor.policy.tasks]

    def turns(rounds: int, episodes: int) -> tuple[dict[str, list[float]], dict[str, int]]:
        """Seconds of each round of each loop, and their successes."""
        seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
        success = dict.fromkeys(LOOPS, 0)
        for first in range(seed, seed + rounds * episodes, episodes):
            for name, loop in LOOPS.items():
                began = time.perf_counter()
                success[name] += loop(actor, names, range(first, first + episodes), max_steps)
                seconds[name].append(time.perf_counter() - began)
        return seconds, success

    seconds, success = turns(rounds, episodes)
    each, total = episodes * len(names), rounds * episodes * len(names)
    times = {name: [s / each for s in values] for name, values in seconds.items()}
    columns = {
        "episodes a minute": {name: f"{60 / np.median(values):.1f}" for name, values in times.items()},
        "success": {name: f"{n} of {total}" for name, n in success.items()},
    }
    show(f"eval · {len(names)} tasks, {episodes} episodes of each at a time", times, LIKE_LEROBOT, columns, unit="s")
    if growth:
        rows = {n: turns(1, n)[0] for n in EPISODES}
        curves: Curves = {name: {n: rows[n][name] for n in rows} for name in LOOPS}
        draw_growth(Path(out) / "eval.png", {"episodes of each task at a time": curves}, "s a round")
    console.print(machine(str(getattr(actor.policy, "device", "cpu"))))
    print(f"ratio {np.median(times[LIKE_LEROBOT]) / np.median(times[OURS]):.1f}x")
