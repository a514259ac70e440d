import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval.robot.timeline import MODES, Timeline, check_cover, overlap_weights
from hypothesis import given
from hypothesis import strategies as st

K = 8


def chunk(value):
    return np.full((K, 1), value, np.float32)


def test_an_action_belongs_to_its_step_and_not_to_its_arrival():
    timeline = Timeline(MODES["horizon"], K, 4)
    ramp = np.arange(K, dtype=np.float32)[:, None]
    assert timeline.add(0, ramp, 0)
    assert timeline.wants(4)
    timeline.look(4, 3)
    assert timeline.add(4, ramp, 7)
    assert [float(timeline.action(s)[0]) for s in (7, 8, 11)] == [3, 4, 7]
    assert timeline.action(12) is None


@pytest.mark.parametrize("mode", MODES)
def test_where_the_robot_rested_since_the_look_a_chunk_begins_when_it_comes(mode):
    timeline = Timeline(MODES[mode], K, 4)
    timeline.look(0, 3)
    assert timeline.action(3) is None
    assert timeline.add(0, np.arange(K, dtype=np.float32)[:, None], 3)
    assert [float(timeline.action(s)[0]) for s in (3, 4, 6)] == [0, 1, 3]


def test_synchronous_chunks_begin_when_they_come():
    timeline = Timeline(MODES["sync"], K, 4)
    timeline.look(0, 3)
    timeline.add(0, np.arange(K, dtype=np.float32)[:, None], 3)
    assert [float(timeline.action(s)[0]) for s in (3, 6)] == [0, 3]
    assert timeline.action(7) is None
    assert timeline.wants(7)
    assert not timeline.wants(6)


def test_stale_and_overtaken_chunks_are_refused():
    timeline = Timeline(MODES["horizon"], K, 4)
    assert not timeline.add(0, chunk(0), K)
    assert timeline.add(5, chunk(1), 6)
    assert not timeline.add(4, chunk(2), 6)
    assert float(timeline.action(6)[0]) == 1


def test_ensembles_average_what_each_chunk_says_of_a_step():
    timeline = Timeline(MODES["ensemble"], K, 1, ensemble=0.0)
    timeline.add(0, chunk(1), 0)
    timeline.add(1, chunk(3), 1)
    assert float(timeline.action(1)[0]) == 2
    assert float(timeline.action(8)[0]) == 3


@pytest.mark.parametrize("mode", MODES)
def test_in_every_mode_a_chunk_that_runs_out_leaves_nothing_and_is_asked_for_again(mode):
    timeline = Timeline(MODES[mode], K, 4)
    timeline.look(0, 0)
    timeline.add(0, chunk(1), 0)
    assert timeline.action(0) is not None
    assert timeline.action(K) is None
    assert timeline.wants(K)


def test_real_time_chunks_commit_what_will_be_executed_and_give_way_softly():
    timeline = Timeline(MODES["realtime"], K, 4)
    assert timeline.look(0, 2) is None
    timeline.add(0, chunk(0), 0)
    np.testing.assert_array_equal(timeline.look(4, 2), np.zeros((2, 1)))
    new = np.concatenate([np.zeros((2, 1)), np.ones((6, 1))]).astype(np.float32)
    assert timeline.add(4, new, 6, committed=2)
    values = [float(timeline.action(s)[0]) for s in range(4, 12)]
    assert values[:2] == [0, 0]  # committed
    assert 0 < values[2] < values[3] < 1  # where both know the step
    assert values[4:] == [1, 1, 1, 1]
    assert timeline.joints == [6]


def test_a_real_time_chunk_that_comes_later_than_expected_still_joins_where_it_comes():
    timeline = Timeline(MODES["realtime"], K, 4)
    timeline.add(0, chunk(0), 0)
    timeline.look(3, 1)
    timeline.add(3, chunk(1), 6, committed=1)  # expected at step 4
    assert 0 < float(timeline.action(6)[0]) < 0.7
    assert float(timeline.action(5)[0]) == 0


@given(st.integers(0, 20), st.integers(1, 20))
def test_overlap_weights_are_one_then_fall(committed, overlap):
    weights = overlap_weights(min(committed, overlap), overlap)
    assert (weights[: min(committed, overlap)] == 1).all()
    assert (np.diff(weights) <= 1e-12).all()
    assert (weights > 0).all()
    assert weights[-1] < 1 or committed >= overlap


@pytest.mark.parametrize(
    ("mode", "delay", "message"),
    [
        ("horizon", 5, r"5 control steps \(250 ms\) at 20 Hz.*run out at step 8: 2 steps of each 5 would have none"),
        ("realtime", 5, "uncovered=rest"),
        ("ensemble", 8, "8 steps of each 8"),
    ],
)
def test_a_horizon_that_does_not_cover_the_delay_is_refused_saying_where(mode, delay, message):
    with pytest.raises(UserError, match=message):
        check_cover(MODES[mode], K, 4, delay, 20)


def test_a_horizon_that_covers_the_delay_is_not():
    for mode in MODES:
        check_cover(MODES[mode], K, 4, 4, 20)
    check_cover(MODES["sync"], K, 4, 99, 20)
