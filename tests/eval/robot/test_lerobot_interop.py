"""lerobot's own Robot class, in an environment that has lerobot: a plug-in of theirs driven by `foreact control`."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from foreact.data.store import Store
from foreact.eval.actors import PolicyActor

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-lerobot" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-lerobot: `bash scripts/peers.sh` makes it"),
]

PLUGIN = """
from dataclasses import dataclass

import numpy as np
from lerobot.robots import Robot, RobotConfig


@RobotConfig.register_subclass("dot")
@dataclass(kw_only=True)
class DotConfig(RobotConfig):
    goal: float = 0.5


class Dot(Robot):
    config_class, name = DotConfig, "dot"

    def __init__(self, config):
        super().__init__(config)
        self.goal, self.place, self._connected = np.full(2, config.goal), np.zeros(2), False

    observation_features = {"x.pos": float, "y.pos": float, "top": (12, 12, 3)}
    action_features = {"x.vel": float, "y.vel": float}
    is_connected = property(lambda self: self._connected)
    is_calibrated = property(lambda self: True)

    def connect(self, calibrate=True):
        self._connected = True

    def calibrate(self):
        pass

    def configure(self):
        pass

    def get_observation(self):
        picture = np.zeros((12, 12, 3), np.uint8)
        for channel, place in enumerate((self.place, self.goal)):
            row, column = ((place + 1) / 2 * (12 - 1e-6)).astype(int)
            picture[row, column, channel] = 255
        return {"x.pos": self.place[0], "y.pos": self.place[1], "top": picture}

    def send_action(self, action):
        self.place = np.clip(self.place + 0.1 * np.array([action["x.vel"], action["y.vel"]]), -1, 1)
        return action

    def disconnect(self):
        self._connected = False
"""
# torchvision there may be built for another torch, as in the benches
SIDE = """
import sys
from foreact.eval.bench.lerobot_side import _without_torchvision_kernels
_without_torchvision_kernels()
"""
CONTROL = SIDE + "from foreact.__main__ import main; sys.exit(main(['control', *sys.argv[1:]]))"
REAL = (
    SIDE
    + """
from foreact.envs.errors import UserError
from foreact.eval.robot.lerobot_robot import make_device
for kind, settings in (("so101_follower", {"port": "/dev/null"}), ("nobody", {})):
    try:
        print(type(make_device(kind, settings)).__name__)
    except (UserError, ImportError) as error:
        print(f"{type(error).__name__}: {error}")
"""
)


def run(code, *arguments, path, tmp_path, said=""):
    """What code prints in lerobot's environment, with a folder of plug-ins on its path."""
    env = os.environ | {"PYTHONPATH": str(path), "HF_HOME": str(tmp_path / "hf")}
    command = [PYTHON, "-c", code, *arguments]
    done = subprocess.run(command, env=env, input=said, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_plug_in_of_lerobots_is_driven_by_a_served_policy(tmp_path, serving, continuing):
    plugins = tmp_path / "plugins"
    (plugins / "lerobot_robot_dot").mkdir(parents=True)
    (plugins / "lerobot_robot_dot" / "__init__.py").write_text(PLUGIN, encoding="utf-8")
    about = plugins / "lerobot_robot_dot-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lerobot_robot_dot\nVersion: 0.1\n", encoding="utf-8")
    settings = ["robot=lerobot", "lerobot.type=dot", "lerobot.settings={id: one, goal: -0.5}", "hz=10", "max_steps=40"]
    settings += ["lerobot.cameras={main: top}", "instruction=go to the near goal", f"out={tmp_path / 'run'}"]
    settings += ["uncovered=rest", "safety.patience=60"]  # on a busy machine
    with serving(PolicyActor(policy=continuing(noise=0.01), batch_shape=1)) as server:
        where = f"policy=ws://127.0.0.1:{server.port}"
        run(CONTROL, where, *settings, path=plugins, tmp_path=tmp_path, said="\ny\n")
        assert server.counts["answers"] > 5
    (episode,) = json.loads((tmp_path / "run" / "control.json").read_text(encoding="utf-8"))["episodes"]
    assert (episode["outcome"], episode["task"]) == ("success", "lerobot/dot")
    assert episode["steps"] + episode["skipped"] == 40
    with Store.open(tmp_path / "run" / "data") as store:
        episode = store.episode(0)
    assert abs(episode.state[-1] + 0.5).max() < 0.1  # it went where the policy sent it
    assert episode.images["main"].any()


def test_lerobots_own_robots_are_known_by_their_names(tmp_path):
    known, unknown = run(REAL, path=tmp_path, tmp_path=tmp_path).strip().splitlines()
    assert known == "SO101Follower" or "scservo_sdk" in known  # its motor driver is a package of its own
    assert "lerobot has no robot 'nobody'" in unknown
    assert "so101_follower" in unknown
    assert "koch_follower" in unknown
