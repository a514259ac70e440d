"""Robots that a control loop drives: the protocol, a simulator in real time, and an episode that was recorded."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ...data.slower import at_rate_of
from ...data.store import Store
from ...envs.base import Env
from ...envs.errors import UserError
from ...envs.spec import Embodiment
from .clock import Clock
from .referee import Referee


@dataclass(frozen=True)
class Stamped:
    """An observation and when it was taken, in seconds of the loop's clock.

    observation: {"images": {camera: (H, W, 3) uint8}, "state": (S,) float32}.
    """

    observation: dict[str, Any]
    time: float


@runtime_checkable
class Robot(Protocol):
    """What a control loop needs of a robot. `stop` may be called from any thread and at any time, also twice."""

    @property
    def embodiment(self) -> Embodiment:
        """What it says about itself."""
        ...

    @property
    def task(self) -> str:
        """The name of what is done, for the record."""
        ...

    @property
    def instruction(self) -> str:
        """What it is told to do, as the policy was taught it."""
        ...

    def connect(self) -> None:
        """Make it ready; nothing moves."""
        ...

    def begin(self, episode: int) -> None:
        """Put the scene at the start of an episode; where only a person can, wait for them."""
        ...

    def observe(self, pictures: bool = True) -> Stamped:
        """What is there now. pictures=False: the state alone will do; a robot may give pictures all the same."""
        ...

    def act(self, action: np.ndarray) -> None:
        """Send an action (A,) that holds from now until the next one, in the unit of the embodiment; do not wait."""
        ...

    def stop(self) -> None:
        """Come to rest now, by the robot's own means."""
        ...

    def outcome(self) -> str | None:
        """How the episode ended; None while it goes on. 'success' is the word for success."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class SimulatedRobot:
    """A simulator on its own clock: from the first action on it goes on, whether or not anybody has sent another.

    Before that it stands still: nobody has told what holds it where it is, and how long a policy takes to get ready is
    no part of an episode. A control step lasts 1 / hz seconds of the clock. In it the simulator does what was sent
    last: a delta moves it once and then it rests, a target or an effort stays. An episode begins from seed + its
    number. `violations` counts what reached it and should not have.
    """

    def __init__(self, env: Env, clock: Clock, *, hz: float | None = None, seed: int = 1000):
        self.env, self.clock, self.seed = env, clock, seed
        self.hz = env.embodiment.control_hz if hz is None else hz
        self.referee = Referee(env.embodiment, self.hz) if env.embodiment.limits else None
        self.task, self.instruction = env.task.id, env.task.instruction
        self._limit = env.embodiment.control_steps(env.task.max_steps)
        kinds = {limit.field: limit.kind for limit in env.embodiment.limits}
        fields = env.embodiment.action
        self._once = np.concatenate([np.full(f.size, kinds.get(f.name) == "delta") for f in fields])

    @property
    def embodiment(self) -> Embodiment:
        return self.env.embodiment

    @property
    def violations(self) -> dict[str, int]:
        """Limits that were broken in this episode, and how often; empty for a robot without limits."""
        return {} if self.referee is None else {k: n for k, n in self.referee.violations.items() if n}

    def connect(self) -> None:
        """Nothing to do: it was made."""

    def begin(self, episode: int) -> None:
        self.env.reset(seed=self.seed + episode)
        if self.referee is not None:
            self.referee.begin()
        self._began: float | None = None
        self._steps = 0
        self._success, self._stopped = False, False
        self._sent = self._rest = np.zeros(self.embodiment.action_dim, np.float32)

    def observe(self, pictures: bool = True) -> Stamped:
        self._catch_up()
        now = self.clock.now()
        return Stamped(self.env.observe() if pictures else {"state": self.env.state()}, now)

    def act(self, action: np.ndarray) -> None:
        self._catch_up()
        if self._stopped:
            return
        if self.referee is not None:
            self.referee.see(action, self.env.state())
        if self._began is None:
            self._began = self.clock.now()
        self._sent, self._rest = action, np.where(self._once, np.float32(0), action)

    def stop(self) -> None:
        self._stopped, self._sent = True, self._rest

    def outcome(self) -> str | None:
        self._catch_up()
        if self._success:
            return "success"
        return "step limit" if self._steps >= self._limit else None

    def close(self) -> None:
        self.env.close()

    def _catch_up(self) -> None:
        """Simulate the control steps that have passed."""
        if self._began is None:
            return
        passed = math.floor((self.clock.now() - self._began) * self.hz + 1e-6)
        for _ in range(min(passed, self._limit) - self._steps):
            if self._success:
                return
            _, success, _ = self.env.advance(self._sent)
            self._steps += 1
            self._success, self._sent = bool(success), self._rest


class RecordedRobot:
    """An episode of a store, played at its own rate from the first action on: a rehearsal on real data of all but the
    motors.

    What is sent moves nothing; `errors` holds how far each action was from the one that moved the robot then, (A,) in
    the action's units. like: a policy's robot, at whose rate it is read.
    """

    def __init__(self, path: Path | str, clock: Clock, *, hz: float | None = None, like: Embodiment | None = None):
        store = Store.open(path)
        self.store, self.clock = store if like is None else at_rate_of(store, like), clock
        self.embodiment = self.store.embodiment
        self.hz = self.embodiment.control_hz if hz is None else hz
        self.errors: list[np.ndarray] = []
        self.task = self.instruction = ""

    def connect(self) -> None:
        """Nothing to do: it was opened."""

    def begin(self, episode: int) -> None:
        """Open an episode of the store. Raises `UserError` where there is none of that number."""
        if not 0 <= episode < len(self.store):
            has = f"store {self.store.path} has {len(self.store)} episodes"
            raise UserError(f"{has}; episode {episode} cannot be played")
        self._episode = self.store.episode(episode)
        self.task, self.instruction = self._episode.task, self._episode.instruction
        self._began: float | None = None
        self.errors = []

    @property
    def _row(self) -> int:
        if self._began is None:  # a loop looks before it begins, to see how long the policy thinks
            return 0
        return math.floor((self.clock.now() - self._began) * self.hz + 1e-6)

    def observe(self, pictures: bool = True) -> Stamped:
        row, now = min(self._row, len(self._episode) - 1), self.clock.now()
        observation: dict[str, Any] = {"state": self._episode.state[row]}
        if pictures:
            for name, views in (("images", self._episode.images), ("depth", self._episode.depth)):
                if views:
                    observation[name] = {camera: frames[row] for camera, frames in views.items()}
        return Stamped(observation, now)

    def act(self, action: np.ndarray) -> None:
        if self._began is None:
            self._began = self.clock.now()
        if self._row < len(self._episode):
            self.errors.append(action - self._episode.action_executed[self._row])

    def stop(self) -> None:
        """It does not move."""

    def outcome(self) -> str | None:
        return "end of the recording" if self._row >= len(self._episode) else None

    def close(self) -> None:
        self.store.close()
