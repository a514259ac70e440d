"""The same robot at another rate: what stays, what is longer, and which actions repeat to the same effect."""

import json
from dataclasses import replace

import numpy as np
import pytest
from foreact.envs import SUITES
from foreact.envs.errors import UserError
from foreact.envs.rates import changes, first_steps, repeated
from foreact.envs.slot_maps import slot_map
from foreact.envs.slot_tables import with_slots
from foreact.envs.spec import Embodiment, Place
from hypothesis import given
from hypothesis import strategies as st

ROBOTS = [suite.embodiment for suite in SUITES.values()]
every_robot = pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)
CHANGES = {
    "metaworld-sawyer": [True, True, True, False],
    "fetch": [True, True, True, False],
    "ogbench-ur5e": [True] * 5,  # its gripper is told by how much to shut
    "aloha-viperx": [False] * 14,
    "pusht-pusher": [False] * 2,
}


@every_robot
class TestAt:
    def test_itself(self, robot):
        assert robot.at(1) is robot
        assert "every" not in robot.to_dict()
        assert (robot.own_name, robot.own_hz) == (robot.name, robot.control_hz)

    @given(every=st.integers(2, 9))
    def test_it_says_what_it_is_and_travels_as_json(self, robot, every):
        slow = robot.at(every)
        assert slow.name == f"{robot.name}@{robot.control_hz / every:g}hz"
        assert slow.own_name == robot.name
        assert slow.own_hz == pytest.approx(robot.control_hz)
        assert Embodiment.from_dict(json.loads(json.dumps(slow.to_dict()))) == slow

    def test_twice_two_is_four(self, robot):
        assert robot.at(2).at(2) == robot.at(4)

    @given(every=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
    def test_the_same_numbers_are_the_same_in_slots(self, robot, every, seed):
        for which in ("state", "action"):
            own, slow = (slot_map(with_slots(r), which) for r in (robot, robot.at(every)))
            numbers = np.random.default_rng(seed).standard_normal((3, own.size))
            np.testing.assert_allclose(slow.fill(numbers), own.fill(numbers), rtol=1e-12)

    def test_only_what_a_limited_change_moves_is_longer(self, robot):
        for one, slow in zip(robot.limits, robot.at(3).limits, strict=True):
            longer = 3 if one.kind == "delta" else 1
            assert slow == replace(one, scale=longer * one.scale)
        for one, slow in zip(robot.action, robot.at(3).action, strict=True):
            assert (slow.low, slow.high, slow.unit) == (one.low, one.high, one.unit)
            assert slow.per_step == (None if one.per_step is None else tuple(3 * x for x in one.per_step))

    def test_differences_name_both(self, robot):
        slow = robot.at(2)
        lines = robot.differences(slow)
        assert f"name: {robot.name!r} here, {slow.name!r} there" in lines
        assert f"control_hz: {robot.control_hz!r} here, {slow.control_hz!r} there" in lines

    def test_which_numbers_are_changes(self, robot):
        assert changes(robot).tolist() == CHANGES[robot.name]
        assert changes(robot.at(3)).tolist() == CHANGES[robot.name]


def test_an_own_step_lasts_at_least_one():
    with pytest.raises(UserError, match="every must be at least 1, got 0"):
        ROBOTS[0].at(0)


def test_the_steps_of_an_episode_may_end_in_part():
    assert [ROBOTS[0].at(3).control_steps(n) for n in (0, 1, 3, 4, 6)] == [0, 1, 1, 2, 2]


def test_what_nobody_has_told_is_not_guessed():
    arm = next(robot for robot in ROBOTS if robot.name == "metaworld-sawyer")
    arm = replace(arm, name="mine", limits=())
    with pytest.raises(UserError, match=r"'hand_delta' of 'mine' cannot be told at another rate.*slots=FILE"):
        changes(arm)
    for unit, change in (("m/step", True), ("m/s", True), ("m", False)):
        move = replace(arm.action[0], place=Place(slots=("right_eef_vel",), unit=unit))
        effort = replace(arm.action[1], place=Place(slots=("right_gripper_open",), convert="gripper"))
        assert changes(replace(arm, action=(move, effort))).tolist() == [change] * 3 + [False]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    every=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_groups_move_as_far_and_end_where_their_episode_does(lengths, every, seed):
    ends, rng = np.cumsum(lengths), np.random.default_rng(seed)
    actions = rng.standard_normal((ends[-1], 3)).astype(np.float32)
    first, slow_ends = first_steps(ends, every)
    found = repeated(actions, first, np.array([True, True, False]))
    groups = []
    for start, end, slow_end in zip([0, *ends[:-1]], ends, slow_ends, strict=True):
        groups += [actions[row : min(row + every, end)] for row in range(start, end, every)]
        assert slow_end == len(groups)
    assert found.dtype == np.float32
    assert [actions[row].tobytes() for row in first] == [group[0].tobytes() for group in groups]
    for group, action in zip(groups, found, strict=True):
        np.testing.assert_allclose(len(group) * action[:2], group[:, :2].sum(0), rtol=1e-4, atol=1e-5)
        assert action[2] == group[-1, 2]
    if every == 1:
        assert np.array_equal(found, actions)
