"""A policy beside the control loop: one question at a time, whose answer comes when it comes."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..policies import Asked
from .clock import Clock

RECENT = 10  # answers whose slowest says how long the next one is expected to take


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A chunk (K, A) for a question, or why there is none. latency: seconds from question to answer."""

    asked: Asked
    chunk: np.ndarray | None
    error: str = ""
    latency: float


class Inference:
    """Answers questions in a thread of its own, or at once where the clock does not flow meanwhile; where it counts all
    the same, an answer comes as much later.

    think: a question → its chunk (K, A); what it raises is a lost answer. latency, jitter: an answer comes no sooner
    than latency + jitter · u seconds after its question, u uniform from 0 to 1, for experiments. timeout: an answer
    that takes longer is lost; nobody is asked again before the thread that still thinks is back.
    """

    def __init__(
        self,
        think: Callable[[Asked], np.ndarray],
        clock: Clock,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        timeout: float = 1.0,
        seed: int = 0,
    ):
        self.think, self.clock = think, clock
        self.latency, self.jitter, self.timeout = latency, jitter, timeout
        self.latencies: list[float] = []  # of every answer that came
        self._rng = np.random.default_rng(seed)
        self._question: _Question | None = None

    @property
    def busy(self) -> bool:
        """Is there a question without an answer?"""
        return self._question is not None

    @property
    def expected(self) -> float:
        """Seconds that the next answer may take: the slowest of the last few, or what is injected."""
        return max([self.latency + self.jitter, *self.latencies[-RECENT:]])

    def ask(self, asked: Asked) -> None:
        """Begin to answer. Only when not `busy`."""
        assert self._question is None
        now = self.clock.now()
        due = now + self.latency + self.jitter * float(self._rng.random())
        self._question = question = _Question(asked, now, due)
        if self.clock.flows:
            threading.Thread(target=self._answer, args=[question], name="inference", daemon=True).start()
        else:
            self._answer(question)

    def poll(self) -> Answer | None:
        """The answer, once, when it has come; a lost one has an error and no chunk."""
        question, now = self._question, self.clock.now()
        if question is None:
            return None
        if question.lost:
            self._question = None if question.done.is_set() else question
            return None
        late = now - question.began >= self.timeout
        if not (question.done.is_set() and now >= question.due - 1e-9) and not late:
            return None
        if late:
            question.lost = True
            error = f"no answer within {self.timeout:g} s"
            return Answer(asked=question.asked, chunk=None, error=error, latency=now - question.began)
        self._question = None
        took = max(question.due, question.ended) - question.began
        if question.chunk is not None:
            self.latencies.append(took)
        return Answer(asked=question.asked, chunk=question.chunk, error=question.error, latency=took)

    def wait(self) -> Answer:
        """The answer, waited for; before a robot moves."""
        while (answer := self.poll()) is None:
            self.clock.sleep_until(self.clock.now() + 1e-3)
        return answer

    def end(self) -> None:
        """Wait for a thread that still thinks, `timeout` at most: in a process that ends meanwhile it would abort."""
        if self._question is not None and self.clock.flows:
            self._question.done.wait(self.timeout)

    def _answer(self, question: "_Question") -> None:
        before = time.perf_counter()
        try:
            question.chunk = self.think(question.asked)
        except Exception as error:  # whatever the policy's fault is, the robot must go on to its rest
            question.error = f"{type(error).__name__}: {error}"
        question.ended = self.clock.now()
        if not self.clock.flows and self.clock.counts:
            question.ended += time.perf_counter() - before
            question.due = max(question.due, question.ended)
        question.done.set()


class _Question:
    def __init__(self, asked: Asked, began: float, due: float):
        self.asked, self.began, self.due, self.ended = asked, began, due, began
        self.chunk: np.ndarray | None = None
        self.error, self.lost = "", False
        self.done = threading.Event()
