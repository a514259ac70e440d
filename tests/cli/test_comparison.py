"""`foreact compare`: what is run, in which order, and what is not run twice. Training and evaluation are fakes."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from foreact import envs
from foreact.cli import arms, comparison, runs
from foreact.cli.compose import as_overrides, config_of
from foreact.envs.errors import UserError


def settings(plan: arms.Comparison, name: str) -> runs.Settings:
    """Those of an arm with one run."""
    [run] = runs.runs_of(plan, name, 0)
    return runs.settings_of(plan, run)


def leave_results(config, good: list[bool]) -> None:
    """What an evaluation leaves: of each task, episodes that succeeded or not."""
    episodes = [{"seed": 1000 + i, "success": x} for i, x in enumerate(good)]
    rows = {envs.task(task).name: {"episodes": episodes} for task in config["tasks"]}
    folder = Path(config["out"])
    folder.mkdir(parents=True, exist_ok=True)
    told = {"per_task": rows, "settings": {"every": config.get("every") or 1}}
    (folder / "results.json").write_text(json.dumps(told), encoding="utf-8")


def write(tmp_path, text: str) -> str:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    return str(tmp_path / "c.yaml")


BASE = "name: c\nbaseline: a\ntasks: [reach-v3]\nout: OUT\narms: {a: {model: action/tiny}, b: {model: joint/tiny}}\n"


def test_runs_what_is_missing_and_nothing_twice(tmp_path, monkeypatch):
    done = []

    def train(config):
        done.append(("train", config["out"], config["seed"], config["model"]["name"]))
        Path(config["out"]).mkdir(parents=True)
        told = [{"step": 1, "minutes": 2.0}, {"step": 2, "minutes": 4.0 + config["seed"], "val/action": 0.25}]
        (Path(config["out"]) / "metrics.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in told), encoding="utf-8"
        )

    def evaluate(config):
        done.append(("eval", config["checkpoint"]))
        leave_results(config, [True] * 3)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison.commands, "train", train)
    monkeypatch.setattr(comparison.commands, "evaluate", evaluate)
    path = write(tmp_path, BASE.replace("OUT", "o"))
    summary = comparison.compare(path, ["seeds=[0]"])
    assert [d[0] for d in done] == ["train", "eval"] * 2
    assert [d[1] for d in done if d[0] == "train"] == ["o/a/seed0", "o/b/seed0"]
    assert summary["arms"]["b"]["success"] == 1
    summary = comparison.compare(path, ["seeds=[0,1]", "only=[b]"])
    assert [d[1] for d in done[4:]] == ["o/b/seed1"] * 2
    assert [len(arm["per_seed"]) for arm in summary["arms"].values()] == [1, 2]
    assert [(arm["minutes"], arm["loss"]) for arm in summary["arms"].values()] == [(4, 0.25), (4.5, 0.25)]


def test_an_arm_can_take_the_tokenizer_of_the_comparison(tmp_path):
    tokenizer = "data: {episodes: [0, 5]}\nbefore: {tokenizer: {model: tokenizer/kl, steps: 3}}\n"
    path = write(tmp_path, BASE.replace("joint/tiny", "pad/small, tokenizer: true") + tokenizer)
    plan = arms.load(path, [])
    first, second = (settings(plan, name)[0] for name in ("a", "b"))
    assert first is not None
    assert second is not None
    assert "tokenizer" not in first
    assert second["tokenizer"] == plan.run_before("tokenizer") == "OUT/data.tokenizer"
    with pytest.raises(UserError, match=r"arm 'b' takes its tokenizer, and `before:` has none"):
        arms.load(write(tmp_path, BASE.replace("joint/tiny", "pad/small, tokenizer: true")), [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("baseline: a", "baseline: z"), "unknown baseline arm 'z'; choose one of: a, b"),
        (("tasks: [reach-v3]", "tasks: []"), "at least one arm, task and seed"),
        (("name: c", "name: c\nonly: [z]"), "unknown arm 'z'; choose one of: a, b"),
        (("name: c", "nam: c"), "unknown setting of .*'nam'"),
        (("action/tiny", "action/huge"), "action/huge"),
    ],
)
def test_mistakes_are_found_before_anything_runs(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        comparison.compare(write(tmp_path, BASE.replace("OUT", str(tmp_path)).replace(*change)), [])


def test_an_unknown_name_lists_the_known():
    with pytest.raises(UserError, match=r"unknown comparison .* choose one of: .*joint"):
        arms.load("jiont", [])


def test_arms_of_one_checkpoint_are_evaluated_alone_and_drawn(tmp_path, monkeypatch):
    asked = []

    def evaluate(config):
        asked.append((config["checkpoint"], config["solver_steps"], config["episodes"]))
        leave_results(config, [True, config["solver_steps"] != 1, True])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison.commands, "train", lambda config: pytest.fail("nothing is to be trained"))
    monkeypatch.setattr(comparison.commands, "evaluate", evaluate)
    text = (
        "name: c\nbaseline: a\ntasks: [reach-v3]\nout: o\ncheckpoint: runs/x\nseeds: [0, 1]\neval: {episodes: 3}\n"
        "arms: {a: {checkpoint: true}, b: {checkpoint: true, eval: {solver_steps: 1}}}\n"
        "curves: {solver steps: {1: b, 10: a}}\n"
    )
    path = write(tmp_path, text)
    summary = comparison.compare(path, [])
    assert asked == [("runs/x", None, 3), ("runs/x", 1, 3)]  # once, whatever the training seeds
    assert summary["arms"]["b"]["against"]["difference"] == pytest.approx(-1 / 3)
    assert (tmp_path / "o" / "curves.png").stat().st_size > 5000
    comparison.compare(path, [])
    assert len(asked) == 2
    with pytest.raises(UserError, match="arm 'a' evaluates one checkpoint= of all tasks; say which"):
        arms.load(write(tmp_path, text.replace("checkpoint: runs/x\n", "")), [])


def test_a_comparison_of_an_experiment_takes_its_settings(monkeypatch):
    monkeypatch.setenv("FOREACT_HOME", "home")
    plan = arms.load("metaworld10", ["eval.video=0", "arms.ten.data.episodes=[0,10]"])
    shared = config_of("run", ["experiment=metaworld10"])["train"]
    train, [evaluate] = settings(plan, "ten")
    assert train == {**shared, "data": [{"path": "home/metaworld10/data", "episodes": [0, 10]}], "seed": 0,
                     "out": "home/compare-metaworld10/ten/seed0"}  # fmt: skip
    assert (evaluate["video"], len(evaluate["tasks"])) == (0, 10)
    train, [evaluate] = settings(plan, "execute-2")
    assert train is None
    assert (evaluate["checkpoint"], evaluate["n_action_steps"]) == ("home/metaworld10", 2)
    for evaluations in (settings(plan, name)[1] for name in plan.arms):
        config_of("eval", as_overrides(evaluations[0]))


ROBOTS = (
    "name: c\nbaseline: apart\nout: o\ntrain: {steps: 90}\ncollect: {episodes: 3}\n"
    "robots: {sawyer: {tasks: [reach, push]}, pusht: {tasks: [pusht], collect: {noise: 0}, "
    "data: {share: 2, weight: 4}}}\n"
    "arms: {apart: {alone: true}, one: {data: {sawyer: {weight: 3}}}}\n"
)


def test_several_robots_learn_alone_for_their_share_or_together(tmp_path, monkeypatch):
    asked = []

    def evaluate(config):
        asked.append((config["checkpoint"], config["tasks"], config["out"]))
        assert len(config["tasks"]) == (1 if "pusht" in config["out"] else 2)
        leave_results(config, ["one" in config["out"]] * 2)

    trained = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison.commands, "collect", lambda config: asked.append(config["out"]))
    monkeypatch.setattr(comparison.commands, "train", lambda config: trained.update({config["out"]: config}))
    monkeypatch.setattr(comparison.commands, "evaluate", evaluate)
    summary = comparison.compare(write(tmp_path, ROBOTS), [])
    assert asked[:2] == ["o/data/sawyer", "o/data/pusht"]
    assert {out: config["steps"] for out, config in trained.items()} == {
        "o/apart/seed0/sawyer": 30, "o/apart/seed0/pusht": 60, "o/one/seed0": 90,
    }  # fmt: skip
    sawyer, pusht = trained["o/one/seed0"]["data"]
    assert sawyer == {"path": "o/data/sawyer", "weight": 3}
    assert pusht == {"path": "o/data/pusht", "share": 2, "weight": 4}
    assert trained["o/apart/seed0/pusht"]["data"] == [{"path": "o/data/pusht"}]
    assert asked[2:] == [
        ("o/apart/seed0/sawyer", ["reach", "push"], "o/apart/seed0/sawyer/eval"),
        ("o/apart/seed0/pusht", ["pusht"], "o/apart/seed0/pusht/eval"),
        ("o/one/seed0", ["reach", "push"], "o/one/seed0/eval/sawyer"),
        ("o/one/seed0", ["pusht"], "o/one/seed0/eval/pusht"),
    ]
    assert list(summary["arms"]["one"]["per_task"]) == ["reach-v3", "push-v3", "pusht-v0"]
    groups = json.loads((tmp_path / "o" / "comparison.json").read_text(encoding="utf-8"))["groups"]
    assert groups["pusht"]["arms"]["one"]["against"]["difference"] == 1
    assert "| one | 100 [" in (tmp_path / "o" / "comparison.md").read_text(encoding="utf-8").split("| sawyer [95 %]")[1]
    comparison.compare(write(tmp_path, ROBOTS), [])
    assert len(asked) == 8  # the stores are looked at again, and nothing else


def test_a_robot_alone_may_have_settings_of_its_own(tmp_path):
    own = "alone: {steps: 90, batch_size: 4}, tasks: [pusht],"
    text = ROBOTS.replace("tasks: [pusht],", own).replace("one: {", "one: {besides: [{path: old, share: 2}], ")
    plan = arms.load(write(tmp_path, text), [])
    trained = {run.name: runs.settings_of(plan, run)[0] for arm in plan.arms for run in runs.runs_of(plan, arm, 0)}
    told = {name: (train["steps"], train.get("batch_size")) for name, train in trained.items() if train}
    assert trained["one/seed0"]["data"][-1] == {"path": "old", "share": 2}  # type: ignore[index]
    assert told == {"apart/seed0/sawyer": (30, None), "apart/seed0/pusht": (90, 4), "one/seed0": (90, None)}


def test_a_robot_at_two_rates_is_two_of_one_store(tmp_path, monkeypatch):
    text = ROBOTS.replace("robots: {", "robots: {slow: {tasks: [push], reads: sawyer, every: 2}, ")
    plan = arms.load(write(tmp_path, text), [])
    assert [store["out"] for store in plan.stores()] == ["o/data/sawyer", "o/data/pusht"]
    [run] = runs.runs_of(plan, "one", 0)
    train, evaluations = runs.settings_of(plan, run)
    assert train is not None
    assert [(d["path"], d.get("every")) for d in train["data"][:2]] == [("o/data/sawyer", 2), ("o/data/sawyer", None)]
    assert [e.get("every") for e in evaluations] == [2, None, None]
    monkeypatch.chdir(tmp_path)
    for evaluation in evaluations:
        leave_results(evaluation, [True])
    (plan.folder / run.name / "done.json").write_text("{}", encoding="utf-8")
    summary = comparison._write(plan)
    rates = ["push-v3 (every 2)", "reach-v3", "push-v3", "pusht-v0"]
    assert list(summary["arms"]["one"]["per_task"]) == rates


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: c", "name: c\ntasks: [reach]"), "`robots:` says what tasks and data are"),
        (("robots: {", "tasks: [reach]\ncurves: {} #"), "arm 'apart' says `alone`, and there are no"),
        (
            ("data: {sawyer:", "data: {panda:"),
            "robot whose data arm 'one' changes: 'panda'; choose one of: pusht, sawy",
        ),
        (("tasks: [pusht],", "tasks: [pusht], every: 0,"), "every of robot 'pusht' must be at least 1, got 0"),
        (("tasks: [pusht],", "tasks: [pusht], reads: pusht,"), "'pusht' reads: 'pusht'; choose one of: sawyer"),
    ],
)
def test_robots_and_arms_must_fit(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        arms.load(write(tmp_path, ROBOTS.replace(*change)), [])


@pytest.mark.parametrize("name", sorted(p.stem for p in files("foreact.configs").joinpath("compare").iterdir()))
def test_foreacts_own_compose(name):
    plan = arms.load(name, [])
    for arm_name in plan.arms:
        for run in runs.runs_of(plan, arm_name, plan.seeds[0]):
            train, evaluations = runs.settings_of(plan, run)
            assert {e.get("seed") for e in evaluations} == {2000}, (
                "settings are chosen on other seeds than are reported"
            )
            assert config_of("eval", as_overrides(evaluations[0]))["seed"] == 2000
            if train is not None:
                assert "data" in str(config_of("train", as_overrides(train))["data"])
