"""What latency costs each mode of the control loop: the runs of a sweep on the same seeds, as a table and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ...data.whole import whole
from ...envs.spec import Embodiment
from ..reports.results import percent
from .jerk import peaks

Row = Mapping[str, Any]
ARM: tuple[str, ...] = ("mode", "latency", "jitter")
"""What tells the runs of a sweep apart; the last two in seconds."""
_STYLES = ("-", "--", ":", "-.")
_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#e11d48")


def row_of(run: Mapping[str, Any], folder: Path, embodiment: Embodiment) -> dict[str, Any]:
    """A line of a sweep: success of a run (what its `control.json` holds), the steps in which it rested for want of an
    action, and the peak jerk at the joints of chunks, each in the driven state's unit per s³.
    """
    traces = [dict(np.load(path)) for path in sorted((folder / "traces").glob("*.npz"))]
    steps = sum(len(trace["step"]) for trace in traces)
    found = np.concatenate([np.zeros(0), *(peaks(trace, embodiment, run["hz"]) for trace in traces)])
    return {
        **{name: run["settings"][name] for name in ARM},
        **{name: run[name] for name in ("n", "success", "ci95")},
        "won": [line["success"] for line in run["episodes"]],
        "resting": sum(line["without_action"] for line in run["episodes"]) / max(steps, 1),
        "joints": len(found),
        "peak_jerk": _quantiles(found),
    }


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    return {f"p{q}": float(np.percentile(values, q)) for q in (25, 50, 75, 95, 100)}


def against(row: Row, baseline: Row) -> tuple[int, int]:
    """Episodes that this run won and the baseline lost, and the other way around: they began from the same seeds."""
    pairs = list(zip(row["won"], baseline["won"], strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a line for each run; pairs are against the first mode at the same latency and jitter."""
    first = {(row["latency"], row["jitter"]): row for row in reversed(rows)}
    headings = ("mode", "latency [ms]", "jitter [ms]", "success [95 %]", "won : lost", "resting", "peak jerk, 1/s³")
    table = Table(title="success against latency", caption=f"won : lost, against {rows[0]['mode']} on the same seeds")
    for name in headings:
        table.add_column(name, justify="left" if name == "mode" else "right")
    for row in rows:
        won, lost = against(row, first[row["latency"], row["jitter"]])
        jerk = "–" if row["peak_jerk"] is None else f"{row['peak_jerk']['p50']:.3g}"
        times = (f"{1e3 * row[name]:g}" for name in ("latency", "jitter"))
        rate = percent(row["success"], row["ci95"])
        table.add_row(row["mode"], *times, rate, f"{won} : {lost}", f"{100 * row['resting']:.0f} %", jerk)
    console.print(table)


def draw(rows: Sequence[Row], path: Path) -> None:
    """A PNG: success with Wilson's interval, and the median peak jerk at joints with the middle half of them, over the
    latency that was injected; a colour for each mode, a dash for each jitter.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    modes, jitters = (list(dict.fromkeys(row[name] for row in rows)) for name in ("mode", "jitter"))
    for jitter in jitters:
        for mode in modes:
            line = sorted((r for r in rows if (r["mode"], r["jitter"]) == (mode, jitter)), key=lambda r: r["latency"])
            name = mode if len(jitters) == 1 else f"{mode}, jitter {1e3 * jitter:g} ms"
            style = {"color": _COLOURS[modes.index(mode) % 4], "ls": _STYLES[jitters.index(jitter) % 4], "marker": "o"}
            _success(left, line, {**style, "label": name}, shift=modes.index(mode) - (len(modes) - 1) / 2)
            _jerk(right, line, {**style, "label": name})
    left.set(ylim=(-3, 103), ylabel="success [%]")
    right.set(yscale="log" if any(row["peak_jerk"] for row in rows) else "linear", ylabel="peak jerk at joints [1/s³]")
    for axes in (left, right):
        axes.set(xlabel="latency [ms]")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    with whole(path) as draft:
        figure.savefig(draft, format="png", dpi=110)


def _success(axes: Any, line: Sequence[Row], style: dict[str, Any], shift: float) -> None:
    """shift: moves a line aside, so that intervals do not hide each other."""
    at = [1e3 * row["latency"] + 2 * shift for row in line]
    rates, ends = (100 * np.array([row[name] for row in line], float) for name in ("success", "ci95"))
    errors = np.abs(ends.T - rates)
    axes.errorbar(at, rates, yerr=errors, capsize=2, ms=4, lw=1.4, elinewidth=0.8, **style)


def _jerk(axes: Any, line: Sequence[Row], style: dict[str, Any]) -> None:
    known = [row for row in line if row["peak_jerk"]]
    at = [1e3 * row["latency"] for row in known]
    low, middle, high = ([row["peak_jerk"][q] for row in known] for q in ("p25", "p50", "p75"))
    axes.plot(at, middle, ms=4, lw=1.4, **style)
    axes.fill_between(at, low, high, color=style["color"], alpha=0.15)
