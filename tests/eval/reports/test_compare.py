import json
from importlib.resources import files

import numpy as np
import pytest
from foreact import arms, comparison, envs
from foreact.commands import as_overrides, config_of
from foreact.envs.errors import UserError
from foreact.eval.reports.compare import Arm, summarise, table, together, write_comparison
from foreact.eval.reports.paired import Outcomes, Spread, interval


def arm(name: str, rates: dict[int, dict[str, list[int]]], first: int = 1000) -> Arm:
    runs = {
        seed: {t: [{"seed": first + i, "success": bool(x)} for i, x in enumerate(xs)] for t, xs in tasks.items()}
        for seed, tasks in rates.items()
    }
    return Arm(name, runs, dict.fromkeys(rates, 15.0))


def draws(p: float, n: int, seed: int, hard: np.ndarray | None = None) -> list[int]:
    rng = np.random.default_rng(seed)
    return ((rng.random(n) if hard is None else hard) < p).astype(int).tolist()


def against(*arms: Arm) -> dict:
    """The last arm's difference to the first."""
    return summarise(arms, arms[0].name)["arms"][arms[-1].name]["against"]


def test_pairing_narrows_the_interval():
    """Two arms that fail on the same hard episodes differ little, whatever the episodes are."""
    hard = np.random.default_rng(0).random(200)
    a, b = (arm(name, {0: {"t": draws(p, 200, 0, hard)}}) for name, p in (("a", 0.6), ("b", 0.5)))
    apart = arm("b", {0: {"t": draws(0.5, 200, 9)}})
    paired, loose = against(b, a), against(apart, a)
    width = [found["ci95"][1] - found["ci95"][0] for found in (paired, loose)]
    assert width[0] < 0.6 * width[1]
    assert paired["ci95"][0] > 0


def test_the_difference_is_over_seeds_tasks_and_episodes():
    a = arm("a", {0: {"t": [1, 1, 1, 1], "u": [1, 0]}, 1: {"t": [1, 1, 0, 0], "u": [0, 0]}})
    b = arm("b", {0: {"t": [1, 1, 0, 0], "u": [0, 0]}, 1: {"t": [0, 0, 0, 0], "u": [0, 0]}})
    assert against(b, a)["difference"] == pytest.approx(((0.5 + 0.5) / 2 + (0.5 + 0) / 2) / 2)


def test_agreement_is_not_certainty():
    a, b = (arm(name, {0: {"t": [1, 0] * 30}}) for name in "ab")
    low, high = against(a, b)["ci95"]
    assert (low, high) == pytest.approx((-3 / 60, 3 / 60), rel=0.05)


def test_one_failure_is_not_worse_than_the_rule_of_three_and_students_t():
    sure, one = (arm("a", {s: {"t": [1] * 59 + [x if s else 1]} for s in (0, 1)}) for x in (1, 0))
    assert summarise([sure], "a")["arms"]["a"]["ci95"] == pytest.approx([0.95, 1])
    low, high = summarise([one], "a")["arms"]["a"]["ci95"]
    assert 0.8 < low < 0.95
    assert high == 1


def test_arms_together_are_one_with_all_their_networks():
    base = arm("base", {0: {"t": [0, 1] * 20}, 1: {"t": [0, 1] * 20}})
    few, more = (
        arm(n, {s: {"t": draws(p, 40, 10 * i + s)} for s in (0, 1)})
        for i, (n, p) in enumerate((("a", 0.6), ("b", 0.8)))
    )
    rows = summarise([base, few, more], "base", [together("both", [few, more])])["arms"]
    both = rows["both (2 arms)"]
    assert both["success"] == pytest.approx((rows["a"]["success"] + rows["b"]["success"]) / 2)
    assert len(both["per_seed"]) == 4
    alone = summarise([base, few, more], "base")
    assert alone["arms"]["a"] == rows["a"]  # it does not change the others
    widths = [row["against"]["ci95"][1] - row["against"]["ci95"][0] for row in (both, rows["a"])]
    assert widths[0] < widths[1]


def test_what_all_arms_tell_of_training_seeds_widens_each():
    """An arm of one network, and one whose two networks happen to agree, are no surer than the others."""
    one = arm("one", {0: {"t": draws(0.8, 100, 1)}})
    calm = arm("calm", {s: {"t": draws(0.8, 100, 1)} for s in (0, 1)})
    wild = arm("wild", {s: {"t": draws(p, 100, s)} for s, p in enumerate((0.7, 0.9))})
    alone, beside = (summarise(arms, "one")["arms"]["one"]["ci95"] for arms in ([one], [one, calm, wild]))
    assert beside[1] - beside[0] > 2 * (alone[1] - alone[0])
    rows = summarise([one, calm, wild], "one")["arms"]
    assert np.ptp(rows["calm"]["ci95"]) < np.ptp(rows["one"]["ci95"])


