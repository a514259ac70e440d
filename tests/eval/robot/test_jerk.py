"""How smooth what was sent is, and where chunks meet."""

import numpy as np
import pytest
from foreact.eval.robot.jerk import jerk, jerk_at_joints, peaks, seams


def trace_of(sent, told, joints=()):
    """A trace of control steps that were sent something, of which the policy had told some."""
    asked = np.where(np.array(told, bool)[:, None], sent, np.nan)
    return {"sent": sent, "asked": asked, "step": np.arange(len(sent)), "joints": np.array(joints, int)}


def test_jerk_is_the_third_difference_of_where_the_robot_is_sent(worlds):
    place = np.array([0, 0, 0, 1, 1, 1], float)  # a jump of the place is a jerk of 1, -2, 1
    sent = np.zeros((6, 2))
    sent[:, 0] = np.diff(place, prepend=0) / 0.1
    found = jerk(sent, worlds.EMBODIMENT)
    assert np.isnan(found[:3]).all()
    np.testing.assert_allclose(found[3:], [1, 2, 1])
    trace = {"sent": sent, "step": np.arange(6), "joints": np.array([5])}
    at, elsewhere = jerk_at_joints({0: trace}, worlds.EMBODIMENT)
    assert (at, elsewhere) == pytest.approx((1, np.sqrt(2.5)))


def test_seams_are_where_the_actions_come_from_elsewhere():
    told = [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    found = seams(trace_of(np.zeros((10, 2)), told, joints=[4, 9]))
    assert found.tolist() == [4, 5, 7, 9]  # not 2: there it began
    assert seams(trace_of(np.zeros((4, 2)), [0, 0, 0, 0])).tolist() == []


def test_the_peak_at_a_joint_is_that_of_the_jump_there(worlds):
    sent = np.zeros((20, 2), np.float32)
    sent[10:, 0] = 0.5  # each step now goes 0.05 m: a jump of the velocity, jerk 0.05 and back
    trace = trace_of(sent, np.ones(20), joints=[5, 10])
    np.testing.assert_allclose(peaks(trace, worlds.EMBODIMENT, 10), [0, 0.05 * 10**3], atol=1e-3)
    assert len(peaks(trace_of(sent[:3], np.ones(3), joints=[2]), worlds.EMBODIMENT, 10)) == 0  # too short to tell
