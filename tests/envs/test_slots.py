"""The slot map, conversions there and back, tables, and what a wrong description is told."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from foreact.envs.conversions import CONVERSIONS, ROTATIONS, to_matrix
from foreact.envs.errors import UserError
from foreact.envs.slot_maps import padded_map, slot_map
from foreact.envs.slot_tables import TABLES, with_slots
from foreact.envs.slot_tables.fakes import ROBOTS, field, placed
from foreact.envs.slots import GROUPS, SIZE, SLOTS
from foreact.envs.spec import Embodiment, Field, Place
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

# RDT's configs/state_vec.py: half-open ranges of the right arm; the left is 50 further
RDT = {
    "right_arm_joint_pos": (0, 10), "right_gripper_open": (10, 11), "right_gripper_joint_pos": (11, 15),
    "right_arm_joint_vel": (15, 25), "right_gripper_open_vel": (25, 26), "right_gripper_joint_vel": (26, 30),
    "right_eef_pos": (30, 33), "right_eef_rot6d": (33, 39), "right_eef_vel": (39, 42),
    "right_eef_angular_vel": (42, 45), "base_vel": (100, 102), "base_angular_vel": (102, 103),
}  # fmt: skip


def robot(place: Place | None, unit: str = "m", size: int = 3, *more: Field) -> Embodiment:
    state = (replace(field("hand", size, unit), place=place), *more)
    return Embodiment(name="toy", cameras=(), state=state, action=(), control_hz=20.0)


class TestMap:
    def test_slots_are_those_of_rdt(self):
        assert [slot.index for slot in SLOTS] == list(range(SIZE))
        assert len({slot.name for slot in SLOTS}) == SIZE
        for name, (start, end) in RDT.items():
            assert [slot.index for slot in GROUPS[name].slots] == list(range(start, end))
            if name.startswith("right"):
                left = GROUPS[name.replace("right", "left")]
                assert (left.start, left.unit, left.kind) == (start + 50, GROUPS[name].unit, GROUPS[name].kind)

    def test_only_reserved_slots_have_no_unit(self):
        assert all(bool(slot.unit) == (slot.kind != "reserved") for slot in SLOTS)


@given(st.sampled_from(sorted(ROTATIONS)), st.integers(0, 2**32 - 1))
def test_rotations_come_back_exactly_and_are_the_right_ones(name, seed):
    rotation = ROTATIONS[name]
    rng = np.random.default_rng(seed)
    level = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi, (8, 1)))
    truth = level if name == "heading" else Rotation.random(8, rng=rng)
    written = {
        "heading": truth.as_matrix()[:, :2, 0],
        "quaternion_wxyz": truth.as_quat(scalar_first=True),
        "quaternion_xyzw": truth.as_quat(),
        "axis_angle": truth.as_rotvec(),
        "euler_xyz": truth.as_euler("xyz"),
        "matrix": truth.as_matrix().reshape(-1, 9),
    }[name]
    six = rotation.into(written)
    np.testing.assert_allclose(to_matrix(six), truth.as_matrix(), atol=1e-9)
    back = rotation.back(six)
    if name.startswith("quaternion"):  # q and -q are one rotation
        back = back * np.sign((back * written).sum(-1, keepdims=True))
    np.testing.assert_allclose(back, written, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ROTATIONS))
def test_rotations_of_tensors_are_those_of_arrays(name):
    x = np.random.default_rng(0).standard_normal((2, 3, ROTATIONS[name].size)).astype(np.float32)
    np.testing.assert_allclose(ROTATIONS[name].into(torch.from_numpy(x)).numpy(), ROTATIONS[name].into(x), atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, np.pi / 2, -np.pi / 2, np.pi])
def test_half_turns_no_turn_and_a_locked_gimbal(angle):
    for axis in np.eye(3):
        truth = Rotation.from_rotvec(angle * axis)
        for name in ("axis_angle", "euler_xyz", "quaternion_wxyz"):
            six = truth.as_matrix()[:, :2].T.reshape(6)
            again = ROTATIONS[name].into(ROTATIONS[name].back(six))
            np.testing.assert_allclose(again, six, atol=1e-6, err_msg=name)


def test_six_numbers_of_a_network_make_a_rotation():
    m = to_matrix(np.random.default_rng(0).standard_normal((50, 6)))
    np.testing.assert_allclose(m @ m.transpose(0, 2, 1), np.broadcast_to(np.eye(3), m.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(m), 1, atol=1e-9)


class TestTables:
    def test_there_is_a_robot_of_each(self):
        assert ROBOTS.keys() == TABLES.keys()

    @pytest.mark.parametrize("name", sorted(TABLES))
    @given(seed=st.integers(0, 2**32 - 1))
    def test_actions_come_back_and_absent_slots_are_zero(self, name, seed):
        embodiment = placed(name)
        lies = slot_map(embodiment, "action")
        low, high = embodiment.action_low, embodiment.action_high
        own = low + (high - low) * np.random.default_rng(seed).random((2, 5, embodiment.action_dim))
        slots = lies.fill(own)
        assert slots.shape == (2, 5, SIZE)
        assert not slots[..., ~lies.present].any()
        np.testing.assert_allclose(lies.read(slots), own, atol=1e-9)
        np.testing.assert_array_equal(lies.fill(torch.from_numpy(own)).numpy(), slots)
        gripper = [part for part in lies.parts if part.place.convert == "gripper"]
        inside = slots[..., [i for part in gripper for i in part.slots]]
        assert ((inside >= -1e-9) & (inside <= 1 + 1e-9)).all()

    @pytest.mark.parametrize("name", sorted(TABLES))
    def test_places_travel_as_json(self, name):
        embodiment = placed(name)
        again = Embodiment.from_dict(json.loads(json.dumps(embodiment.to_dict())))
        assert again == embodiment
        assert slot_map(again, "state").present.sum() == slot_map(embodiment, "state").present.sum()

    def test_metaworld_in_si_units(self):
        embodiment = placed("metaworld-sawyer")
        action = slot_map(embodiment, "action").fill(np.array([[1.0, 0, -1, 1]]))[0]
        velocity = GROUPS["right_eef_vel"].start
        np.testing.assert_allclose(action[velocity : velocity + 3], [0.8, 0, -0.8])  # 1 cm a step at 80 Hz
        assert action[GROUPS["right_gripper_open"].start] == 0  # an effort of +1 shuts it

    def test_specs_from_before_there_were_places_are_as_they_were(self):
        before = ROBOTS["metaworld-sawyer"]
        assert "place" not in json.dumps(before.to_dict())
        assert Embodiment.from_dict(before.to_dict()) == before
        assert before.differences(placed("metaworld-sawyer")) == []

    def test_another_place_is_a_difference(self):
        ours = placed("pusht-pusher")
        theirs = with_slots(ours, {"action": {"pusher_target": {"slots": "left_eef_pos", "unit": "m"}}})
        assert any("left_eef_pos" in line for line in ours.differences(theirs))

    def test_a_file(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text(
            "state: {pusher_position: []}\naction: {pusher_target: {slots: base_vel, unit: m/s}}\n", encoding="utf-8"
        )
        embodiment = with_slots(ROBOTS["pusht-pusher"], str(file))
        assert not slot_map(embodiment, "state").present.any()
        assert slot_map(embodiment, "action").present.sum() == 2

    def test_the_example_of_the_documentation(self):
        text = (Path(__file__).parents[2] / "docs" / "embodiments.md").read_text(encoding="utf-8")
        table = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
        sizes = {"joints": (6, "deg"), "hand": (3, "m"), "turn": (4, "1"), "gripper": (1, "m"), "object": (3, "m")}
        mine = Embodiment(
            name="mine",
            cameras=(),
            state=tuple(field(name, size, unit) for name, (size, unit) in sizes.items()),
            action=(field("move", 3, "normalised"), field("gripper", 1, "normalised")),
            control_hz=10.0,
        )
        mine = with_slots(mine, table)
        assert slot_map(mine, "state").present.sum() == 6 + 3 + 6 + 1
        assert slot_map(mine, "action").present.sum() == 4

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("nowhere.yaml", "neither a file nor one of aloha"),
            ({"actions": {}}, "unknown part of the slot table of 'pusht-pusher': 'actions'"),
            ({"state": {"agent": []}}, "unknown field of the slot table of 'pusht-pusher', state: 'agent'"),
            ({"state": {}}, "lacks pusher_position"),
            ({"state": {"pusher_position": {"slot": "x"}}}, "unknown setting .*pusher_position"),
            ({"state": {"pusher_position": 3}}, "needs slots: a name or a list of names, got 3"),
            ({"state": {"pusher_position": {"slots": [], "scale": "2"}}}, "scale must be a number, got '2'"),
        ],
    )
    def test_errors(self, table, message):
        with pytest.raises(UserError, match=message):
            with_slots(ROBOTS["pusht-pusher"], table)

    def test_a_robot_that_nobody_described(self):
        with pytest.raises(UserError, match=r"nobody has said where the fields of 'toy' lie.*slots=FILE"):
            with_slots(robot(None))


class TestErrors:
    @pytest.mark.parametrize(
        ("place", "unit", "message"),
        [
            (None, "m", "state field 'hand' of 'toy' has no place in the slots"),
            (Place(slots=("right_eef",)), "m", "unknown slot of state field 'hand'.*'right_eef'"),
            (Place(slots=("right_eef_pos",)), "m/step", r"is a change per control step.*velocities: .*right_eef_vel"),
            (Place(slots=("right_arm_joint_pos",)), "deg/step", r"is a change per control step.*right_arm_joint_vel"),
            (Place(slots=("right_eef_pos",)), "rad", "is in rad and slot right_eef_pos_x .position. in m"),
            (Place(slots=("right_eef_pos",)), "furlong", "'furlong', which is no known unit"),
            (Place(slots=("right_eef_pos_x",)), "m", "needs 3 slots, and right_eef_pos_x are 1"),
            (Place(slots=("reserved",)), "m", "nothing: it is reserved"),
            (Place(slots=("right_eef_rot6d",), convert="quaternion"), "m", "unknown conversion"),
            (Place(slots=("right_eef_rot6d",), convert="quaternion_wxyz"), "1", "has 3 numbers, and quat.* has 4"),
            (Place(slots=("right_eef_rot6d",), convert="euler_xyz"), "rad/step", "needs an angle: rad or deg"),
            (Place(slots=("right_eef_pos",), convert="axis_angle"), "rad", "needs 6 slots"),
            (Place(slots=("right_eef_pos",), convert="gripper"), "m", "is in open and slot right_eef_pos_x"),
        ],
    )
    def test_a_place_that_does_not_fit(self, place, unit, message):
        with pytest.raises(UserError, match=message):
            slot_map(robot(place, unit), "state")

    def test_two_fields_on_one_slot(self):
        place = Place(slots=("right_eef_pos",))
        other = replace(field("elbow", 1), place=place)
        with pytest.raises(UserError, match="'hand' and 'elbow' of 'toy' both lie in slot right_eef_pos_x"):
            slot_map(robot(place, "m", 3, other), "state")

    def test_a_gripper_without_a_range(self):
        place = Place(slots=("right_gripper_open",), convert="gripper", closed=1.0)
        with pytest.raises(UserError, match="closed and open are both 1"):
            slot_map(robot(place, "m", 1), "state")

    def test_an_action_that_is_left_out(self):
        with pytest.raises(UserError, match="is left out of the slots"):
            slot_map(with_slots(ROBOTS["pusht-pusher"], {"action": {"pusher_target": []}}), "action")

    def test_what_lies_nowhere_cannot_be_read(self):
        lies = slot_map(robot(Place(slots=())), "state")
        with pytest.raises(UserError, match=r"numbers \[0, 1, 2\] .* lie in no slot"):
            lies.read(np.zeros(SIZE))

    def test_values_of_another_size(self):
        with pytest.raises(UserError, match=r"slot map of 2 numbers got values of shape \(3,\)"):
            slot_map(placed("pusht-pusher"), "action").fill(np.zeros(3))


def test_conversions_are_listed_once():
    assert len(set(CONVERSIONS)) == len(CONVERSIONS)


def test_naive_padding_keeps_order_and_units():
    lies = padded_map(ROBOTS["aloha-viperx"], "state")
    own = np.arange(14.0)
    np.testing.assert_array_equal(lies.fill(own), np.pad(own, (0, SIZE - 14)))
    np.testing.assert_array_equal(lies.read(lies.fill(own)), own)
