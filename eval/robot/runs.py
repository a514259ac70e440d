"""One episode on a robot, as data: how it is to be run, each control step, and how it went."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...envs.errors import UserError, choose
from .safety import Intervention
from .timeline import MODES


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """mode: of `timeline.MODES` · hz: control steps a second; None: the robot's own · max_steps: of an episode · seed:
    of the policy's noise, with the episode and the step · timeout: seconds after which an answer is lost · latency,
    jitter: seconds that every answer takes at least, for experiments (`inference.Inference`) · uncovered: 'refuse' a
    run whose actions would run out before the next chunk comes, or 'rest' there.
    """

    mode: str = "realtime"
    hz: float | None = None
    max_steps: int = 500
    seed: int = 1000
    timeout: float = 1.0
    latency: float = 0.0
    jitter: float = 0.0
    uncovered: str = "refuse"

    def __post_init__(self):
        choose(self.mode, MODES, "mode")
        choose(self.uncovered, ("refuse", "rest"), "uncovered")
        if self.max_steps < 1:
            raise UserError(f"max_steps must be at least 1, got {self.max_steps}")
        for name, value in (("hz", self.hz), ("timeout", self.timeout)):
            if value is not None and not value > 0:
                raise UserError(f"{name} must be above 0, got {value}")
        if min(self.latency, self.jitter) < 0:
            raise UserError(f"latency and jitter must not be below 0, got {self.latency} and {self.jitter}")


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One control step. time: seconds since the first · late: seconds by which it began too late · acted: seconds from
    the moment at which it was due until its action was sent · observation: what was seen, None where nobody asked for
    pictures · asked: of the policy (A,), None where it had nothing to say · sent (A,).
    """

    step: int
    time: float
    late: float
    acted: float
    state: np.ndarray
    observation: dict[str, Any] | None
    asked: np.ndarray | None
    sent: np.ndarray


@dataclass(kw_only=True)
class Run:
    """How an episode went. outcome: 'success', or why it ended · joints: steps at which a new chunk took over ·
    latencies: seconds from a question to its answer · skipped: control steps that were over before they could begin.
    """

    episode: int
    task: str
    instruction: str
    hz: float
    outcome: str = ""
    ticks: list[Tick] = field(default_factory=list)
    joints: list[int] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    interventions: list[Intervention] = field(default_factory=list)
    skipped: int = 0

    @property
    def late(self) -> list[float]:
        """By how many seconds each control step that missed its moment by a tenth of a period did so."""
        return [tick.late for tick in self.ticks if tick.late > 0.1 / self.hz]
