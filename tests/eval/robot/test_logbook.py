"""What a run leaves behind: a store that can be trained on again, traces, and a page."""

import json

import numpy as np
import pytest
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.eval.actors import PolicyActor
from foreact.eval.robot.clock import SimulatedClock
from foreact.eval.robot.control import Control
from foreact.eval.robot.control_report import write_control_report
from foreact.eval.robot.logbook import Logbook
from foreact.eval.robot.robots import RecordedRobot, SimulatedRobot
from foreact.eval.robot.runs import ControlSettings

ABOUT = {"policy": "toy", "robot": "dot", "hz": 10, "settings": {"mode": "realtime"}}


@pytest.fixture
def folder(worlds, continuing, tmp_path):
    """Two episodes that were driven in real-time chunks, on disk."""
    clock = SimulatedClock()
    robot = SimulatedRobot(worlds.make("near"), clock)
    actor = PolicyActor(policy=continuing(), batch_shape=1)
    control = Control(robot, actor, clock, ControlSettings(mode="realtime", latency=0.1))
    book = Logbook(tmp_path / "run", robot.embodiment, ABOUT)
    for episode in range(2):
        book.add(control.run(episode), source="control", seed=1000 + episode, violations=robot.violations)
    book.close()
    return tmp_path / "run"


def test_a_run_is_a_store_of_what_was_asked_and_sent(folder):
    summary = json.loads((folder / "control.json").read_text(encoding="utf-8"))
    with Store.open(folder / "data") as store:
        assert len(store) == 2
        assert [line["steps"] for line in summary["episodes"]] == np.diff([0, *store.episode_ends]).tolist()
        assert store.meta.success.tolist() == [line["success"] for line in summary["episodes"]] == [True, True]
        assert store.meta.seed.tolist() == [1000, 1001]
        episode = store.episode(1)
        trace = np.load(folder / "traces" / "001.npz")
        np.testing.assert_array_equal(episode.action_executed, trace["sent"])
        np.testing.assert_array_equal(episode.state, trace["state"])
        waited = np.isnan(trace["asked"]).any(axis=1)
        np.testing.assert_array_equal(episode.action[waited], episode.action_executed[waited])
        assert waited[0]
        assert not waited[-1]


def test_the_simulator_does_the_same_again_with_what_was_sent(folder, worlds):
    episode = Store.open(folder / "data").episode(0)
    env = worlds.make("near")
    env.reset(seed=episode.seed)
    for state, action in zip(episode.state, episode.action_executed, strict=True):
        np.testing.assert_array_equal(env.state(), state)
        _, success, _ = env.advance(action)
    assert success


def test_a_recording_can_be_rehearsed(folder, continuing):
    clock = SimulatedClock()
    robot = RecordedRobot(folder / "data", clock)
    actor = PolicyActor(policy=continuing(), batch_shape=1)
    run = Control(robot, actor, clock, ControlSettings(mode="realtime", latency=0.1)).run(1)
    assert run.outcome == "end of the recording"
    assert len(run.ticks) == len(robot.errors) == len(robot.store.episode(1))
    assert np.abs(robot.errors).max() == 0  # the same policy, the same pictures, the same noise
    with pytest.raises(UserError, match="2 episodes; episode 2 cannot be played"):
        robot.begin(2)
    robot.close()


def test_the_report_shows_what_happened(folder, worlds):
    page = write_control_report(folder, worlds.EMBODIMENT).read_text(encoding="utf-8")
    for said in (
        "toy on dot",
        "success",
        "100 % [34, 100]",
        "violations that reached the robot",
        "velocity[1]",
        "<svg",
    ):
        assert said in page


def test_a_folder_holds_one_run(folder, worlds):
    with pytest.raises(UserError, match="holds a run already; choose another out="):
        Logbook(folder, worlds.EMBODIMENT, ABOUT)
