import sys
from types import ModuleType

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval.robot.clock import SimulatedClock
from foreact.eval.robot.lerobot_robot import LerobotRobot, LerobotSettings, make_device
from foreact.eval.robot.robots import SimulatedRobot


@pytest.fixture
def robot(worlds):
    made = SimulatedRobot(worlds.make("far"), SimulatedClock())
    made.begin(0)
    return made


def test_the_simulator_goes_on_by_its_own_clock_and_a_delta_moves_it_once(robot):
    start = robot.observe(False).observation["state"]
    robot.act(np.array([0.5, 0], np.float32))
    np.testing.assert_array_equal(robot.observe(False).observation["state"], start)  # no time has passed
    robot.clock.sleep_until(0.1)
    moved = robot.observe(False).observation["state"]
    np.testing.assert_allclose(moved - start, [0.05, 0], atol=1e-6)
    robot.clock.sleep_until(1.0)
    np.testing.assert_array_equal(robot.observe(False).observation["state"], moved)
    robot.clock.sleep_until(7.0)
    assert robot.outcome() == "step limit"


def test_the_simulator_waits_for_the_first_action(robot):
    start = robot.observe(False).observation["state"]
    robot.clock.sleep_until(100.0)  # longer than an episode
    assert robot.outcome() is None
    robot.act(np.array([0.5, 0], np.float32))
    robot.clock.sleep_until(100.1)
    np.testing.assert_allclose(robot.observe(False).observation["state"] - start, [0.05, 0], atol=1e-6)
    robot.clock.sleep_until(107.0)
    assert robot.outcome() == "step limit"


def test_a_stopped_simulator_takes_no_more_actions(robot):
    robot.stop()
    before = robot.observe(False).observation["state"]
    robot.act(np.ones(2, np.float32))
    robot.clock.sleep_until(1.0)
    np.testing.assert_array_equal(robot.observe(False).observation["state"], before)


def test_the_referee_counts_what_should_not_have_come(robot):
    robot.act(np.array([2.0, 0], np.float32))
    robot.act(np.array([np.nan, 0], np.float32))
    robot.clock.sleep_until(0.0)
    assert robot.violations == {"bounds": 1, "finite": 1}


class Device:
    """lerobot's Robot interface."""

    def __init__(self):
        self.observation_features = {"a.pos": float, "b.pos": float, "top": (12, 12, 3)}
        self.action_features = {"a.pos": float, "b.pos": float}
        self.is_connected, self.sent = False, []
        self.place = {"a.pos": 0.25, "b.pos": -0.5}

    def connect(self, calibrate=True):
        self.is_connected = True

    def get_observation(self):
        assert self.is_connected
        return {**self.place, "top": np.zeros((12, 12, 3), np.uint8)}

    def send_action(self, action):
        self.sent.append(action)
        return action

    def disconnect(self):
        self.is_connected = False


def lerobot(worlds, device, **settings):
    settings = LerobotSettings(**{"cameras": {"main": "top"}, **settings})
    return LerobotRobot(device, worlds.EMBODIMENT, SimulatedClock(), task="t", instruction="go", settings=settings)


def test_a_lerobot_robot_is_read_and_driven_by_its_features(worlds):
    device = Device()
    robot = lerobot(worlds, device, state=("b.pos", "a.pos"))
    robot.connect()
    robot.begin(0)
    seen = robot.observe().observation
    np.testing.assert_array_equal(seen["state"], np.array([-0.5, 0.25], np.float32))
    assert seen["images"]["main"].shape == (12, 12, 3)
    assert "images" not in robot.observe(False).observation
    robot.act(np.array([0.1, 0.2], np.float32))
    assert device.sent[-1] == pytest.approx({"a.pos": 0.1, "b.pos": 0.2})
    robot.stop()
    assert device.sent[-1] == device.place  # it stays where it is
    assert robot.outcome() is None
    robot.close()
    robot.close()
    assert not device.is_connected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": ("a.pos",)}, r"the policy's state has 2 numbers.*lerobot.state="),
        ({"action": ("a.pos", "c.pos")}, "it has no c.pos"),
        ({"cameras": {}}, "the robot's 'main' gives nothing"),
    ],
)
def test_a_lerobot_robot_that_does_not_fit_says_so(worlds, settings, message):
    with pytest.raises(UserError, match=message):
        lerobot(worlds, Device(), **settings)


def test_without_lerobot_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot.robots", None)
    with pytest.raises(UserError, match="robot=lerobot needs lerobot: pip install lerobot"):
        make_device("so101_follower", {})


def test_lerobots_registry_makes_the_device(monkeypatch, tmp_path):
    class RobotConfig:
        def __init__(self, port):
            self.port = port

        @classmethod
        def get_choice_class(cls, kind):
            return {"arm": cls}[kind]

        @staticmethod
        def get_known_choices():
            return {"arm": RobotConfig}

    registered = []
    (tmp_path / "heavy.py").write_text("import a_motor_driver_that_nobody_has", encoding="utf-8")
    robots, tools = ModuleType("lerobot.robots"), ModuleType("lerobot.utils.import_utils")
    robots.__path__ = [str(tmp_path)]
    robots.RobotConfig, robots.make_robot_from_config = RobotConfig, lambda config: config.port
    tools.register_third_party_plugins = lambda: registered.append(1)
    for name in ("lerobot", "lerobot.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (robots, tools):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert make_device("arm", {"port": "/dev/arm"}) == "/dev/arm"
    assert registered
    for kind, settings in (("leg", {"port": "x"}), ("arm", {"prot": "x"})):
        with pytest.raises(
            UserError, match=f"lerobot has no robot '{kind}' with settings .* knows arm; .* heavy \\(No"
        ):
            make_device(kind, settings)
