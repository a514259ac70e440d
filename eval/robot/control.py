"""The one control loop, for robots and for simulators in real time: act on time, whatever the policy does.

Control step k begins k / hz seconds after the first, by a clock that never runs backwards. In it the robot is observed,
a question may go to the policy beside the loop, and the action of step k is sent; an action belongs to a step and not
to the moment at which its chunk came. Where there is none, or what was seen must not be acted on, the robot comes to
rest by the rule of its embodiment (`envs.limits.KINDS`), within its limits.
"""

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...envs.errors import UserError
from ..actors import PolicyActor
from ..policies import Asked
from ..stage import check_embodiment, stack
from .clock import Clock, punctual
from .inference import Answer, Inference
from .robots import Robot, Stamped
from .runs import ControlSettings, Run, Tick
from .safety import EmergencyStop, Safety, SafetySettings, Watchdog
from .timeline import MODES, Timeline, check_cover


class Control:
    """A robot, a policy and the rules between them; `run` plays one episode after another.

    keep: hold every observation with its pictures in the run, to be recorded · watch: called with each tick. Raises
    `UserError` where the policy does not fit the robot, or its mode.
    """

    def __init__(
        self,
        robot: Robot,
        actor: PolicyActor,
        clock: Clock,
        settings: ControlSettings | None = None,
        safety: SafetySettings | None = None,
        *,
        stop: EmergencyStop | None = None,
        keep: bool = True,
        watch: Callable[[Tick, "Control"], None] | None = None,
    ):
        self.robot, self.actor, self.clock = robot, actor, clock
        self.settings, self.stop = settings or ControlSettings(), EmergencyStop() if stop is None else stop
        self.hz = self.settings.hz or robot.embodiment.control_hz
        self.safety = Safety(robot.embodiment, self.hz, safety)
        self.keep, self.watch = keep, watch
        self.latencies: list[float] = []  # of the episode under way
        self.mode = MODES[self.settings.mode]
        self.thinking = threading.Lock()  # a thread of the episode before may still be at it when the next one asks
        self._stride = int(getattr(actor.policy, "obs_stride", 1))
        check_embodiment(actor.policy.embodiment, robot.embodiment, robot.task)
        if actor.poses:
            raise UserError(f"{actor.name} tells poses, which a planner drives to; a control loop sends actions")
        if self.mode.continues and not getattr(actor.policy, "can_continue", False):
            raise UserError(
                f"mode=realtime continues a chunk from actions that are decided, and {actor.name} did not learn that "
                "(query 'continue'): mode=ensemble, horizon or sync"
            )

    def run(self, episode: int = 0) -> Run:
        """One episode, from `robot.begin` until it is over, given up, stopped or failed. The robot rests afterwards.

        Raises `UserError`, before anything moves, where chunks would run out, the policy cannot act or the robot must
        not begin where it is.
        """
        self.robot.begin(episode)
        run = Run(episode=episode, task=self.robot.task, instruction=self.robot.instruction, hz=self.hz)
        loop = _Loop(self, run)
        dog = Watchdog(self._bite, self.safety.settings.watchdog, self.clock.now)
        guarded = self.clock.flows and "watchdog" not in self.safety.settings.without
        try:
            loop.prepare()
            if guarded:
                dog.watch()
            with punctual() if self.clock.flows else nullcontext():
                while not run.outcome:
                    dog.feed()
                    loop.tick()
        except Exception as error:
            if not run.ticks:
                raise
            run.outcome = f"failed: {type(error).__name__}: {error}"  # what was done until then is worth keeping
        finally:
            dog.end()
            self.robot.stop()
            loop.inference.end()
        return run

    def _bite(self, reason: str) -> None:
        self.stop(reason)
        self.robot.stop()


