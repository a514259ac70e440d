"""Plots of a comparison: success of its arms, differences to the baseline, and success over what varies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.whole import whole


def draw_curves(summary: Mapping[str, Any], curves: Mapping[str, Mapping[float, str]], path: Path) -> None:
    """Success with its interval over what varies, a panel for each; of arms that have run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 3.2), layout="constrained")
    for axes, (what, arms) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        rows = {value: summary["arms"][arm] for value, arm in sorted(arms.items()) if arm in summary["arms"]}
        rates = [100 * row["success"] for row in rows.values()]
        for value, row in rows.items():
            axes.plot([value, value], [100 * x for x in row["ci95"]], color="#9ecae1", lw=2)
        axes.plot(list(rows), rates, "o-", color="#08519c")
        axes.set(xlabel=what, ylabel="success [%]", ylim=(0, 100), xscale="log", xticks=sorted(arms))
        axes.set_xticklabels([f"{value:g}" for value in sorted(arms)])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    with whole(path) as draft:
        figure.savefig(draft, format="png", dpi=110)


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
        if row["against"]:
            low, high = row["against"]["ci95"]
            right.plot([100 * low, 100 * high], [y, y], color="#08519c", lw=2)
            right.plot(100 * row["against"]["difference"], y, "o", color="#08519c")
    right.axvline(0, color="#636363", lw=1)
    left.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 100), xlabel="success [%], points: tasks")
    right.set(xlabel=f"against {summary['baseline']}, paired [points]")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    with whole(path) as draft:
        figure.savefig(draft, format="png", dpi=110)
