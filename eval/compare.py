"""Arms compared on identical evaluation seeds: paired intervals over training seeds and episodes, table and plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..envs.errors import UserError
from .journal import write_json
from .metrics import bootstrap, task_weights, weighted_mean

Episodes = dict[str, list[dict[str, Any]]]  # task → its episodes, as results.json holds them
MINUTES = "minutes.json"
"""File of a run that holds the minutes its training took."""


@dataclass(frozen=True)
class Arm:
    """One arm: the evaluated episodes of each training seed, and the minutes that its training took, where known."""

    name: str
    runs: dict[int, Episodes]
    minutes: dict[int, float]

    def outcomes(self, seed: int) -> dict[str, np.ndarray]:
        """Task → success of each episode, in the order of evaluation seeds."""
        return {task: np.array([float(e["success"]) for e in rows]) for task, rows in self.runs[seed].items()}


def difference(a: Arm, b: Arm, *, draws: int = 4000, level: float = 0.95) -> dict[str, Any]:
    """Success of arm a less that of arm b, over the training seeds that both have, with a paired bootstrap interval.

    Each draw resamples training seeds, and within each and every task the episodes; both arms take the same ones, so
    what makes an episode hard for both does not widen the interval. Raises `UserError` on other evaluation seeds.
    """
    seeds = sorted(a.runs.keys() & b.runs.keys())
    if not seeds:
        return {"difference": None, "ci95": None, "seeds": 0}
    rng = np.random.default_rng(0)
    deltas = [_paired(a, b, seed) for seed in seeds]  # one array for each task
    mean = float(np.mean([np.mean([d.mean() for d in tasks]) for tasks in deltas]))
    found = np.empty(draws)
    for i in range(draws):
        chosen = [deltas[k] for k in rng.integers(len(deltas), size=len(deltas))]
        found[i] = np.mean([np.mean([d[rng.integers(len(d), size=len(d))].mean() for d in tasks]) for tasks in chosen])
    low, high = np.percentile(found, [50 * (1 - level), 50 * (1 + level)])
    return {"difference": mean, "ci95": [float(low), float(high)], "seeds": len(seeds)}


def _paired(a: Arm, b: Arm, seed: int) -> list[np.ndarray]:
    def seeds_of(arm: Arm) -> dict[str, list[int]]:
        return {task: [e["seed"] for e in rows] for task, rows in arm.runs[seed].items()}

    if seeds_of(a) != seeds_of(b):
        raise UserError(
            f"arms {a.name!r} and {b.name!r} were evaluated on other tasks or seeds (training seed {seed}): "
            "give both the same eval settings and run the comparison again"
        )
    x, y = a.outcomes(seed), b.outcomes(seed)
    return [x[task] - y[task] for task in x]


def summarise(arms: Sequence[Arm], baseline: str) -> dict[str, Any]:
    """One row for each arm: success over its training seeds with its interval, by task, and against the baseline."""
    base = next(arm for arm in arms if arm.name == baseline)
    rows = {}
    for arm in arms:
        if not arm.runs:
            continue
        outcomes = [arm.outcomes(seed) for seed in sorted(arm.runs)]
        weights = task_weights(list(outcomes[0]))
        rows[arm.name] = {
            "success": float(np.mean([weighted_mean(o, weights) for o in outcomes])),
            "ci95": list(bootstrap(outcomes, weights)),
            "per_task": {task: float(np.mean([o[task].mean() for o in outcomes])) for task in weights},
            "per_seed": {seed: weighted_mean(arm.outcomes(seed), weights) for seed in sorted(arm.runs)},
            "episodes": sum(len(o[task]) for o in outcomes for task in weights),
            "minutes": float(np.mean(list(arm.minutes.values()))) if arm.minutes else None,
            "against": None if arm is base else difference(arm, base),
        }
    return {"baseline": baseline, "arms": rows}


def table(summary: Mapping[str, Any]) -> str:
    """The comparison as a Markdown table, in percent."""
    rows = summary["arms"]
    tasks = list(next(iter(rows.values()))["per_task"]) if rows else []
    head = ["arm", "success [95 %]", f"against {summary['baseline']} [95 %]", *tasks, "training seeds", "minutes a run"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in rows.items():
        against = row["against"]
        lines.append(
            "| "
            + " | ".join(
                [
                    name,
                    _interval(row["success"], row["ci95"]),
                    "" if against is None else _interval(against["difference"], against["ci95"], sign=True),
                    *(f"{100 * row['per_task'][task]:.0f}" for task in tasks),
                    ", ".join(f"{100 * value:.0f}" for value in row["per_seed"].values()),
                    "" if row["minutes"] is None else f"{row['minutes']:.0f}",
                ]
            )
            + " |"
        )
    return "\n".join(lines) + "\n"


def _interval(value: float | None, ci95: Sequence[float] | None, *, sign: bool = False) -> str:
    if value is None or ci95 is None:
        return "no training seed in common"
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.0f} [{100 * ci95[0]:{plus}.0f}, {100 * ci95[1]:{plus}.0f}]"


def write_comparison(folder: Path, arms: Sequence[Arm], baseline: str) -> dict[str, Any]:
    """Write comparison.json, comparison.md and comparison.png into the folder; returns the summary."""
    summary = summarise(arms, baseline)
    write_json(folder / "comparison.json", summary)
    (folder / "comparison.md").write_text(table(summary))
    draw(summary, folder / "comparison.png")
    return summary


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Bars of success with their intervals, every task as a point; beside them the differences to the baseline."""
    from matplotlib.figure import Figure

    rows = summary["arms"]
    names = list(rows)[::-1]
    figure = Figure(figsize=(10, 1.2 + 0.4 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for y, name in enumerate(names):
        row = rows[name]
        low, high = row["ci95"]
        left.barh(y, 100 * row["success"], color="#9ecae1", height=0.6)
        left.plot([100 * low, 100 * high], [y, y], color="#08519c", lw=2)
        for task, value in row["per_task"].items():
            left.plot(100 * value, y, ".", color="#636363", ms=4, label=task)
        if row["against"] and row["against"]["ci95"]:
            low, high = row["against"]["ci95"]
            right.plot([100 * low, 100 * high], [y, y], color="#08519c", lw=2)
            right.plot(100 * row["against"]["difference"], y, "o", color="#08519c")
    right.axvline(0, color="#636363", lw=1)
    left.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 100), xlabel="success [%], points: tasks")
    right.set(xlabel=f"against {summary['baseline']}, paired [points]")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)


def read_arm(name: str, folders: Mapping[int, Sequence[Path]]) -> Arm:
    """The arm of these run folders by training seed; a seed counts when all of its runs are evaluated."""
    runs, minutes = {}, {}
    for seed, parts in folders.items():
        files = [part / "eval" / "results.json" for part in parts]
        if all(file.is_file() for file in files):
            tables = [json.loads(file.read_text())["per_task"] for file in files]
            runs[seed] = {task: row["episodes"] for rows in tables for task, row in rows.items()}
            took = [part / MINUTES for part in parts]
            if all(file.is_file() for file in took):
                minutes[seed] = sum(json.loads(file.read_text()) for file in took)
    return Arm(name, runs, minutes)
