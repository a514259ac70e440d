"""Policies of a lower control rate in simulators: they run at their own rate, and at no other."""

import dataclasses
import json

import numpy as np
import pytest
from foreact import envs
from foreact.__main__ import main
from foreact.data.demonstrate import Noise, demonstrate
from foreact.data.schema import fake_episode
from foreact.data.slower import at_rate
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.eval import evaluate
from foreact.eval.replay import replay
from foreact.eval.robot.clock import SimulatedClock
from foreact.eval.robot.robots import SimulatedRobot

from .test_rollout import QUIET

SLOW = {"episodes": 2, "workers": 1, **QUIET}


@pytest.fixture
def slow_policy(dot_policy):
    """Of 5 control steps a second, each two of the simulator's."""
    policy = dot_policy(noise=0.0)
    policy.embodiment = policy.embodiment.at(2)
    return policy


@pytest.fixture
def policy_of_both(dot_policy, slow_policy):
    """Of both rates, on the slow one."""
    slow_policy.robots = ["dot@5hz", "dot"]
    slow_policy.on = {"dot": dot_policy(noise=0.0), "dot@5hz": slow_policy}.__getitem__
    return slow_policy


def test_a_checkpoints_rate_is_that_of_its_evaluation(slow_policy, dot_policy):
    slow, fast = (evaluate(policy, ["near"], **SLOW) for policy in (slow_policy, dot_policy(noise=0.0)))
    assert slow["settings"]["every"] == 2
    assert "every" not in fast["settings"]
    steps = [[e["length"] for e in found["per_task"]["near"]["episodes"]] for found in (slow, fast)]
    assert slow["per_task"]["near"]["success"] == 1.0
    assert all(a < b for a, b in zip(*steps, strict=True))  # each of them moves twice as far


def test_the_limit_counts_the_simulators_own_steps(slow_policy):
    slow_policy._chunk = lambda observation, key: np.zeros((6, 2), np.float32)
    for max_steps, steps in ((500, 30), (9, 5)):  # the task's own limit is 60
        found = evaluate(slow_policy, ["near"], max_steps=max_steps, **SLOW)
        assert [e["length"] for e in found["per_task"]["near"]["episodes"]] == [steps] * 2


def test_a_policy_of_another_rate_than_asked_for_is_refused(slow_policy, dot_policy):
    for policy, every, ours, theirs in ((dot_policy(), 2, 10.0, 5.0), (slow_policy, 1, 5.0, 10.0)):
        with pytest.raises(UserError, match=f"(?s)control_hz: {ours} here, {theirs} there.*name: .* here"):
            evaluate(policy, ["near"], every=every, **SLOW)


def test_a_policy_of_both_rates_acts_at_the_one_that_is_asked_for(policy_of_both):
    runs = {every: evaluate(policy_of_both, ["near"], every=every, **SLOW) for every in (None, 1, 2)}
    assert {every: run["settings"].get("every", 1) for every, run in runs.items()} == {None: 1, 1: 1, 2: 2}
    assert all(run["per_task"]["near"]["success"] == 1.0 for run in runs.values())
    with pytest.raises(UserError, match="every must be at least 1, got 0"):
        evaluate(policy_of_both, ["near"], every=0, **SLOW)


def test_the_expert_acts_at_any_rate(worlds):
    assert evaluate("expert", ["near"], every=3, **SLOW)["settings"]["every"] == 3


def test_what_was_recorded_at_a_lower_rate_comes_out_again_at_it(worlds, tmp_path):
    env = worlds.make("near")
    env.slow_down(3)
    with Store.create(tmp_path / "store", env.embodiment, privileged=True) as store:
        for seed in range(2):
            episode = demonstrate(
                env, seed, noise=Noise(std=0.3), hold=2, act=None, keep_failures=False, source="expert"
            )
            assert episode is not None
            store.append(episode)
    found = replay(tmp_path / "store", workers=1, progress=False, registry="fake_worlds")
    assert found["per_task"]["near"]["success"] == 1.0
    assert (found["replay"]["max_frame_diff"], found["replay"]["max_state_diff"]) == (0, 0.0)


