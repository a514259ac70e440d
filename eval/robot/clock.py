"""The time that a robot, its control loop and its policy share: the machine's own, or one that jumps."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, runtime_checkable

_PASS_ON = 5e-4


@runtime_checkable
class Clock(Protocol):
    """Seconds that never run backwards.

    flows: does time go on while something is computed? · counts: does inference take the time that it takes? If not, it
    takes only the latency that is injected.
    """

    flows: bool
    counts: bool

    def now(self) -> float:
        """Seconds since some moment."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Return at `moment`, or at once where it has passed."""
        ...


class RealClock:
    """The machine's monotonic clock."""

    flows = counts = True

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep_until(self, moment: float) -> None:
        """Return at `moment`, or at once where it has passed."""
        time.sleep(max(0.0, moment - self.now()))


class SimulatedClock:
    """Time that stands still while something is computed and jumps when somebody sleeps: exact, as fast as can be.

    counts: inference takes the time that it takes on this machine all the same. Nothing else does, such as drawing.
    """

    flows = False

    def __init__(self, start: float = 0.0, *, counts: bool = False):
        self._now, self.counts = start, counts

    def now(self) -> float:
        """Seconds since some moment."""
        return self._now

    def sleep_until(self, moment: float) -> None:
        """Jump to `moment`, or stay where it has passed."""
        self._now = max(self._now, moment)


CLOCKS: dict[str, Callable[[], Clock]] = {
    "real": RealClock,
    "simulated": SimulatedClock,
    "measured": partial(SimulatedClock, counts=True),
}


@contextlib.contextmanager
def punctual() -> Iterator[None]:
    """This thread is not kept waiting by those that compute, in the rest of the `with` block.

    The interpreter passes from thread to thread after half a millisecond, where its own five would be what a control
    step is late by; and where the system permits it (root, or a limit `rtprio`), this thread goes before all others.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_PASS_ON)
    scheduling = os.sched_getscheduler(0), os.sched_getparam(0)
    first = False
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        first = True
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if first:
            os.sched_setscheduler(0, *scheduling)
