import itertools

import numpy as np
import pytest
from foreact.eval.reports.metrics import (
    bootstrap,
    group_weights,
    percentiles,
    summarise,
    task_weights,
    weighted_mean,
    wilson,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def test_wilson_known_values():
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(18, 20) == pytest.approx((0.69897, 0.97213), abs=1e-4)
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


@given(n=st.integers(1, 500), data=st.data())
@settings(deadline=None)
def test_wilson_solves_its_equation_and_is_symmetric(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low))
    for edge in (low, high):  # |rate − p| = z √(p (1 − p) / n)
        assert abs(k / n - edge) == pytest.approx(1.959964 * np.sqrt(edge * (1 - edge) / n), abs=1e-6)


def test_means_differ_as_in_the_literature():
    outcomes = {"a": np.ones(10), "b": np.ones(10), "c": np.ones(10), "d": np.zeros(10)}
    groups = {"a": "easy", "b": "easy", "c": "easy", "d": "hard"}
    assert weighted_mean(outcomes, task_weights(list(outcomes))) == pytest.approx(0.75)
    assert weighted_mean(outcomes, group_weights(list(outcomes), groups)) == pytest.approx(0.5)


def test_bootstrap_agrees_with_enumeration():
    # Two tasks of three episodes: all 27 × 27 resamples by hand.
    a, b = np.array([1, 0, 0]), np.array([1, 1, 0])
    values = [
        (a[list(i)].mean() + b[list(j)].mean()) / 2
        for i in itertools.product(range(3), repeat=3)
        for j in itertools.product(range(3), repeat=3)
    ]
    low, high = bootstrap({"a": a, "b": b}, task_weights(["a", "b"]), draws=20000)
    assert (low, high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-9)


def test_equal_outcomes_do_not_claim_certainty():
    assert bootstrap({"a": np.ones(10), "b": np.ones(10)}, task_weights(["a", "b"])) == wilson(20, 20)
    assert bootstrap({"a": np.r_[np.ones(9), 0]}, {"a": 1.0}) == wilson(9, 10)


def test_bootstrap_covers_the_truth():
    rng = np.random.default_rng(0)
    truth = {"a": 0.2, "b": 0.9, "c": 0.5}
    hits = 0
    for i in range(200):
        outcomes = {t: (rng.random(30) < p).astype(float) for t, p in truth.items()}
        low, high = bootstrap(outcomes, task_weights(list(truth)), draws=500, seed=i)
        hits += low <= np.mean(list(truth.values())) <= high
    assert hits / 200 > 0.88


def records(task, outcomes):
    return [
        {"task": task, "episode": i, "seed": 1000 + i, "length": 10, "success": bool(s)} for i, s in enumerate(outcomes)
    ]


def test_summarise_has_the_promised_keys_and_ignores_order():
    rows = records("push", [1, 0]) + records("reach", [1, 1]) + records("assembly", [0, 0])
    groups = {"push": "hard", "reach": "easy", "assembly": "hard"}
    result = summarise(rows, groups)
    assert result == summarise(rows[::-1], groups)
    assert list(result["per_task"]) == ["assembly", "push", "reach"]
    assert result["per_task"]["push"]["success"] == 0.5
    assert result["per_task"]["push"]["episodes"][1] == {
        "episode": 1,
        "seed": 1001,
        "length": 10,
        "success": False,
    }
    assert result["task_mean"] == pytest.approx(0.5)
    assert result["group_mean"] == pytest.approx((0.25 + 1.0) / 2)
    assert result["groups"]["hard"]["tasks"] == 2
    assert result["groups"]["hard"]["n"] == 4
    low, high = result["groups"]["hard"]["ci95"]
    assert low <= 0.25 <= high


def test_summarise_without_groups_or_episodes():
    assert summarise(records("push", [1, 0]), {})["groups"]["all"]["success"] == 0.5
    empty = summarise([], {})
    assert empty["task_mean"] is empty["group_mean"] is None
    assert empty["per_task"] == empty["groups"] == {}
    assert empty["task_mean_ci95"] == [0.0, 1.0]


def test_percentiles():
    assert percentiles([]) == {"p50": None, "p95": None}
    assert percentiles(list(range(101))) == {"p50": 50.0, "p95": 95.0}
