"""`foreact control` and `foreact serve`, from the command line on."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from foreact.__main__ import main
from foreact.cli import commands, compose, robotics
from foreact.cli.robots import limited
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.eval.serving.client import Client


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "needs checkpoint=RUN, or policy=ws://HOST:PORT"),
        (["checkpoint=nowhere"], "nowhere does not exist"),
        (["policy=wizard"], "unknown policy (other than ws://HOST:PORT) 'wizard'"),
        (["robot=tractor"], "unknown robot 'tractor'; choose one of: lerobot, recorded, simulated"),
        (["clock=sundial"], "unknown clock 'sundial'"),
        (["mode=fast", "checkpoint=x"], "unknown mode 'fast'"),
        (["safety.without=[everything]", "checkpoint=x"], "unknown rule in safety.without: 'everything'"),
        (["latency=-5", "checkpoint=x"], "latency and jitter must not be below 0"),
        (["ensemble=0.1", "checkpoint=x"], "ensemble=0.1 would be ignored: mode=realtime averages nothing"),
        (["policy=ws://127.0.0.1:1"], "cannot connect to ws://127.0.0.1:1"),
    ],
)
def test_bad_settings_of_control_are_one_message(settings, message, capsys):
    assert main(["control", *settings]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "foreact serve needs checkpoint="),
        (["checkpoint=nowhere"], "nowhere does not exist"),
        (["checkpoint=expert"], "checkpoint=expert is not a checkpoint"),
        (["checkpoint=x", "port=99999"], "port must be from 0 to 65535, got 99999"),
        (["checkpoint=x", "rate=-1"], "rate must be above 0"),
    ],
)
def test_bad_settings_of_serve_are_one_message(settings, message, capsys):
    assert main(["serve", *settings]) == 2
    assert message in capsys.readouterr().err


def test_a_table_of_limits_comes_from_a_file(tmp_path):
    from foreact import envs

    path = tmp_path / "limits.json"
    sawyer = envs.embodiment("push")
    rows = sawyer.to_dict()["limits"]
    path.write_text(json.dumps([{**rows[0], "velocity": 0.25}, rows[1]]), encoding="utf-8")
    assert limited(sawyer, str(path)).limits[0].velocity == 0.25
    assert limited(sawyer, None) == sawyer
    before = dataclasses.replace(sawyer, limits=())  # as in a store from before there were any
    assert limited(before, None) == sawyer
    for text in ("[{}]", "7", "nonsense", '[{"field": "hand_delta", "kind": "delta", "speed": 1}]'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="it is a JSON list of rows"):
            limited(sawyer, str(path))
    with pytest.raises(UserError, match="No such file"):
        limited(sawyer, str(tmp_path / "none.json"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny policy of one Metaworld task, trained for three updates."""
    home = tmp_path_factory.mktemp("control")
    commands.collect(compose.config_of("collect", ["tasks=[button-press]", "episodes=2", f"out={home / 'data'}"]))
    train = ["model=joint/tiny", "steps=3", "batch_size=4", "align=0", f"data={home / 'data'}", f"out={home / 'run'}"]
    commands.train(compose.config_of("train", train))
    return home / "run"


@pytest.mark.sim
@pytest.mark.slow
def test_a_checkpoint_drives_a_simulator_and_what_it_leaves_can_be_trained_on(checkpoint, tmp_path):
    settings = [f"checkpoint={checkpoint}", "clock=simulated", "latency=[0,50]", "mode=[sync,realtime]", "max_steps=12"]
    assert main(["control", *settings, "episodes=2", f"out={tmp_path / 'sweep'}"]) == 0
    sweep = json.loads((tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    assert [(r["settings"]["mode"], r["settings"]["latency"]) for r in sweep["runs"]] == [
        ("sync", 0), ("sync", 0.05), ("realtime", 0), ("realtime", 0.05)
    ]  # fmt: skip
    assert all(episode["violations"] == {} for run in sweep["runs"] for episode in run["episodes"])
    assert [(row["mode"], row["latency"], row["n"]) for row in sweep["rows"]][1:3] == [
        ("sync", 0.05, 2),
        ("realtime", 0, 2),
    ]
    assert (tmp_path / "sweep" / "sweep.png").stat().st_size > 5000
    run = tmp_path / "sweep" / "realtime-50ms"
    assert (run / "report.html").is_file()
    with Store.open(run / "data") as store:
        assert store.n_steps == 24
    assert main(["data", "info", str(run / "data")]) == 0
    again = ["train", f"data={run / 'data'}", "model=joint/tiny", "steps=1", "batch_size=2", "align=0"]
    assert main([*again, f"out={tmp_path / 'again'}"]) == 0


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_served_checkpoint_drives_a_simulator_in_real_time(number, checkpoint, tmp_path):
    command = [sys.executable, "-m", "foreact", "serve", f"checkpoint={checkpoint}", "port=0", "device=cpu"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        assert server.stdout is not None
        try:
            uri = re.search(r"ws://[\d.:]+", server.stdout.readline())[0]
            settings = [f"policy={uri}", "hz=4", "max_steps=8", "mode=realtime", "uncovered=rest"]
            assert main(["control", *settings, f"out={tmp_path / 'run'}"]) == 0
            with Client(uri) as client:
                assert client.metadata["can_continue"]
            server.send_signal(number)
            assert server.wait(20) == 0
        finally:
            server.kill()
    (episode,) = json.loads((tmp_path / "run" / "control.json").read_text(encoding="utf-8"))["episodes"]
    assert episode["outcome"] == "step limit"
    assert episode["violations"] == {}
    assert Store.open(tmp_path / "run" / "data").n_steps == episode["steps"]


@pytest.mark.sim
@pytest.mark.slow
def test_long_chunks_act_through_a_long_latency(checkpoint, tmp_path):
    """The recipe of docs/robot.md, on a policy that has learned next to nothing: 400 ms are 32 control steps."""
    train = ["model=joint/tiny", "model.horizon=96", "model.n_action_steps=16", "steps=2", "batch_size=2", "align=0"]
    store = checkpoint.parent / "data"
    assert main(["train", *train, f"data={store}", f"out={tmp_path / 'long'}"]) == 0
    settings = [f"checkpoint={tmp_path / 'long'}", "clock=simulated", "record=false", "max_steps=120"]
    settings += ["mode=[sync,horizon,realtime]", "latency=[200,400]", "jitter=[0,50]", f"out={tmp_path / 'sweep'}"]
    assert main(["control", *settings]) == 0
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 12
    for row in rows:  # but for the wait for the first chunk, and the rests of sync, there is an action for every step
        first = (row["latency"] + row["jitter"]) * 80 + 1
        assert row["mode"] == "sync" or row["resting"] * 120 <= first, row
    assert (tmp_path / "sweep" / "realtime-400ms-jitter50ms" / "control.json").is_file()


def test_an_interrupt_stops_the_robot_and_not_the_process():
    from foreact.eval.robot.safety import EmergencyStop

    stop = EmergencyStop()
    before = signal.getsignal(signal.SIGTERM)
    with robotics._interrupts(stop):
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "interrupted"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
