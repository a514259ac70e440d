"""The control loop, exactly and at once: a simulator, a policy and a clock that stands still while anybody thinks."""

import hashlib
import time

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval import evaluate
from foreact.eval.robot.clock import RealClock, SimulatedClock
from foreact.eval.robot.robots import SimulatedRobot
from foreact.eval.robot.runs import ControlSettings
from foreact.eval.robot.safety import SafetySettings
from foreact.eval.robot.timeline import MODES


@pytest.mark.parametrize("mode", ["horizon", "sync"])
def test_without_latency_it_is_the_batched_rollout(loop, dot_policy, mode):
    results = evaluate(dot_policy(), ["near"], episodes=3, workers=1, progress=False, registry="fake_worlds")
    control = loop(dot_policy(), mode=mode)
    for record in results["per_task"]["near"]["episodes"]:
        run = control.run(record["episode"])
        digest = hashlib.sha256(b"".join(np.float32(tick.asked).tobytes() for tick in run.ticks)).hexdigest()
        assert (run.outcome, len(run.ticks), digest[:16]) == ("success", record["length"], record["actions"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("latency", [0.0, 0.1, 0.25])
def test_every_mode_reaches_the_goal_through_latency_within_limits(loop, mode, latency):
    control = loop(mode=mode, latency=latency, jitter=0.05, uncovered="rest")
    for episode in range(2):
        run = control.run(episode)
        assert run.outcome == "success"
        assert control.robot.violations == {}
        assert min(run.latencies) >= latency


def test_the_robot_rests_until_the_first_answer_and_then_acts_by_time(loop):
    run = loop(latency=0.2).run()
    assert [tick.asked is None for tick in run.ticks[:4]] == [True, True, False, False]
    np.testing.assert_array_equal(run.ticks[1].sent, [0, 0])
    assert [entry for entry in run.interventions if entry.rule == "chunk"] == []  # to wait for it is no fault


def test_real_time_chunks_join_without_a_jump(loop, continuing):
    """Where each chunk has noise of its own, modes differ in how they go from one to the next."""
    jumps = {}
    for mode in ("horizon", "realtime"):
        run = loop(continuing(noise=0.4), mode=mode, latency=0.2, task="far").run(1)
        sent = np.stack([tick.asked for tick in run.ticks if tick.asked is not None])
        steps = [tick.step for tick in run.ticks if tick.asked is not None]
        jumps[mode] = np.mean([np.abs(sent[steps.index(j)] - sent[steps.index(j) - 1]).max() for j in run.joints])
    assert jumps["realtime"] < 0.5 * jumps["horizon"]


def test_the_next_chunk_is_asked_for_with_what_will_be_executed_meanwhile(loop, continuing):
    policy = continuing()
    run = loop(policy, mode="realtime", latency=0.2, task="far").run()
    sent = {tick.step: tick.asked for tick in run.ticks}
    asked = [(key[-1], first) for key, first in policy.committed if first is not None]
    assert len(asked) >= 2
    for step, first in asked[:-1]:
        assert len(first) == 2  # 0.2 s at 10 Hz
        np.testing.assert_array_equal(first, np.stack([sent[step], sent[step + 1]]))


def test_chunks_that_would_run_out_are_refused_or_rest(loop):
    with pytest.raises(UserError, match="an answer takes 5 control steps"):
        loop(latency=0.5).run()
    run = loop(latency=0.5, uncovered="rest", max_steps=30, safety=SafetySettings(patience=9)).run()
    rests = [tick for tick in run.ticks[5:] if tick.asked is None]
    assert rests
    assert all((tick.sent == 0).all() for tick in rests)
    assert {entry.where for entry in run.interventions if entry.rule == "chunk"} == {"none for this step"}


def test_an_episode_has_a_step_limit_and_a_success_at_the_last_step_counts(loop, dot_policy):
    assert loop(task="far", max_steps=5).run().outcome == "step limit"
    whole = loop(dot_policy()).run()
    assert loop(dot_policy(), max_steps=len(whole.ticks)).run().outcome == "success"


def test_late_control_steps_are_counted_and_over_ones_skipped(loop, worlds):
    clock = SimulatedClock()

    class Slow(SimulatedRobot):
        def observe(self, pictures=True):
            stamped = super().observe(pictures)
            if self._steps == 3:
                clock.sleep_until(clock.now() + 0.25)  # two and a half periods
            return stamped

    run = loop(robot=Slow(worlds.make("far"), clock), clock=clock, safety=SafetySettings(stale=9)).run()
    steps = [tick.step for tick in run.ticks]
    assert steps[:5] == [0, 1, 2, 3, 5]
    assert run.skipped >= 1
    assert run.late[0] == pytest.approx(0.05)


def test_in_real_time_the_rate_is_kept_beside_a_policy_that_thinks(loop, continuing):
    policy = continuing(think=0.03)
    before = time.monotonic()
    run = loop(
        policy,
        mode="realtime",
        clock=RealClock(),
        hz=50,
        max_steps=40,
        task="far",
        safety=SafetySettings(without=("watchdog",)),
    ).run()
    assert len(run.ticks) + run.skipped >= 10
    assert time.monotonic() - before >= len(run.ticks) / 50
    assert min(run.latencies) >= 0.03
    times = np.array([tick.time for tick in run.ticks])
    assert np.abs(times - np.array([tick.step for tick in run.ticks]) / 50).min() < 0.01


def test_the_next_episode_does_not_ask_a_policy_that_still_thinks(loop, continuing):
    class Counted:
        def __init__(self, policy):
            self.policy, self.now, self.most = policy, 0, 0

        def __getattr__(self, name):
            return getattr(self.policy, name)

        def act(self, *asked, **more):
            self.now += 1
            self.most = max(self.most, self.now)
            chunks = self.policy.act(*asked, **more)
            self.now -= 1
            return chunks

    policy = Counted(continuing(think=0.15))
    safety = SafetySettings(without=("watchdog",), patience=9)
    settings = {"hz": 50, "max_steps": 2, "timeout": 0.01, "uncovered": "rest"}
    control = loop(policy, clock=RealClock(), safety=safety, task="far", **settings)
    for episode in range(2):
        assert control.run(episode).outcome == "step limit"
    assert policy.most == 1


def test_what_cannot_work_is_refused_before_anything_moves(loop, dot_policy):
    with pytest.raises(UserError, match=r"mode=realtime continues a chunk .* did not learn that"):
        loop(dot_policy(), mode="realtime")
    with pytest.raises(UserError, match="unknown mode 'fast'; choose one of: ensemble, horizon, realtime, sync"):
        loop(mode="fast")
    with pytest.raises(UserError, match="latency and jitter must not be below 0"):
        ControlSettings(latency=-1.0)
    with pytest.raises(UserError, match="hz must be above 0, got 0"):
        ControlSettings(hz=0.0)
