"""The control loop, exactly and at once: a simulator, a policy and a clock that stands still while anybody thinks."""

import hashlib
import time

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval import evaluate
from foreact.eval.actors import PolicyActor
from foreact.eval.robot.clock import RealClock, SimulatedClock
from foreact.eval.robot.control import Control
from foreact.eval.robot.robots import SimulatedRobot
from foreact.eval.robot.runs import ControlSettings
from foreact.eval.robot.safety import EmergencyStop, SafetySettings
from foreact.eval.robot.timeline import MODES


@pytest.fixture
def loop(worlds, continuing):
    """Makes a control loop of a toy world; options of `ControlSettings`, and those below."""

    def make(policy=None, *, task="near", clock=None, safety=None, stop=None, robot=None, watch=None, **options):
        clock = clock or SimulatedClock()
        policy = policy or continuing()
        settings = ControlSettings(**{"mode": "horizon", **options})
        ensemble = 0.01 if settings.mode == "ensemble" else None
        actor = PolicyActor(policy=policy, ensemble=ensemble, batch_shape=1)
        robot = robot or SimulatedRobot(worlds.make(task), clock, hz=settings.hz)
        return Control(robot, actor, clock, settings, safety, stop=stop, watch=watch)

    return make


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


class Broken:
    """A policy that fails, or answers nonsense, after so many questions."""

    def __init__(self, policy, after, how):
        self.policy, self.left, self.how = policy, after, how

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def act(self, *arguments, **options):
        self.left -= 1
        chunk = self.policy.act(*arguments, **options)
        if self.left >= 0:
            return chunk
        if self.how == "raises":
            raise RuntimeError("out of memory")
        return chunk * np.nan if self.how == "nan" else chunk[:, :, :1]


@pytest.mark.parametrize("how", ["raises", "nan", "shape"])
def test_lost_chunks_end_the_present_one_then_rest_then_give_up(loop, continuing, how):
    control = loop(Broken(continuing(), 1, how), task="far", safety=SafetySettings(patience=0.5))
    run = control.run()
    asked = [tick.asked is not None for tick in run.ticks]
    assert asked == [True] * 6 + [False] * (len(asked) - 6)  # the chunk has six actions
    assert (run.ticks[-1].sent == 0).all()
    assert run.outcome == "given up: faults for 0.5 s, the last: chunk, none for this step"
    assert len(run.ticks) == 6 + 6
    assert any("lost: " in entry.where for entry in run.interventions)
    assert control.robot.violations == {}


class Blind(SimulatedRobot):
    """A camera that gives one picture for ever, and a state that breaks at a step."""

    frozen = None
    broken_from = 10**9
    seen = 0

    def observe(self, pictures=True):
        stamped = super().observe(pictures)
        self.seen += 1
        if self.frozen is None and pictures:
            self.frozen = stamped.observation["images"]["main"]
        if pictures:
            stamped.observation["images"] = {"main": self.frozen}
        if self.seen > self.broken_from:
            stamped.observation["state"] = np.array([np.nan, 0])
        return stamped


def test_a_dead_camera_brakes_the_robot(loop, worlds):
    clock = SimulatedClock()
    control = loop(robot=Blind(worlds.make("far"), clock), clock=clock, task="far", safety=SafetySettings(patience=0.3))
    run = control.run()
    assert run.outcome == "given up: faults for 0.3 s, the last: camera, main"
    assert (run.ticks[-1].sent == 0).all()


def test_a_broken_state_brakes_the_robot(loop, worlds):
    clock = SimulatedClock()
    robot = Blind(worlds.make("far"), clock)
    robot.broken_from = 4
    run = loop(robot=robot, clock=clock, safety=SafetySettings(without=("camera",), patience=0.3)).run()
    assert run.outcome == "given up: faults for 0.3 s, the last: finite, state"
    assert np.isfinite([tick.state for tick in run.ticks]).all()


def test_an_emergency_stop_ends_the_run_and_nothing_more_is_sent(loop):
    stop = EmergencyStop()

    def press(tick, control):
        if tick.step == 3:
            stop("button")

    control = loop(task="far", stop=stop, watch=press)
    run = control.run()
    assert run.outcome == "stopped: button"
    assert len(run.ticks) == 4
    assert control.robot._stopped
    assert len(control.run(1).ticks) == 1  # it stays stopped


def test_a_robot_that_fails_is_stopped_and_what_was_done_is_kept(loop, worlds):
    clock = SimulatedClock()
    robot = SimulatedRobot(worlds.make("raise"), clock)
    run = loop(robot=robot, clock=clock).run()
    assert run.outcome == "failed: ZeroDivisionError: the simulator divided by zero"
    assert len(run.ticks) == 2
    assert robot._stopped


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


def test_a_stuck_loop_is_stopped_by_the_watchdog(loop, worlds):
    clock = RealClock()

    class Stuck(SimulatedRobot):
        def observe(self, pictures=True):
            if getattr(self, "_steps", 0) >= 2:
                time.sleep(0.4)
            return super().observe(pictures)

    robot = Stuck(worlds.make("far"), clock, hz=50)
    run = loop(robot=robot, clock=clock, hz=50, safety=SafetySettings(watchdog=0.1, stale=9)).run()
    assert run.outcome == "stopped: watchdog: no control step for 0.1 s"


def test_what_cannot_work_is_refused_before_anything_moves(loop, dot_policy, continuing):
    with pytest.raises(UserError, match=r"mode=realtime continues a chunk .* did not learn that"):
        loop(dot_policy(), mode="realtime")
    with pytest.raises(UserError, match="unknown mode 'fast'; choose one of: ensemble, horizon, realtime, sync"):
        loop(mode="fast")
    with pytest.raises(UserError, match="latency and jitter must not be below 0"):
        ControlSettings(latency=-1.0)
    with pytest.raises(UserError, match="hz must be above 0, got 0"):
        ControlSettings(hz=0.0)
    with pytest.raises(UserError, match="cannot act: RuntimeError: out of memory"):
        loop(Broken(continuing(), 0, "raises"), clock=RealClock()).run()
