"""A checkpoint at the wheel: fresh episodes of a task, driven by it or by the expert, and the pilot of a collection."""

import dataclasses
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import envs
from ..data.demonstrate import Act, Noise, Pilot, demonstrate
from ..data.store import Store
from ..envs.errors import choose
from ..envs.spec import Task
from ..envs.waypoints import Planner
from ..policy import Policy, load_policy
from ..policy.checkpoint import find_checkpoint
from ..policy.device import on_threads
from ..policy.fingerprint import fingerprint
from .stage import check_embodiment, stack

HOLD = 16  # steps after success: the last foreseen frames are then real as well


def record(policy: Policy, task: str, episodes: int, path: Path, *, driver: str = "policy", seed: int = 1000) -> Store:
    """Episodes from seed, seed + 1, … in the store at `path`, which is continued where it was stopped.

    driver: 'policy' or 'expert'. Failures stay in.
    """
    choose(driver, ("policy", "expert"), "driver")
    cameras = policy.embodiment.cameras
    env = envs.make(envs.resolve(task), cameras=cameras, every=policy.embodiment.every)
    try:
        begun = path.exists()
        with Store.open(path, "a") if begun else Store.create(path, env.embodiment, privileged=False) as store:
            for i in range(seed + len(store), seed + episodes):
                act = _driver(policy, env.task.instruction, i) if driver == "policy" else None
                options: dict[str, Any] = {"noise": Noise(std=0.0), "hold": HOLD, "keep_failures": True}
                episode = demonstrate(env, i, act=act, source=driver, **options)
                assert episode is not None
                store.append(dataclasses.replace(episode, privileged=None))
    finally:
        env.close()
    return Store.open(path)


def pilot(checkpoint: Path | str, device: str = "auto", every: int | None = None) -> tuple[Policy, Pilot]:
    """A checkpoint that drives while `data.collect` records, and its policy: whose tasks and cameras it takes.

    every: how many of the robot's own steps a control step has; None: as of the policy's main robot.
    """
    folder = str(find_checkpoint(checkpoint))
    policy = _loaded(folder, device)
    every = policy.embodiment.every if every is None else every
    return policy, Pilot(name=fingerprint(policy.model), begin=_Begin(folder, device, every), every=every)


@dataclass(frozen=True)
class _Begin:
    """Episodes with a checkpoint, loaded once in each process that records. On one thread, as all those are: then the
    same actions, bit for bit, whoever records. Raises `UserError` where the task's robot is not the policy's."""

    checkpoint: str
    device: str
    every: int

    def __call__(self, task: Task, seed: int) -> Act:
        known = _loaded(self.checkpoint, self.device)
        robot = envs.embodiment(task.id).at(self.every)
        policy = known.on(robot.name)
        check_embodiment(policy.embodiment, dataclasses.replace(robot, cameras=policy.embodiment.cameras), task.id)
        drive = _driver(policy, task.instruction, seed)

        def act(observation: dict[str, Any]) -> np.ndarray:
            with on_threads(1):
                return drive(observation)

        return act


@lru_cache(maxsize=1)
def _loaded(folder: str, device: str) -> Policy:
    return load_policy(folder, device)


def _driver(policy: Policy, instruction: str, seed: int) -> Act:
    return (PoseDriver if policy.poses else Driver)(policy, instruction, seed)


class Driver:
    """A policy as a function of one observation: looks every `n_action_steps`, executes its chunk in between."""

    def __init__(self, policy: Policy, instruction: str, seed: int):
        self.policy, self.instruction, self.seed = policy, instruction, seed
        self.history: deque[dict[str, Any]] = deque(maxlen=policy.n_obs_steps)
        self.step = 0

    def __call__(self, observation: dict[str, Any]) -> np.ndarray:
        while len(self.history) < self.policy.n_obs_steps - 1:
            self.history.append(observation)
        self.history.append(observation)
        place = self.step % self.policy.n_action_steps
        if place == 0:
            key = (self.seed, self.step)
            self.chunk = self.policy.act([stack(list(self.history))], [self.instruction], [key])[0]
        self.step += 1
        return self.chunk[place]


class PoseDriver:
    """A policy of poses as a function of one observation: a planner drives to a pose, then comes the next look."""

    def __init__(self, policy: Policy, instruction: str, seed: int):
        self.policy, self.instruction, self.seed = policy, instruction, seed
        self.planner = Planner(policy.embodiment)
        self.poses: deque[np.ndarray] = deque()
        self.step, self.reached = 0, True

    def __call__(self, observation: dict[str, Any]) -> np.ndarray:
        if self.reached:
            if self.poses:
                self.poses.popleft()
            if not self.poses:
                chunk = self.policy.act([stack([observation])], [self.instruction], [(self.seed, self.step)])[0]
                self.poses.extend(chunk[: self.policy.n_action_steps])
            self.planner.aim()
        action, self.reached = self.planner.step(observation["state"], self.poses[0])
        self.step += 1
        return action
