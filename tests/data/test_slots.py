"""What `data slots` shows, and which wrong mappings the doctor names."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from foreact.data.doctor import diagnose
from foreact.data.schema import fake_episode
from foreact.data.slots import describe, slots
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.slot_tables import TABLES
from foreact.envs.slot_tables.fakes import ROBOTS
from foreact.envs.slots import SLOTS
from rich.console import Console

ALOHA = yaml.safe_load(TABLES["aloha-viperx"].read_text(encoding="utf-8"))
STEPS = 60


@pytest.fixture
def obedient(tmp_path):
    """Two arms that are at each step where the command before told them to be."""
    robot, path = ROBOTS["aloha-viperx"], tmp_path / "obedient"
    rng = np.random.default_rng(0)
    low, high = robot.action_low, robot.action_high
    with Store.create(path, robot, privileged=False) as store:
        for i in range(3):
            steps = 0.1 * (high - low) * rng.standard_normal((STEPS + 1, robot.action_dim))
            way = np.clip((low + high) / 2 + steps.cumsum(0), low, high).astype(np.float32)
            told = {"state": way[:-1], "action": way[1:], "action_executed": way[1:]}
            episode = fake_episode(robot, steps=STEPS, seed=i, task="aloha/go")
            store.append(dataclasses.replace(episode, **told))
    return path


def findings(path, table, tmp_path) -> list[str]:
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump(table), encoding="utf-8")
    return [f.message for f in diagnose(path, slots=str(file), simulate=False) if f.check == "slots"]


def test_a_right_mapping_has_nothing(obedient, tmp_path):
    assert findings(obedient, ALOHA, tmp_path) == []
    assert [f for f in diagnose(obedient, simulate=False) if f.check == "slots"] == []  # its own, by name


def arms_of_the_action(table):
    table["action"] = json.loads(json.dumps(table["action"]).replace("left_arm_joint", "#"))
    text = json.dumps(table["action"]).replace("right_arm_joint", "left_arm_joint").replace("#", "right_arm_joint")
    table["action"] = json.loads(text)


def degrees(table):
    table["state"]["left_arm_joints"] = {"slots": "left_arm_joint_pos", "scale": 180 / np.pi}


def radians(table):
    table["state"]["left_arm_joints"] = {"slots": "left_arm_joint_pos", "unit": "deg"}


def gripper(table):
    table["action"]["left_gripper_target"] |= {"closed": 1, "open": 0}


def gripper_range(table):
    table["action"]["left_gripper_target"] |= {"closed": 0, "open": 0.05}


def shared_slot(table):
    table["action"]["left_arm_targets"] = table["action"]["right_arm_targets"]


def delta(table):
    table["action"]["left_arm_targets"] = {"slots": "left_arm_joint_pos", "unit": "rad/step"}


FAULTS = {
    arms_of_the_action: "swapped arms",
    degrees: "degrees taken for radians",
    radians: "radians taken for degrees",
    gripper: "an inverted gripper",
    gripper_range: "not from 0 to 1",
    shared_slot: "both lie in slot right_arm_joint_pos_0",
    delta: "is a change per control step",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_wrong_mapping_is_named(obedient, tmp_path, plant):
    table = json.loads(json.dumps(ALOHA))
    plant(table)
    assert any(FAULTS[plant] in message for message in findings(obedient, table, tmp_path))


def test_a_field_that_is_called_left_lies_left(obedient, tmp_path):
    text = json.dumps(ALOHA).replace("left_arm_joint_pos", "#").replace("right_arm_joint_pos", "left_arm_joint_pos")
    table = json.loads(text.replace("#", "right_arm_joint_pos"))
    found = findings(obedient, table, tmp_path)
    assert any("'left_arm_joints' lies in slots of the right arm" in message for message in found)


def test_slots_of_a_store(obedient):
    with Store.open(obedient) as store:
        rows = describe(store)
        values = store.read("state")
    assert len(rows) == 28
    first = rows[0]
    assert (first["name"], first["field"], first["unit"]) == ("left_arm_joint_pos_0", "left_arm_joints", "rad")
    assert first["mean"] == pytest.approx(values[:, 0].mean(), abs=1e-6)
    assert all(SLOTS[row["slot"]].name == row["name"] for row in rows)


def test_it_prints_them(obedient):
    console = Console(width=200, record=True)
    slots(obedient, console=console)
    text = console.export_text()
    assert "state of aloha-viperx: 14 of 128 slots, at 50 Hz" in text
    assert "right_gripper_open" in text


def test_a_store_that_nobody_described(tmp_path, robot):
    with Store.create(tmp_path / "toy", robot, privileged=False) as store:
        store.append(fake_episode(robot))
    with pytest.raises(UserError, match="nobody has said where the fields of 'fake' lie"):
        slots(tmp_path / "toy")
