"""The thread of a control loop: it goes before others while the loop runs, and not after."""

import os
import sys
import threading

import pytest
from foreact.eval.robot.clock import punctual


def scheduling():
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


@pytest.mark.parametrize("permitted", [True, False])
def test_a_loop_is_not_kept_waiting_and_leaves_all_as_it_was(monkeypatch, permitted):
    def refuse(*arguments):
        raise PermissionError("not yours")

    if not permitted:
        monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before, interval, beside = scheduling(), sys.getswitchinterval(), []
    with punctual():
        assert sys.getswitchinterval() < interval
        thread = threading.Thread(target=lambda: beside.append(scheduling()))
        thread.start()
        thread.join()
    assert beside == [before]  # what thinks beside the loop has no such right
    assert scheduling() == before
    assert sys.getswitchinterval() == pytest.approx(interval)