@pytest.mark.parametrize("apart", [0.0, 0.1])
def test_coverage_of_the_interval(apart):
    """Of recipes whose networks lie `apart`, on episodes of very unequal difficulty, two networks an arm."""
    rng, hits, naive = np.random.default_rng(0), 0, 0
    for _ in range(400):
        ease = rng.normal(0, 0.3, 60)
        runs = np.clip(0.6 + rng.normal(0, apart, (5, 2, 1)) + ease, 0, 1)  # arms, networks, episodes
        success = (rng.random(runs.shape) < runs).astype(float)
        arms = [Outcomes(values, np.repeat(["t", "u"], 30)) for values in success]
        mean = arms[0].success.mean(0) - arms[1].success.mean(0)
        low, high = interval(mean, arms[0].task, 1.0, Spread.of(arms))
        hits += low <= 0 <= high
        low, high = interval(mean, arms[0].task, 1.0, Spread(0.0, 0.0, 0))
        naive += low <= 0 <= high
    assert hits / 400 > 0.93
    assert apart == 0 or naive / 400 < 0.85  # episodes alone are not enough


def test_other_evaluation_seeds_are_an_error():
    a, b = arm("a", {0: {"t": [1]}}), arm("b", {0: {"t": [1]}}, first=2000)
    with pytest.raises(UserError, match="arms 'a' and 'b' were evaluated on other tasks or seeds"):
        summarise([a, b], "a")


def test_table_and_files(tmp_path):
    base = arm("action", {0: {"t": [1, 0], "u": [0, 0]}})
    best = arm("joint", {0: {"t": [1, 1], "u": [1, 0]}, 1: {"t": [1, 1], "u": [1, 1]}})
    waiting = Arm("pad", {}, {})
    summary = write_comparison(tmp_path, [base, best, waiting], "action")
    assert summary["arms"]["joint"]["against"]["difference"] == pytest.approx(0.625)
    text = (tmp_path / "comparison.md").read_text()
    assert text == table(summarise([base, best, waiting], "action"))
    assert "| joint | 88 [" in text
    assert "+62 [" in text
    assert "standard deviation between training seeds, 1 degrees" in text
    assert "pad" not in text
    assert (tmp_path / "comparison.png").stat().st_size > 5000
    assert json.loads((tmp_path / "comparison.json").read_text())["baseline"] == "action"


def settings(plan: arms.Comparison, name: str) -> arms.Settings:
    """Those of an arm with one run."""
    [run] = arms.runs_of(plan, name, 0)
    return arms.settings_of(plan, run)


