"""One environment at work inside a worker process: reset, run a chunk of actions, look.

Numpy only. The functions that take a `Stage` first are the commands that `workers.Pool` can send by name; a
command returns what is pickled back to the main process. Physics and pictures are apart: a picture is drawn
only when the policy looks, or when a film is made.
"""

import hashlib
import importlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..envs.errors import UserError, choose
from ..envs.spec import Camera, Embodiment
from ..envs.waypoints import Planner

Observation = dict[str, Any]  # {"images": {camera: (T, H, W, 3) u8}, "state": (T, S) f32}


@dataclass(frozen=True, kw_only=True)
class Start:
    """What an episode needs to begin.

    seed: of `env.reset`. every: steps of the simulator's own in a control step; all other steps are control steps, but
    for `max_steps`. The policy looks every `look_every` steps (0: never, or when a pose is reached) and then sees
    `n_obs_steps` observations that are `obs_stride` steps apart, the last one now. film_every: keep every so-manieth
    picture; 0: no film.
    expected: the checkpoint's embodiment, checked against the environment's. poses: what comes are not actions but
    poses, to which a planner drives; the policy then looks whenever one is reached.
    """

    task: str
    seed: int
    max_steps: int
    cameras: tuple[Camera, ...] | None = None
    every: int = 1
    expected: Embodiment | None = None
    n_obs_steps: int = 1
    obs_stride: int = 1
    look_every: int = 0
    poses: bool = False
    film_every: int = 0


@dataclass(kw_only=True)
class Look:
    """What comes back when the policy must look again, or when the episode is over.

    observation: None when done. film: [(step, {camera: picture})] so far, sent when done. actions: digest of
    the executed actions, so that two runs can be compared bit for bit.
    """

    step: int
    done: bool = False
    success: bool = False
    reward: float = 0.0
    observation: Observation | None = None
    film: list[tuple[int, dict[str, np.ndarray]]] = field(default_factory=list)
    actions: str = ""


class Stage:
    """A slot of a worker: its environment (kept while the task stays the same) and the running episode."""

    def __init__(self, registry: str):
        self.registry = importlib.import_module(registry)
        self.env: Any = None
        self._made: tuple[Any, ...] | None = None

    def prepare(self, task: str, cameras: tuple[Camera, ...] | None, every: int) -> Any:
        """The environment of `task` at that rate, built only when the last one was another."""
        if self._made != (task, cameras, every):
            self.close()
            self.env = self.registry.make(task, cameras=cameras)
            self.env.slow_down(every)
            self._made = (task, cameras, every)
        return self.env

    def begin(self, start: Start) -> None:
        """Reset. Raises `UserError` where the environment's embodiment is not the expected one."""
        env = self.prepare(start.task, start.cameras, start.every)
        if start.expected is not None:
            check_embodiment(start.expected, env.embodiment, start.task)
        obs, _ = env.reset(seed=start.seed)
        self.start, self.step, self.done, self.success, self.reward = start, 0, False, False, 0.0
        self.limit = env.embodiment.control_steps(start.max_steps)
        self.digest = hashlib.sha256()
        self.film: list[tuple[int, dict[str, np.ndarray]]] = []
        self.history: dict[int, Observation] = {}
        self._seen: tuple[int, Observation] = (0, obs)
        self.planner = Planner(env.embodiment) if start.poses else None
        self._remember()

    def act(self, action: np.ndarray) -> None:
        """One control step; pictures are drawn only if this step is looked at or filmed."""
        action = np.asarray(action, np.float32)
        self.digest.update(action.tobytes())
        reward, success, truncated = self.env.advance(action)
        self.step += 1
        self.reward += float(reward)
        self.success = bool(success)
        self.done = self.success or bool(truncated) or self.step >= self.limit
        self._remember()

    def go(self, pose: np.ndarray) -> None:
        """Drive to a pose (S,), as many steps as the planner takes."""
        assert self.planner is not None
        self.planner.aim()
        reached = False
        while not (reached or self.done):
            action, reached = self.planner.step(self.env.state(), pose)
            self.act(action)

    def observe(self) -> Observation:
        """The observation of the present step, drawn at most once."""
        if self._seen[0] != self.step:
            self._seen = (self.step, self.env.observe())
        return self._seen[1]

    def look(self) -> Look:
        """The stacked history for the policy, or the end of the episode."""
        look = Look(step=self.step, done=self.done, success=self.success, reward=self.reward)
        if self.planner is not None:
            self.history = {self.step: self.observe()}  # it comes when a pose is reached, at no foreseen step
        if self.done:
            look.film, look.actions = self.film, self.actions()
        else:
            look.observation = stack([self.history[step] for step in self._steps_seen()])
        return look

    def actions(self) -> str:
        """Sixteen hexadecimal digits that name the actions executed so far."""
        return self.digest.hexdigest()[:16]

    def close(self) -> None:
        """Close the environment, if one is open."""
        if self.env is not None:
            self.env.close()
        self.env = self._made = None

    def _remember(self) -> None:
        start = self.start
        # Looks come at multiples of look_every; one of them sees step s if it is j·stride later.
        ahead = range(0, start.n_obs_steps * start.obs_stride, start.obs_stride)
        looked_at = start.look_every > 0 and any((self.step + j) % start.look_every == 0 for j in ahead)
        filmed = start.film_every > 0 and (self.step % start.film_every == 0 or self.done)
        if filmed:
            self.film.append((self.step, self.observe()["images"]))
        if looked_at and not self.done:
            first = self._steps_seen()[0]
            self.history = {step: obs for step, obs in self.history.items() if step >= first}
            self.history[self.step] = self.observe()

    def _steps_seen(self) -> list[int]:
        # Before the episode's start the first observation is repeated, as the training windows do.
        start = self.start
        return [max(0, self.step - j * start.obs_stride) for j in reversed(range(start.n_obs_steps))]


