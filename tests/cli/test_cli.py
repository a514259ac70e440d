import json

import pytest
from foreact.__main__ import VERBS, main, parser
from foreact.cli import compose, experiment
from foreact.data.store import Store
from foreact.envs.errors import UserError


@pytest.mark.parametrize("verb", [*VERBS, "data", "bench", "tasks"])
def test_help_teaches(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "usage: foreact" in capsys.readouterr().out


def test_every_verb_composes():
    assert compose.config_of("train", ["data=d", "out=o", "model=action/tiny", "steps=3"])["steps"] == 3
    assert compose.config_of("collect", ["tasks=[reach]", "episodes=2", "out=o"])["tasks"] == ["reach"]
    assert compose.config_of("eval", ["policy=expert"])["seed"] == 1000
    assert compose.config_of("bench", ["model=joint/base"])["model"]["name"] == "joint/base"
    assert compose.config_of("run", ["task=push"])["collect"]["tasks"] == ["push"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "data=d"], "foreact train needs out=; see: foreact train --help"),
        (["train", "data=d", "out=o", "stepz=3"], "stepz"),
        (["train", "data=d", "out=o", "model=joint/huge"], "joint/huge"),
        (["train", "data=d", "out=o", "model.horizon=-1"], "horizon must be at least 1, got -1"),
        (["train", "data=nowhere", "out=o"], "no store at nowhere"),
        (
            ["collect", "tasks=[fly]", "episodes=1", "out=o"],
            "unknown task 'fly'; choose one of: aloha/transfer-cube-v0, fetch/",
        ),
        (["eval"], "needs checkpoint=RUN, or policy=expert, random or replay"),
        (["eval", "checkpoint=nowhere"], "nowhere does not exist"),
        (["eval", "policy=replay"], "needs data="),
        (["eval", "policy=wizard"], "unknown policy 'wizard'; choose one of: checkpoint, expert, random, replay"),
        (
            ["train", "data=d", "out=o", "model.depht=3"],
            "unknown setting of model: 'depht'; choose one of: action_norm",
        ),
        (
            ["bench", "nothing"],
            "unknown benchmark 'nothing'; choose one of: act, control, eval, faults, loader, render, serve, train",
        ),
        (["data", "info", "nowhere"], "no store at nowhere"),
        (["quickstart", "train.speed=9"], "speed"),
        (["collect", "episodes=1", "out=o"], "needs tasks=, or policy=RUN"),
        (
            ["collect", "tasks=[push]", "episodes=1", "out=o", "relabel=expert"],
            "relabel=expert would be ignored: policy=expert",
        ),
        (
            ["collect", "episodes=1", "out=o", "policy=nowhere", "beta=0.5"],
            "beta=0.5 would be ignored: without relabel",
        ),
        (["collect", "episodes=1", "out=o", "policy=nowhere", "pixels=64"], "pixels=64 would be ignored"),
        (
            ["collect", "episodes=1", "out=o", "policy=nowhere", "relabel=me"],
            "unknown relabel 'me'; choose one of: expert",
        ),
        (["collect", "episodes=1", "out=o", "policy=nowhere"], "nowhere does not exist"),
        (["eval", "checkpoint=pretrained/nothing"], "unknown pretrained policy 'nothing'; choose one of:"),
        (["eval", "policy=expert", "protocol=mine"], "protocol/mine"),
        (["eval", "policy=expert", "solver_steps=3"], "solver_steps would be ignored"),
        (["pack", "checkpoint=nowhere", "out=o"], "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_message_and_status_two(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_debug_shows_the_traceback():
    with pytest.raises(UserError):
        main(["--debug", "eval"])
    with pytest.raises(UserError):
        main(["eval", "--debug"])


def test_settings_survive_the_way_through_an_override():
    settings = {"tasks": ["a", "b"], "+align": 0.5, "seed": None, "+flag": True}  # '+': the YAML has none of the name
    composed = compose.config_of("eval", compose.as_overrides(settings))
    assert composed["tasks"] == ["a", "b"]
    assert composed["align"] == 0.5
    assert composed["seed"] is None
    assert composed["flag"] is True


def test_experiments_are_named_after_their_task():
    config = compose.config_of("run", ["experiment=quickstart"])
    assert experiment.experiment_name(config) == "quickstart"
    assert experiment.experiment_name({**config, "task": "push"}) == "quickstart-push-v3"


def test_home_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FOREACT_HOME", str(tmp_path))
    assert compose.home() == tmp_path


def test_tasks_are_listed(capsys):
    assert main(["tasks"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) >= 50


def test_parser_knows_the_verbs():
    assert parser().parse_args(["data", "view", "somewhere", "--episodes", "3"]).episodes == 3


@pytest.mark.sim
@pytest.mark.slow
def test_an_experiment_from_nothing_and_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FOREACT_HOME", str(tmp_path))
    small = [
        "run", "experiment=quickstart", "collect.episodes=3", "collect.pixels=64", "train.model=joint/tiny",
        "train.steps=4", "train.batch_size=4", "eval.episodes=1", "eval.max_steps=20", "eval.video=1",
    ]  # fmt: skip
    assert main(small) == 0
    run = tmp_path / "quickstart"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["per_task"]["button-press-v3"]["n"] == 1
    assert {"report.html", "videos", "checkpoints", "data"} <= {p.name for p in run.iterdir()}
    with Store.open(run / "data") as store:
        assert len(store) == 3
    assert main(small) == 0
    assert main(["train", f"data={run / 'data'}", f"out={run}", "model=joint/tiny", "steps=9"]) == 2