class TestPlan:
    def write(self, tmp_path, text: str):
        (tmp_path / "c.yaml").write_text(text)
        return str(tmp_path / "c.yaml")

    BASE = (
        "name: c\nbaseline: a\ntasks: [reach-v3]\nout: OUT\narms: {a: {model: action/tiny}, b: {model: joint/tiny}}\n"
    )

    def test_runs_what_is_missing_and_nothing_twice(self, tmp_path, monkeypatch):
        done = []

        def train(config):
            done.append(("train", config["out"], config["seed"], config["model"]["name"]))

        def evaluate(config):
            done.append(("eval", config["checkpoint"]))
            rows = {t: {"episodes": [{"seed": 1000 + i, "success": True} for i in range(3)]} for t in config["tasks"]}
            folder = tmp_path / config["out"]
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({"per_task": rows}))

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(comparison.commands, "train", train)
        monkeypatch.setattr(comparison.commands, "evaluate", evaluate)
        path = self.write(tmp_path, self.BASE.replace("OUT", "o"))
        summary = comparison.compare(path, ["seeds=[0]"])
        assert [d[0] for d in done] == ["train", "eval"] * 2
        assert [d[1] for d in done if d[0] == "train"] == ["o/a/seed0", "o/b/seed0"]
        assert summary["arms"]["b"]["success"] == 1
        summary = comparison.compare(path, ["seeds=[0,1]", "only=[b]"])
        assert [d[1] for d in done[4:]] == ["o/b/seed1"] * 2
        assert [len(arm["per_seed"]) for arm in summary["arms"].values()] == [1, 2]

    def test_an_arm_can_take_the_tokenizer_of_the_comparison(self, tmp_path):
        tokenizer = "data: {episodes: [0, 5]}\nbefore: {tokenizer: {model: tokenizer/kl, steps: 3}}\n"
        path = self.write(tmp_path, self.BASE.replace("joint/tiny", "pad/small, tokenizer: true") + tokenizer)
        plan = arms.load(path, [])
        first, second = (settings(plan, name)[0] for name in ("a", "b"))
        assert first is not None
        assert second is not None
        assert "tokenizer" not in first
        assert second["tokenizer"] == plan.run_before("tokenizer") == "OUT/data.tokenizer"
        with pytest.raises(UserError, match=r"arm 'b' takes its tokenizer, and `before:` has none"):
            arms.load(self.write(tmp_path, self.BASE.replace("joint/tiny", "pad/small, tokenizer: true")), [])

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
    def test_mistakes_are_found_before_anything_runs(self, tmp_path, change, message):
        with pytest.raises(UserError, match=message):
            comparison.compare(self.write(tmp_path, self.BASE.replace("OUT", str(tmp_path)).replace(*change)), [])

    def test_an_unknown_name_lists_the_known(self):
        with pytest.raises(UserError, match=r"unknown comparison .* choose one of: .*joint"):
            arms.load("jiont", [])

    def test_arms_of_one_checkpoint_are_evaluated_alone_and_drawn(self, tmp_path, monkeypatch):
        asked = []

        def evaluate(config):
            asked.append((config["checkpoint"], config["solver_steps"], config["episodes"]))
            good = [True, config["solver_steps"] != 1, True]
            rows = {
                t: {"episodes": [{"seed": 1000 + i, "success": x} for i, x in enumerate(good)]} for t in config["tasks"]
            }
            folder = tmp_path / config["out"]
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({"per_task": rows}))

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(comparison.commands, "train", lambda config: pytest.fail("nothing is to be trained"))
        monkeypatch.setattr(comparison.commands, "evaluate", evaluate)
        text = (
            "name: c\nbaseline: a\ntasks: [reach-v3]\nout: o\ncheckpoint: runs/x\nseeds: [0, 1]\neval: {episodes: 3}\n"
            "arms: {a: {checkpoint: true}, b: {checkpoint: true, eval: {solver_steps: 1}}}\n"
            "curves: {solver steps: {1: b, 10: a}}\n"
        )
        path = self.write(tmp_path, text)
        summary = comparison.compare(path, [])
        assert asked == [("runs/x", None, 3), ("runs/x", 1, 3)]  # once, whatever the training seeds
        assert summary["arms"]["b"]["against"]["difference"] == pytest.approx(-1 / 3)
        assert (tmp_path / "o" / "curves.png").stat().st_size > 5000
        comparison.compare(path, [])
        assert len(asked) == 2
        with pytest.raises(UserError, match="arm 'a' evaluates one checkpoint= of all tasks; say which"):
            arms.load(self.write(tmp_path, text.replace("checkpoint: runs/x\n", "")), [])

    def test_a_comparison_of_an_experiment_takes_its_settings(self, monkeypatch):
        monkeypatch.setenv("FOREACT_HOME", "home")
        plan = arms.load("metaworld10", ["eval.video=0"])
        shared = config_of("run", ["experiment=metaworld10"])["train"]
        train, [evaluate] = settings(plan, "demonstrations-10")
        assert train == {**shared, "data": [{"path": "home/metaworld10/data", "episodes": [0, 10]}], "seed": 0,
                         "out": "home/compare-metaworld10/demonstrations-10/seed0"}  # fmt: skip
        assert (evaluate["video"], len(evaluate["tasks"])) == (0, 10)
        train, [evaluate] = settings(plan, "execute-1")
        assert train is None
        assert (evaluate["checkpoint"], evaluate["n_action_steps"]) == ("home/metaworld10", 1)
        for evaluations in (settings(plan, name)[1] for name in plan.arms):
            config_of("eval", as_overrides(evaluations[0]))

    ROBOTS = (
        "name: c\nbaseline: apart\nout: o\ntrain: {steps: 90}\ncollect: {episodes: 3}\n"
        "robots: {sawyer: {tasks: [reach, push]}, pusht: {tasks: [pusht], collect: {noise: 0}, data: {share: 2}}}\n"
        "arms: {apart: {alone: true}, one: {model.masked: false}}\n"
    )

    def test_several_robots_learn_alone_for_their_share_or_together(self, tmp_path, monkeypatch):
        asked = []

        def evaluate(config):
            asked.append((config["checkpoint"], config["tasks"], config["out"]))
            names = [task.removesuffix("-v3") for task in config["tasks"]]
            assert len(names) == (1 if "pusht" in config["out"] else 2)
            rows = {
                envs.task(t).name: {"episodes": [{"seed": 1000 + i, "success": "one" in config["out"]} for i in (0, 1)]}
                for t in names
            }
            folder = tmp_path / config["out"]
            folder.mkdir(parents=True)
            (folder / "results.json").write_text(json.dumps({"per_task": rows}))

        trained = {}
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(comparison.commands, "collect", lambda config: asked.append(config["out"]))
        monkeypatch.setattr(comparison.commands, "train", lambda config: trained.update({config["out"]: config}))
        monkeypatch.setattr(comparison.commands, "evaluate", evaluate)
        summary = comparison.compare(self.write(tmp_path, self.ROBOTS), [])
        assert asked[:2] == ["o/data/sawyer", "o/data/pusht"]
        assert {out: config["steps"] for out, config in trained.items()} == {
            "o/apart/seed0/sawyer": 30, "o/apart/seed0/pusht": 60, "o/one/seed0": 90,
        }  # fmt: skip
        assert trained["o/one/seed0"]["data"] == [{"path": "o/data/sawyer"}, {"path": "o/data/pusht", "share": 2}]
        assert trained["o/apart/seed0/pusht"]["data"] == [{"path": "o/data/pusht", "share": 2}]
        assert asked[2:] == [
            ("o/apart/seed0/sawyer", ["reach", "push"], "o/apart/seed0/sawyer/eval"),
            ("o/apart/seed0/pusht", ["pusht"], "o/apart/seed0/pusht/eval"),
            ("o/one/seed0", ["reach", "push"], "o/one/seed0/eval/sawyer"),
            ("o/one/seed0", ["pusht"], "o/one/seed0/eval/pusht"),
        ]
        assert list(summary["arms"]["one"]["per_task"]) == ["reach-v3", "push-v3", "pusht-v0"]
        groups = json.loads((tmp_path / "o" / "comparison.json").read_text())["groups"]
        assert groups["pusht"]["arms"]["one"]["against"]["difference"] == 1
        assert "| one | 100 [" in (tmp_path / "o" / "comparison.md").read_text().split("| sawyer [95 %]")[1]
        comparison.compare(self.write(tmp_path, self.ROBOTS), [])
        assert len(asked) == 8  # the stores are looked at again, and nothing else

    def test_a_robot_at_two_rates_is_two_of_one_store(self, tmp_path, monkeypatch):
        text = self.ROBOTS.replace("robots: {", "robots: {slow: {tasks: [push], reads: sawyer, every: 2}, ")
        plan = arms.load(self.write(tmp_path, text), [])
        assert [store["out"] for store in plan.stores()] == ["o/data/sawyer", "o/data/pusht"]
        [run] = arms.runs_of(plan, "one", 0)
        train, evaluations = arms.settings_of(plan, run)
        assert train is not None
        assert train["data"][:2] == [{"path": "o/data/sawyer", "every": 2}, {"path": "o/data/sawyer"}]
        assert [e.get("every") for e in evaluations] == [2, None, None]
        monkeypatch.chdir(tmp_path)
        for evaluation in evaluations:
            rows = {envs.task(t).name: {"episodes": [{"seed": 1000, "success": True}]} for t in evaluation["tasks"]}
            folder = tmp_path / evaluation["out"]
            folder.mkdir(parents=True)
            settings = {k: v for k, v in evaluation.items() if k == "every"}
            (folder / "results.json").write_text(json.dumps({"per_task": rows, "settings": settings}))
        (plan.folder / run.name / "done.json").write_text("{}")
        summary = comparison._write(plan)
        rates = ["push-v3 (every 2)", "reach-v3", "push-v3", "pusht-v0"]
        assert list(summary["arms"]["one"]["per_task"]) == rates

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("name: c", "name: c\ntasks: [reach]"), "`robots:` says what tasks and data are"),
            (("robots: {", "tasks: [reach]\ncurves: {} #"), "arm 'apart' has each robot alone, and there are no"),
            (("tasks: [pusht],", "tasks: [pusht], every: 0,"), "every of robot 'pusht' must be at least 1, got 0"),
            (("tasks: [pusht],", "tasks: [pusht], reads: pusht,"), "'pusht' reads: 'pusht'; choose one of: sawyer"),
        ],
    )
    def test_robots_and_arms_must_fit(self, tmp_path, change, message):
        with pytest.raises(UserError, match=message):
            arms.load(self.write(tmp_path, self.ROBOTS.replace(*change)), [])

    @pytest.mark.parametrize("name", sorted(p.stem for p in files("foreact.configs").joinpath("compare").iterdir()))
    def test_foreacts_own_compose(self, name):
        plan = arms.load(name, [])
        for arm_name in plan.arms:
            for run in arms.runs_of(plan, arm_name, plan.seeds[0]):
                train, evaluations = arms.settings_of(plan, run)
                assert all(config_of("eval", as_overrides(e))["seed"] == 1000 for e in evaluations)
                if train is not None:
                    assert "data" in str(config_of("train", as_overrides(train))["data"])
