"""What the benchmarks share: runs in turns, a table against the named baseline, and a plot of how cost grows."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ...data.whole import whole
from ...policy.device import describe_machine

console = Console()
Times = Mapping[str, Sequence[float]]
"""Milliseconds of each call, by the name of what was called."""
_WARM_UP = 2


def alternating(runs: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Call each in turns, so that what slows the machine slows all; two calls of each before that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + _WARM_UP):
        for name, run in runs.items():
            ms = milliseconds(run, device)
            if i >= _WARM_UP:
                times[name].append(ms)
    return times


def milliseconds(run: Callable[[], Any], device: str = "cpu") -> float:
    """Wall time of one call, to the end of its work on a GPU."""
    began = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def median(times: Times) -> dict[str, float]:
    """The median of each arm."""
    return {name: float(np.median(values)) for name, values in times.items()}


def show(title: str, times: Times, baseline: str, columns: Mapping[str, Mapping[str, str]], unit: str = "ms") -> None:
    """Print a table: median, the middle half of the calls, how much faster than the baseline, and more columns.

    columns: heading → name → what stands there.
    """
    table = Table("", unit, "middle half", "speed", *columns, title=title, caption=f"speed: {baseline} = 1")
    middle = median(times)
    for name, values in times.items():
        low, high = np.percentile(values, [25, 75])
        more = [column.get(name, "") for column in columns.values()]
        ratio = f"{middle[baseline] / middle[name]:.2f}"
        table.add_row(name, f"{middle[name]:.3g}", f"{low:.3g} to {high:.3g}", ratio, *more)
    console.print(table)


Curves = dict[str, dict[float, Sequence[float]]]
"""Curve → where it is measured → milliseconds of each call."""


def draw_growth(path: Path, panels: Mapping[str, Curves], y: str = "ms") -> None:
    """A PNG: how cost grows, the median and the middle half of the calls. panels: what grows → its curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(panels), 3.6), layout="constrained")
    for axes, (x, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, points in curves.items():
            at = sorted(points)
            low, middle, high = np.percentile([points[a] for a in at], [25, 50, 75], axis=1)
            axes.plot(at, middle, marker="o", ms=3, lw=1.2, label=name)
            axes.fill_between(at, low, high, alpha=0.2)
        times = [t for points in curves.values() for each in points.values() for t in each]
        if max(times) > 30 * min(times):
            axes.set_yscale("log")  # else the lower curve lies on the axis
        else:
            axes.set_ylim(0, None)
        axes.set(xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as draft:
        figure.savefig(draft, format="png", dpi=110)
    console.print(f"Plot: {path}")


def machine(device: str) -> str:
    """The line about the machine that belongs to every measured number."""
    return f"{device}: " + ", ".join(f"{k} {v}" for k, v in describe_machine().items())
