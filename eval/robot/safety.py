"""What stands between a policy and a robot: limits, guards of what comes in, a watchdog, an emergency stop, a log."""

import threading
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...envs.errors import UserError, choose
from ...envs.spec import Embodiment
from .limiter import LIMITS, Limiter
from .robots import Stamped

RULES = (*LIMITS, "camera", "state", "watchdog")
"""What can be turned off, by name. The guards of shape and NaN and the emergency stop cannot."""

MOVED = 0.1  # of the range of a state: who moves by so much is seen to move by a camera that lives


@dataclass(frozen=True, kw_only=True)
class SafetySettings:
    """without: rules that are not held, by name, of `RULES` · frozen: seconds after which a picture that stays the same
    bit for bit, while the robot moves, is a dead camera · stale: an observation older than so many seconds is not acted
    on · watchdog: seconds without a control step after which the robot is stopped from outside the loop · patience:
    seconds of faults in a row after which a run is given up.
    """

    without: tuple[str, ...] = ()
    frozen: float = 0.5
    stale: float = 0.2
    watchdog: float = 0.5
    patience: float = 1.0

    def __post_init__(self):
        for name in self.without:
            choose(name, RULES, "rule in safety.without:")
        for name in ("frozen", "stale", "watchdog", "patience"):
            if not getattr(self, name) > 0:
                raise UserError(f"safety.{name} is in seconds and must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One time that a rule stepped in. asked, sent: of the component farthest out of a limit, in the action's unit."""

    step: int
    time: float  # [s] since the run began
    rule: str
    where: str
    asked: float | None = None
    sent: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """A line of the log."""
        return asdict(self)


class EmergencyStop:
    """A latch that any thread may set and nothing in a run resets. reason: the first one given."""

    def __init__(self):
        self._set, self.reason = threading.Event(), ""

    def __call__(self, reason: str) -> None:
        if not self._set.is_set():
            self.reason = reason
            self._set.set()

    def __bool__(self) -> bool:
        return self._set.is_set()


class Safety:
    """The rules of one run: `observed` judges what comes in, `sent` turns what is asked into what may be sent.

    Whatever is asked, what `sent` returns is finite, has the robot's shape and keeps every limit that is on. state: the
    last one (S,) that was measured and can be believed.
    """

    def __init__(self, embodiment: Embodiment, hz: float, settings: SafetySettings | None = None):
        self.embodiment, self.settings = embodiment, settings or SafetySettings()
        self.limiter = Limiter(embodiment, hz, self.settings.without)
        self.log: list[Intervention] = []
        self._range = _range(embodiment)
        self._pictures: dict[str, _Picture] = {}

    def begin(self, state: np.ndarray) -> None:
        """An episode begins with the robot at rest in state (S,). Raises `UserError` where it must not begin."""
        if state.shape != (self.embodiment.state_dim,) or not np.isfinite(state).all():
            raise UserError(f"{self.embodiment.name} begins in state {state.tolist()}, which no policy can act on")
        self.limiter.begin(state)
        self._pictures = {}
        self.state = state
        self.faulty_since: float | None = None

    def observed(self, seen: Stamped, now: float, step: int) -> str | None:
        """The rule by which what was seen must not be acted on, or None. now, like the stamp: seconds of one clock."""
        state = seen.observation["state"]
        if state.shape != self.state.shape or not np.isfinite(state).all():
            return self._note(step, now, "finite", "state")
        self.state = state
        if "state" not in self.settings.without and now - seen.time > self.settings.stale:
            return self._note(step, now, "state", f"{1e3 * (now - seen.time):.0f} ms old")
        if "camera" not in self.settings.without:
            for name, picture in seen.observation.get("images", {}).items():
                if self._frozen(name, picture, now):
                    return self._note(step, now, "camera", name)
        return None

    def sent(self, asked: Any, now: float, step: int) -> np.ndarray:
        """The action (A,) float32 that may be sent. asked None, malformed or not finite: the robot comes to rest."""
        if asked is not None and (bad := self._malformed(asked)):
            self._note(step, now, "finite", bad)
            asked = None
        action, changes = self.limiter.limit(self.limiter.rest() if asked is None else asked, self.state)
        if asked is not None:  # to come to rest no faster than is allowed is nobody's fault
            for rule, where, wanted, allowed in changes:
                self.log.append(Intervention(step=step, time=now, rule=rule, where=where, asked=wanted, sent=allowed))
        return action

    def fault(self, step: int, now: float, rule: str, where: str) -> None:
        """Note a fault that was found elsewhere, such as a chunk that was lost."""
        self._note(step, now, rule, where)

    def lost_patience(self, faulty: bool, now: float) -> bool:
        """Told at each step whether it was a faulty one: have there been only such for too long?"""
        if not faulty:
            self.faulty_since = None
        elif self.faulty_since is None:
            self.faulty_since = now
        return self.faulty_since is not None and now - self.faulty_since >= self.settings.patience

    def _malformed(self, asked: Any) -> str | None:
        if np.shape(asked) != (self.embodiment.action_dim,):
            return f"action of shape {np.shape(asked)}"
        return None if np.isfinite(asked).all() else "action"

    def _frozen(self, name: str, picture: np.ndarray, now: float) -> bool:
        digest = zlib.crc32(np.ascontiguousarray(picture).tobytes())
        kept = self._pictures.get(name)
        if kept is None or kept.digest != digest:
            self._pictures[name] = _Picture(digest, now, self.state)
            return False
        moved = np.abs(self.state - kept.state) / self._range
        return now - kept.since >= self.settings.frozen and bool((moved > MOVED).any())

    def _note(self, step: int, now: float, rule: str, where: str) -> str:
        self.log.append(Intervention(step=step, time=now, rule=rule, where=where))
        return rule


@dataclass(frozen=True)
class _Picture:
    digest: int
    since: float
    state: np.ndarray


def _range(embodiment: Embodiment) -> np.ndarray:
    """The range of each component of the state (S,)."""
    ends = (np.concatenate([np.array(getattr(f, end), float) for f in embodiment.state]) for end in ("high", "low"))
    return np.maximum(np.subtract(*ends), 1e-9)


@dataclass
class Watchdog:
    """Calls `bite(reason)` once when it was not fed for `patience` seconds; `watch` does so from a thread of its own.

    now: the clock.
    """

    bite: Callable[[str], None]
    patience: float
    now: Callable[[], float]
    _fed: float | None = field(default=None, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)

    def feed(self) -> None:
        """A control step was made; the first one begins the watch."""
        self._fed = self.now()

    def check(self) -> bool:
        """Did it bite?"""
        fed = self._fed
        if fed is None or self.now() - fed < self.patience:
            return False
        self._fed = None
        self.bite(f"watchdog: no control step for {self.patience:g} s")
        return True

    def watch(self) -> "Watchdog":
        """Check from a thread until `end`, or until it bites."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def end(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self.patience / 4) and not self.check():
            pass
