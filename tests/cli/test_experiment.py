"""Experiments: what they ask for, and that they go on where they stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from importlib.resources import files

import pytest
from foreact import envs
from foreact.__main__ import main
from foreact.cli import commands, compose, experiment
from foreact.data.collect import FIRST_SEED
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.policy import TrainConfig
from foreact.policy.settings import build
from foreact.policy.train import build_preset

EXPERIMENTS = sorted(p.name.removesuffix(".yaml") for p in files("foreact.configs").joinpath("experiment").iterdir())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_stage_of_every_experiment_is_composed_and_built(name, monkeypatch, tmp_path):
    monkeypatch.setenv("FOREACT_HOME", str(tmp_path))
    config = compose.config_of("run", [f"experiment={name}", "model.pixels=48"])
    assert config["name"] == name
    out = experiment.experiment_folder(config)
    assert out == tmp_path / name
    asked = experiment.stages(config, out)
    composed = {verb: compose.config_of(verb, compose.as_overrides(asked[verb])) for verb in asked}
    tasks = commands.task_names(composed["collect"]["tasks"])
    assert len({envs.resolve(task) for task in tasks}) == len(tasks)
    assert build_preset(composed["train"]["model"]).pixels == 48
    build(TrainConfig, {f.name: composed["train"][f.name] for f in fields(TrainConfig)}, "train")
    last = composed["eval"]["seed"] + composed["eval"]["episodes"]
    assert last < FIRST_SEED, "evaluated on seeds of the demonstrations"


@pytest.mark.parametrize(("name", "number"), [("metaworld10", 10), ("metaworld50", 50)])
def test_the_metaworld_experiments_have_their_tasks_and_no_simulator_state(name, number):
    config = compose.config_of("run", [f"experiment={name}"])
    assert len(commands.task_names(config["collect"]["tasks"])) == number
    assert config["collect"]["episodes"] == 50
    assert config["train"].get("align", 0) == 0
    assert (config["eval"]["seed"], config["eval"]["episodes"]) == (1000, 20)


def test_a_suites_name_stands_for_its_tasks():
    assert commands.task_names("metaworld") == envs.tasks("metaworld")
    assert commands.task_names(["push-v3", "pusht"]) == ["push-v3", *envs.tasks("pusht")]


def test_an_experiment_of_many_tasks_has_no_task_to_choose():
    with pytest.raises(UserError, match="task"):
        experiment.run_experiment(["experiment=metaworld10", "task=push"])


SMALL = [
    "run", "experiment=metaworld10", "collect.tasks=[button-press-topdown,drawer-close]", "collect.episodes=3",
    "collect.pixels=32", "train.model=joint/tiny", "model.pixels=32", "train.steps=12", "train.batch_size=4",
    "train.save_every=2", "train.val_every=6", "train.val_per_task=2", "train.held_out=0.4", "eval.episodes=2",
    "eval.max_steps=12", "eval.video=0",
]  # fmt: skip


def progress(run) -> tuple[int, int, int]:
    """Episodes collected, updates saved, episodes evaluated."""
    try:
        episodes = len(Store.open(run / "data"))
    except UserError:
        episodes = 0
    latest, journal = run / "checkpoints" / "latest", run / "episodes.jsonl"
    updates = int(latest.read_text(encoding="utf-8")) if latest.is_file() else 0
    return episodes, updates, len(journal.read_bytes().splitlines()) if journal.is_file() else 0


@pytest.mark.sim
@pytest.mark.slow
def test_killed_in_every_stage_the_same_command_goes_on(tmp_path, monkeypatch):
    """Each process is killed as soon as there is more than the one before it left."""
    monkeypatch.setenv("FOREACT_HOME", str(tmp_path))
    run, seen = tmp_path / "metaworld10", []
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-m", "foreact", *SMALL],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ, start_new_session=True,
        ) as process:  # fmt: skip
            before = progress(run)
            while process.poll() is None and progress(run) <= before:
                time.sleep(0.02)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        seen.append(progress(run))
        if (run / "results.json").is_file():
            break
    assert main(SMALL) == 0
    seen.append(progress(run))
    assert seen == sorted(seen)
    assert seen[-1] == (6, 12, 4)
    assert {sum(n > 0 for n in row) for row in seen} >= {1, 2}  # it was killed in more than one stage
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert {task: row["n"] for task, row in results["per_task"].items()} == {
        "button-press-topdown-v3": 2,
        "drawer-close-v3": 2,
    }
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [r["step"] for r in records] == sorted({r["step"] for r in records})
    assert {"task/button-press-topdown-v3", "task/drawer-close-v3"} <= records[-1].keys()
    assert records[-1]["minutes"] > records[0]["minutes"] > 0
