"""The control loop of a toy world."""

import pytest
from foreact.eval.actors import PolicyActor
from foreact.eval.robot.clock import SimulatedClock
from foreact.eval.robot.control import Control
from foreact.eval.robot.robots import SimulatedRobot
from foreact.eval.robot.runs import ControlSettings


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
