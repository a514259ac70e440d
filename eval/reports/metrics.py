"""Success rates with honest intervals: Wilson for one task, a bootstrap for means over tasks and groups."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

Outcomes = Mapping[str, np.ndarray]  # task → (n,) success of each episode, 0 or 1
EPISODE_KEYS = ("episode", "seed", "length", "success", "reward", "actions")


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate (Wilson 1927); (0, 1) where there are no episodes."""
    if n == 0:
        return 0.0, 1.0
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} episodes")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # The exact edges are 0 and 1; rounding would leave 1e-17 beside them.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def task_weights(tasks: Sequence[str]) -> dict[str, float]:
    """The weight of each task's success rate in the task mean: all the same, whatever the episodes."""
    return {task: 1 / len(tasks) for task in tasks}


def group_weights(tasks: Sequence[str], groups: Mapping[str, str]) -> dict[str, float]:
    """The weight of each task's success rate in the mean of group means (the literature's Metaworld average).

    groups: task → group. With 28, 11, 6 and 5 tasks in the groups the two means differ by 10 points and more,
    so results print both.
    """
    sizes = Counter(groups[task] for task in tasks)
    return {task: 1 / (len(sizes) * sizes[groups[task]]) for task in tasks}


def weighted_mean(outcomes: Outcomes, weights: Mapping[str, float]) -> float:
    """Σ over tasks of weight × success rate."""
    return math.fsum(weight * float(np.mean(outcomes[task])) for task, weight in weights.items())


def bootstrap(
    outcomes: Outcomes, weights: Mapping[str, float], *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `weighted_mean`. Each draw resamples the episodes within each task.

    Wilson's interval stands in for a single task, and where all episodes ended alike: there a bootstrap has width 0,
    which claims too much.
    """
    pooled = np.concatenate([np.zeros(0), *(np.asarray(outcomes[task], float) for task in weights)])
    if len(set(pooled)) < 2 or len(weights) == 1:
        return wilson(int(pooled.sum()), len(pooled), level)
    rng = np.random.default_rng(seed)
    # n draws with replacement from 0/1 outcomes sum to a binomial number.
    sizes = np.array([len(outcomes[task]) for task in weights])
    rates = np.array([np.mean(outcomes[task]) for task in weights])
    values = rng.binomial(sizes, rates, (draws, len(sizes))) / sizes @ np.array(list(weights.values()))
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50 and p95, rounded to three digits after the point; None where there are no values."""
    if not len(values):
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def summarise(records: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> dict[str, Any]:
    """The counts of a results file from episode records.

    records: dictionaries with `task` (bare name), `seed`, `length`, `success` and more; their order does not
    matter. groups: bare task name → group; a task without one counts in group 'all'.
    Returns `per_task`, `task_mean`, `groups`, `group_mean` and the 95 % intervals of the two means; without
    any record the means are None.
    """
    episodes: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda r: (r["task"], r.get("episode", 0), r["seed"])):
        episodes.setdefault(record["task"], []).append({k: record[k] for k in EPISODE_KEYS if k in record})
    outcomes = {task: np.array([float(e["success"]) for e in rows]) for task, rows in episodes.items()}
    group_of = {task: groups.get(task) or "all" for task in outcomes}
    by_task, by_group = task_weights(list(outcomes)), group_weights(list(outcomes), group_of)
    mean = (lambda weights: weighted_mean(outcomes, weights)) if outcomes else (lambda weights: None)
    return {
        "per_task": {task: _rate(outcomes[task]) | {"episodes": rows} for task, rows in episodes.items()},
        "task_mean": mean(by_task),
        "task_mean_ci95": list(bootstrap(outcomes, by_task)),
        "groups": {name: _group(outcomes, group_of, name) for name in sorted(set(group_of.values()))},
        "group_mean": mean(by_group),
        "group_mean_ci95": list(bootstrap(outcomes, by_group)),
    }


def _rate(outcomes: np.ndarray) -> dict[str, Any]:
    n = len(outcomes)
    return {"success": float(np.mean(outcomes)), "n": n, "ci95": list(wilson(int(outcomes.sum()), n))}


def _group(outcomes: Outcomes, group_of: Mapping[str, str], name: str) -> dict[str, Any]:
    weights = task_weights([task for task in outcomes if group_of[task] == name])
    return {
        "success": weighted_mean(outcomes, weights),
        "tasks": len(weights),
        "n": sum(len(outcomes[task]) for task in weights),
        "ci95": list(bootstrap(outcomes, weights)),
    }