@pytest.mark.sim
def test_targets_read_at_a_lower_rate_move_a_simulator_as_they_did(tmp_path):
    """They stay for three steps each: then reading them as one leaves nothing out."""
    env = envs.make("pusht")
    rng = np.random.default_rng(0)
    targets = np.repeat(rng.uniform(100, 400, (6, 2)), 3, axis=0).astype(np.float32)
    obs, _ = env.reset(seed=3)
    frames, states = [], []
    for target in targets:
        obs = env.observe()
        frames.append(obs["images"]["main"])
        states.append(obs["state"])
        env.advance(target)
    moved = {"images": {"main": np.stack(frames)}, "state": np.stack(states)}
    moved |= {"action": targets, "action_executed": targets}
    with Store.create(tmp_path / "store", env.embodiment, privileged=False) as store:
        store.append(dataclasses.replace(fake_episode(env.embodiment, steps=len(targets)), **moved))
    slow = at_rate(Store.open(tmp_path / "store"), 3)
    env.slow_down(3)
    obs, _ = env.reset(seed=3)
    assert not slow.embodiment.differences(env.embodiment)
    for target, state, picture in zip(*(slow.read(n) for n in ("action", "state", "image/main")), strict=True):
        assert np.array_equal(env.state(), state)
        assert np.array_equal(env.observe()["images"]["main"], picture)
        env.advance(target)
    env.close()


def test_a_robot_in_real_time_has_fewer_and_longer_steps(worlds):
    env, clock = worlds.make("far"), SimulatedClock()
    env.slow_down(2)
    robot = SimulatedRobot(env, clock)
    robot.begin(0)
    start = env.state()
    robot.act(np.array([0.1, 0], np.float32))
    clock.sleep_until(clock.now() + 1 / 5)
    robot.observe()
    assert env.state() - start == pytest.approx([0.02, 0], abs=1e-6)
    clock.sleep_until(clock.now() + 60)
    assert robot.outcome() == "step limit"
    assert robot.violations == {}


def test_limits_are_of_what_a_control_step_moves(worlds):
    [limit] = worlds.EMBODIMENT.at(2).limits
    assert limit == dataclasses.replace(worlds.EMBODIMENT.limits[0], scale=0.2)


@pytest.mark.sim
@pytest.mark.slow
def test_from_a_store_read_at_half_the_rate_to_results(tmp_path, capsys):
    data, run, visited = (tmp_path / name for name in ("data", "run", "visited"))
    assert main(["collect", "tasks=[button-press]", "episodes=2", "pixels=32", f"out={data}"]) == 0
    model = ["model=action/tiny", "model.pixels=32", "steps=2", "batch_size=4"]
    assert main(["train", f"data={{path: {data}, every: 2}}", *model, f"out={run}"]) == 0
    asked = ["eval", f"checkpoint={run}", "episodes=1", "max_steps=21", "video=1", "workers=1"]
    assert main(asked) == 0
    results = json.loads((run / "eval" / "results.json").read_text(encoding="utf-8"))
    assert results["settings"]["every"] == 2
    assert [e["length"] for e in results["per_task"]["button-press-v3"]["episodes"]] == [11]
    assert main([*asked, "every=1", f"out={tmp_path / 'own'}"]) == 2
    assert "name: 'metaworld-sawyer@40hz' here, 'metaworld-sawyer' there" in capsys.readouterr().err
    control = ["control", f"checkpoint={run}", "clock=simulated", "mode=sync", "max_steps=4"]
    for i, how in enumerate((["task=button-press"], ["robot=recorded", f"data={data}"])):
        out = tmp_path / f"control{i}"
        assert main([*control, *how, f"out={out}"]) == 0
        assert json.loads((out / "control.json").read_text(encoding="utf-8"))["hz"] == 40.0
    drive = [f"policy={run}", "relabel=expert", "episodes=1", "seed=1", "max_steps=20", "workers=1"]
    assert main(["collect", *drive, f"out={visited}"]) == 0
    with Store.open(visited) as store:
        assert (store.embodiment.name, store.n_steps) == ("metaworld-sawyer@40hz", 10)
