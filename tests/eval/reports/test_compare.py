import json

import numpy as np
import pytest
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
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert text == table(summarise([base, best, waiting], "action"))
    assert "| joint | 88 [" in text
    assert "+62 [" in text
    assert "standard deviation between training seeds, 1 degrees" in text
    assert "pad" not in text
    assert (tmp_path / "comparison.png").stat().st_size > 5000
    assert json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))["baseline"] == "action"