class _Loop:
    """One episode under way."""

    def __init__(self, control: Control, run: Run):
        self.control, self.result = control, run
        settings, actor = control.settings, control.actor
        self.timeline = Timeline(control.mode, actor.policy.horizon, actor.steps, actor.ensemble)
        delays = {"latency": settings.latency, "jitter": settings.jitter, "timeout": settings.timeout}
        self.inference = Inference(
            partial(_think, actor, control.thinking), control.clock, **delays, seed=settings.seed + run.episode
        )
        self.history: dict[int, dict[str, Any]] = {}
        self.step, self.late, self.begun = 0, 0.0, False

    def prepare(self) -> None:
        """Before anything moves: measure how long an answer takes, and whether the chunks are long enough for that."""
        control = self.control
        seen = control.robot.observe()
        control.safety.log = self.result.interventions
        control.safety.begin(seen.observation["state"])
        if control.clock.counts:  # twice: what is done only once, such as compiling, is not part of a control step
            for _ in range(2):
                self.inference.latencies.clear()
                self.inference.timeout, patience = math.inf, self.inference.timeout
                self.inference.ask(self._asked({0: seen.observation}, None))
                answer = self.inference.wait()
                self.inference.timeout = patience
                if answer.chunk is None:
                    raise UserError(f"{control.actor.name} cannot act: {answer.error}")
        if control.settings.uncovered == "refuse":
            check_cover(control.mode, control.actor.policy.horizon, control.actor.steps, self._delay(), control.hz)
        self.result.latencies = control.latencies = self.inference.latencies
        self.began = control.clock.now()

    def tick(self) -> None:
        """One control step, and the wait for the next."""
        control, step = self.control, self.step
        wants = not self.inference.busy and self.timeline.wants(step)
        pictures = control.keep or wants or control.actor.policy.n_obs_steps > 1
        seen = control.robot.observe(pictures)
        now = control.clock.now() - self.began
        fault = control.safety.observed(Stamped(seen.observation, seen.time - self.began), now, step)
        if fault is None:
            self._remember(seen.observation)
            if wants:
                self._look()
        if (answer := self.inference.poll()) is not None:
            self._take(answer, now)
        asked = self.timeline.action(step) if fault is None else None
        faulty = fault is not None or (asked is None and not self._waits(now))
        sent = control.safety.sent(asked, now, step)
        if not control.stop:
            control.robot.act(sent)
        acted = control.clock.now() - self.began - step / control.hz
        self._record(seen.observation if pictures else None, asked, sent, (now, acted))
        self.result.outcome = self._outcome(faulty, now)
        if not self.result.outcome:
            self._next()
            self.result.outcome = control.robot.outcome() or self.result.outcome

    def _look(self) -> None:
        committed = self.timeline.look(self.step, self._delay())
        self.inference.ask(self._asked(self.history, committed))

    def _asked(self, history: dict[int, dict[str, Any]], committed: np.ndarray | None) -> Asked:
        control, stride = self.control, self.control._stride
        wanted = [self.step - j * stride for j in reversed(range(control.actor.policy.n_obs_steps))]
        # of a step that was skipped the one before stands in; before the first there is the first
        rows = [history[max((s for s in history if s <= step), default=min(history))] for step in wanted]
        return Asked(
            observation=stack(rows),
            instruction=self.result.instruction,
            key=(control.settings.seed, self.result.episode, self.step),
            task=self.result.task,
            committed=committed,
        )

    def _take(self, answer: Answer, now: float) -> None:
        looked, committed = answer.asked.key[-1], answer.asked.committed
        if answer.chunk is None:
            self.control.safety.fault(self.step, now, "chunk", f"lost: {answer.error}")
        elif self.timeline.add(looked, answer.chunk, self.step, 0 if committed is None else len(committed)):
            self.begun = True
        else:
            self.control.safety.fault(self.step, now, "chunk", f"stale: {self.step - looked} steps old")

    def _waits(self, now: float) -> bool:
        """Is it as it should be that there is no action? Notes where it is not."""
        if self.inference.busy and (self.control.mode.waits or not self.begun):
            return True
        self.control.safety.fault(self.step, now, "chunk", "none for this step")
        return False

    def _remember(self, observation: dict[str, Any]) -> None:
        if "images" in observation or not self.control.actor.policy.embodiment.cameras:
            span = self.control._stride * self.control.actor.policy.n_obs_steps
            self.history = {s: o for s, o in self.history.items() if s > self.step - span} | {self.step: observation}

    def _record(
        self,
        observation: dict[str, Any] | None,
        asked: np.ndarray | None,
        sent: np.ndarray,
        times: tuple[float, float],
    ) -> None:
        now, acted = times
        tick = Tick(
            step=self.step, time=now, late=self.late, acted=acted, state=self.control.safety.state,
            observation=observation if self.control.keep else None, asked=asked, sent=sent,
        )  # fmt: skip
        self.result.ticks.append(tick)
        self.result.joints = self.timeline.joints
        if self.control.watch is not None:
            self.control.watch(replace(tick, observation=observation), self.control)

    def _outcome(self, faulty: bool, now: float) -> str:
        if self.control.stop:
            return f"stopped: {self.control.stop.reason}"
        if self.control.safety.lost_patience(faulty, now):
            return f"given up: faults for {self.control.safety.settings.patience:g} s, the last: {self._last_fault()}"
        return ""

    def _last_fault(self) -> str:
        last = self.result.interventions[-1]
        return f"{last.rule}, {last.where}"

    def _next(self) -> None:
        """Wait for the next control step; where it is over already, go on with the one that is due."""
        clock, hz = self.control.clock, self.control.hz
        passed = math.floor((clock.now() - self.began) * hz + 1e-6)
        step = max(self.step + 1, passed)
        self.result.skipped += step - self.step - 1
        if step >= self.control.settings.max_steps:
            clock.sleep_until(self.began + (self.step + 1) / hz)  # the last action has its time
            self.result.outcome = "step limit"
            return
        clock.sleep_until(self.began + step / hz)
        self.step, self.late = step, max(0.0, clock.now() - self.began - step / hz)

    def _delay(self) -> int:
        """Control steps that the next answer is expected to take."""
        return math.ceil(self.inference.expected * self.control.hz - 1e-6)


def _think(actor: PolicyActor, alone: AbstractContextManager[Any], asked: Asked) -> np.ndarray:
    with alone:
        return actor.act([asked])[0][0]
