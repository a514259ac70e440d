import threading

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval.robot.robots import Stamped
from foreact.eval.robot.safety import RULES, EmergencyStop, Safety, SafetySettings, Watchdog


@pytest.fixture
def safety(worlds):
    def make(**settings):
        made = Safety(worlds.EMBODIMENT, 10, SafetySettings(**settings))
        made.begin(np.zeros(2))
        return made

    return make


def seen(state=(0.0, 0.0), picture=0, time=0.0):
    return Stamped({"state": np.array(state), "images": {"main": np.full((12, 12, 3), picture, np.uint8)}}, time)


@pytest.mark.parametrize(
    "asked", [np.array([np.nan, 0]), np.array([np.inf, 0]), np.zeros(3), np.zeros((1, 2)), np.float32(1), None]
)
def test_what_is_no_action_becomes_a_rest(safety, asked):
    guard = safety()
    np.testing.assert_array_equal(guard.sent(asked, 0.0, 0), [0, 0])
    assert [entry.rule for entry in guard.log] == ([] if asked is None else ["finite"])


def test_every_intervention_is_logged_with_what_was_asked_and_sent(safety):
    guard = safety()
    np.testing.assert_array_equal(guard.sent(np.array([5.0, 0.2]), 0.3, 3), np.array([1, 0.2], np.float32))
    (entry,) = guard.log
    assert entry.to_dict() == {
        "step": 3, "time": 0.3, "rule": "bounds", "where": "velocity",
        "asked": pytest.approx(5), "sent": pytest.approx(1),
    }  # fmt: skip


def test_a_picture_that_stays_while_the_robot_moves_is_a_dead_camera(safety):
    guard = safety(frozen=0.5)
    found = [guard.observed(seen((0.08 * i, 0), time=i / 10), i / 10, i) for i in range(10)]
    assert found == [None] * 5 + ["camera"] * 5
    assert guard.log[0].where == "main"
    assert guard.observed(seen((0.8, 0), 1, 1.0), 1.0, 10) is None


def test_a_picture_that_stays_while_the_robot_rests_is_not(safety):
    guard = safety(frozen=0.5)
    assert [guard.observed(seen((0.001 * i, 0), time=i), i, i) for i in range(5)] == [None] * 5


def test_an_old_or_broken_observation_is_not_acted_on(safety):
    guard = safety(stale=0.2)
    assert guard.observed(seen(time=1.0), 1.1, 0) is None
    assert guard.observed(seen(time=1.0), 1.3, 1) == "state"
    assert guard.observed(seen((np.nan, 0), time=2.0), 2.0, 2) == "finite"
    assert guard.observed(seen((0, 0, 0), time=2.0), 2.0, 3) == "finite"


def test_guards_are_turned_off_by_name(safety):
    guard = safety(without=("camera", "state"), frozen=0.1, stale=0.1)
    assert guard.observed(seen((0.0, 0)), 0.0, 0) is None
    assert guard.observed(seen((0.9, 0)), 9.0, 1) is None
    with pytest.raises(
        UserError, match="unknown rule in safety.without: 'all'; choose one of: " + ", ".join(sorted(RULES))
    ):
        safety(without=("all",))


@pytest.mark.parametrize("name", ["frozen", "stale", "watchdog", "patience"])
def test_times_that_are_none_say_so(name):
    with pytest.raises(UserError, match=f"safety.{name} is in seconds and must be above 0, got 0"):
        SafetySettings(**{name: 0.0})


def test_patience_ends_only_after_faults_in_a_row(safety):
    guard = safety(patience=0.3)
    faulty = [True, True, False, True, True, True, True]
    assert [guard.lost_patience(f, i / 10 + 1e-9 * i) for i, f in enumerate(faulty)] == [False] * 6 + [True]


def test_an_emergency_stop_latches_with_its_first_reason():
    stop = EmergencyStop()
    assert not stop
    stop("button")
    stop("watchdog")
    assert stop
    assert stop.reason == "button"


def test_the_watchdog_bites_once_when_nobody_feeds_it():
    now, bites = [0.0], []
    dog = Watchdog(bites.append, 0.5, lambda: now[0])
    now[0] = 9
    assert not dog.check()  # it watches from the first control step on
    dog.feed()
    now[0] = 9.4
    assert not dog.check()
    now[0] = 9.5
    assert dog.check()
    assert not dog.check()
    assert bites == ["watchdog: no control step for 0.5 s"]


def test_the_watchdog_bites_from_its_own_thread():
    bitten, now = threading.Event(), [0.0]
    dog = Watchdog(lambda reason: bitten.set(), 0.02, lambda: now[0])
    dog.feed()
    dog.watch()
    now[0] = 1.0
    assert bitten.wait(5)
    dog.end()


def test_a_robot_that_begins_nowhere_is_refused(safety):
    with pytest.raises(UserError, match="which no policy can act on"):
        safety().begin(np.array([np.nan, 0]))
