"""What the control loop does when policy, camera, state, robot or the loop itself fails."""

import time

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval.robot.clock import RealClock, SimulatedClock
from foreact.eval.robot.robots import SimulatedRobot
from foreact.eval.robot.safety import EmergencyStop, SafetySettings


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


def test_a_policy_that_cannot_act_at_all_is_refused_before_anything_moves(loop, continuing):
    with pytest.raises(UserError, match="cannot act: RuntimeError: out of memory"):
        loop(Broken(continuing(), 0, "raises"), clock=RealClock()).run()
