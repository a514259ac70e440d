"""Episodes a minute: our evaluation against a loop like lerobot's, with the same policy and the same seeds."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

from ... import envs
from ...envs.errors import UserError
from ...envs.metaworld import bare
from ...envs.metaworld_tasks import CAMERA
from ...policy.device import resolve_device
from ...policy.policy import Policy
from ..actors import PolicyActor
from ..casting import as_actor, beside_workers
from ..rollout import evaluate
from .peers import Peer, check_peer, diffusion, lerobot
from .timing import Curves, console, draw_growth, machine, show

OURS, LIKE_LEROBOT = "foreact eval", "a loop like lerobot's"
LEROBOT = "lerobot's own, its Diffusion policy untrained, 10 DDIM steps"
LEROBOT_STEPS = 50
"""Of each episode of an untrained policy, which does not succeed."""
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


class Ran(NamedTuple):
    """Episodes that succeeded, and the steps that all of them took."""

    successes: int
    steps: int


def like_lerobot(actor: PolicyActor, task: str, seeds: Sequence[int], first: int, max_steps: int) -> Ran:
    """One task's episodes: a process for each, one batch, all in step until the last is done."""
    cameras, every = actor.policy.embodiment.cameras, actor.steps
    make = partial(Drawn, task, cameras, every)
    # not a fork: torch's threads do not survive one
    vector = gymnasium.vector.AsyncVectorEnv([make] * len(seeds), context="spawn")
    try:
        seen, _ = vector.reset(seed=list(seeds))
        done, steps = np.zeros(len(seeds), bool), 0
        chunks = np.empty(0)
        for step in range(max_steps):
            if step % every == 0:
                looks = [_look(seen, i, [c.name for c in cameras]) for i in range(len(seeds))]
                keys = [(first, seed - first, step) for seed in seeds]
                instructions = [envs.task(task).instruction] * len(seeds)
                chunks = actor.policy.act(looks, instructions, keys)
            seen, _, _, _, info = vector.step(chunks[:, step % every])
            steps += int((~done).sum())
            done |= np.asarray(info["success"], bool)
            if done.all():
                break
        return Ran(int(done.sum()), steps)
    finally:
        vector.close()


def _look(seen: dict[str, np.ndarray], i: int, cameras: Sequence[str]) -> dict[str, Any]:
    return {"images": {name: seen[name][i][None] for name in cameras}, "state": seen["state"][i][None]}


def _ours(actor: Any, tasks: Sequence[str], max_steps: int, seeds: range) -> Ran:
    plan = {"episodes": len(seeds), "seed": seeds[0], "max_steps": max_steps, "progress": False}
    rows = evaluate(actor, tasks, **plan)["per_task"].values()
    episodes = [episode for row in rows for episode in row["episodes"]]
    return Ran(sum(e["success"] for e in episodes), sum(e["length"] for e in episodes))


def _theirs(actor: PolicyActor, tasks: Sequence[str], max_steps: int, seeds: range) -> Ran:
    ran = [like_lerobot(actor, task, seeds, seeds[0], max_steps) for task in tasks]
    return Ran(sum(r.successes for r in ran), sum(r.steps for r in ran))


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
    runtime: str = "torch",
    growth: bool = True,
    peer: str | None = None,
    out: Path | str = "bench",
) -> None:
    """Episodes a minute of both loops in alternation, on other seeds each round, and whether they succeed alike.

    tasks: default those of the checkpoint · episodes: of each task in a round, and so the batch of lerobot's loop ·
    runtime: of the policy in both loops · growth: plot how the time of a round grows with episodes · peer: an
    interpreter that has lerobot, whose own loop then takes turns with both; its policy is another, so what compares
    is the time of a step.
    """
    check_peer(peer, resolve_device(device))
    load = partial(as_actor, policy, device=device, runtime=runtime)
    with beside_workers(policy):  # in the other loop nobody simulates while the policy infers
        actors = {OURS: load()}
    actor = actors[LIKE_LEROBOT] = load()
    if not isinstance(actor, PolicyActor) or actor.policy.n_obs_steps != 1 or actor.poses:
        raise UserError(f"bench eval takes a checkpoint that sees one frame and tells actions, not {policy}")
    names = [envs.resolve(task) for task in tasks or actor.policy.tasks]
    with contextlib.ExitStack() as stack:
        loops = {n: partial(loop, actors[n], names, max_steps) for n, loop in LOOPS.items()}
        own = {LEROBOT: _lerobot(peer, actor, names, episodes, stack)} if peer else {}
        seconds, ran = _turns({**loops, **own}, range(seed, seed + rounds * episodes, episodes), episodes)
        rows = {n: _turns(loops, [seed], n)[0] for n in EPISODES} if growth else {}
    each, total = episodes * len(names), rounds * episodes * len(names)
    times = {name: [s / each for s in seconds[name]] for name in LOOPS}
    columns = {
        "episodes a minute": {name: f"{60 / np.median(values):.1f}" for name, values in times.items()},
        "success": {name: f"{sum(r.successes for r in ran[name])} of {total}" for name in LOOPS},
    }
    show(f"eval · {len(names)} tasks, {episodes} episodes of each at a time", times, LIKE_LEROBOT, columns, unit="s")
    if peer:
        steps = {n: [1000 * s / r.steps for s, r in zip(seconds[n], ran[n], strict=True)] for n in seconds}
        show("eval · a step of one episode", steps, LEROBOT, {})
    if rows:
        curves: Curves = {name: {n: rows[n][name] for n in rows} for name in LOOPS}
        draw_growth(Path(out) / "eval.png", {"episodes of each task at a time": curves}, "s a round")
    console.print(machine(str(getattr(actor.policy, "device", "cpu"))))
    print(f"ratio {np.median(times[LIKE_LEROBOT]) / np.median(times[OURS]):.1f}x")


def _turns(
    loops: Mapping[str, Callable[[range], Ran]], firsts: Iterable[int], episodes: int
) -> tuple[dict[str, list[float]], dict[str, list[Ran]]]:
    """Seconds of each round of each loop, and how it went. firsts: the first seed of each round."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    ran: dict[str, list[Ran]] = {name: [] for name in loops}
    for first in firsts:
        for name, loop in loops.items():
            began = time.perf_counter()
            ran[name].append(loop(range(first, first + episodes)))
            seconds[name].append(time.perf_counter() - began)
    return seconds, ran


def _lerobot(
    python: str, actor: PolicyActor, tasks: Sequence[str], episodes: int, stack: contextlib.ExitStack
) -> Callable[[range], Ran]:
    """lerobot's own evaluation of as many episodes of the same tasks."""
    if not isinstance(actor.policy, Policy):
        raise UserError("bench eval with lerobot= takes a checkpoint as it was trained, not an exported one")
    asked = diffusion(actor.policy.config, noise_scheduler_type="DDIM", num_inference_steps=10)
    work = {"tasks": [envs.task(task).name for task in tasks], "episodes": episodes, "max_steps": LEROBOT_STEPS}
    peer: Peer = stack.enter_context(lerobot(python, "evaluate", torch.get_num_threads(), **asked, **work))
    return lambda seeds: Ran(0, peer()["steps"])