def begin(stage: Stage, start: Start) -> Look:
    """Command: reset; the first look."""
    stage.begin(start)
    return stage.look()


def run(stage: Stage, actions: np.ndarray) -> Look:
    """Command: execute actions (n, A), or go to poses, until success, the step limit or their end; the next look."""
    for action in actions:
        if stage.planner is None:
            stage.act(action)
        else:
            stage.go(action)
        if stage.done:
            break
    return stage.look()


def play(stage: Stage, start: Start, kind: str, key: tuple[int, ...]) -> Look:
    """Command: a whole episode of the scripted 'expert' or of 'random' uniform actions of (*key, step)."""
    choose(kind, ("expert", "random"), "policy inside the simulator")
    stage.begin(start)
    low, high = stage.env.embodiment.action_low, stage.env.embodiment.action_high
    while not stage.done:
        if kind == "expert":
            stage.act(stage.env.expert_action())
        else:
            stage.act(np.random.default_rng((*key, stage.step)).uniform(low, high))
    return stage.look()


def describe(stage: Stage, task: str, cameras: tuple[Camera, ...] | None, every: int) -> Embodiment:
    """Command: the embodiment of an environment, for checks before any rollout."""
    return stage.prepare(task, cameras, every).embodiment


def check_embodiment(ours: Embodiment, theirs: Embodiment, task: str, who: str = "policy") -> None:
    """`UserError` that lists both sides where the embodiment of `who` is not the environment's.

    Privileged fields may differ: no policy input can reach them.
    """
    lines = [line for line in ours.differences(theirs) if not line.startswith("privileged")]
    if lines:
        shown = "\n  ".join(lines[:12])
        raise UserError(
            f"the {who} is of embodiment {ours.name!r} and does not fit environment {task!r} of "
            f"{theirs.name!r}; {who} here, environment there:\n  {shown}\n"
            f"use the environment that the {who} was made with, or make another {who} for this one"
        )


def stack(rows: list[Observation]) -> Observation:
    """Observations of single steps as one with a leading axis of time, as a policy takes it."""
    pictures = {
        kind: {name: np.stack([row[kind][name] for row in rows]) for name in rows[-1][kind]}
        for kind in ("images", "depth")
        if kind in rows[-1]
    }
    return {**pictures, "state": np.stack([np.asarray(row["state"], np.float32) for row in rows])}
