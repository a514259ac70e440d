"""report.html: how a run on a robot went: outcomes, faults, actions against their limits, latency, joints of chunks."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...data.page import Page
from ...data.plot import histogram, line_plot
from ...envs.spec import Embodiment
from ..reports.results import percent
from .jerk import jerk_at_joints

SHOWN = 5  # episodes with pictures of their actions; the traces hold all
MAX_ROWS = 60  # of the table of interventions


def write_control_report(folder: Path | str, embodiment: Embodiment) -> Path:
    """Write `report.html` into the folder of a run (`logbook.Logbook`); returns its path."""
    folder = Path(folder)
    about = json.loads((folder / "control.json").read_text(encoding="utf-8"))
    traces = {int(p.stem): dict(np.load(p)) for p in sorted((folder / "traces").glob("*.npz"))}
    settings = about["settings"]
    page = Page(
        f"{about['policy']} on {about['robot']}",
        f"mode {settings['mode']}, {about['hz']:g} control steps a second",
    )
    page.facts(_facts(about, traces, embodiment))
    page.section("Episodes")
    keys = ("episode", "outcome", "steps", "skipped", "late", "without_action", "chunks")
    page.table(keys, [[line[k] for k in keys] for line in about["episodes"]])
    _interventions(page, folder)
    _latency(page, traces)
    _actions(page, traces, embodiment)
    return page.write(folder / "report.html")


def _facts(about: dict[str, Any], traces: dict[int, dict[str, np.ndarray]], embodiment: Embodiment) -> list[Any]:
    at, elsewhere = jerk_at_joints(traces, embodiment)
    lines = about["episodes"]
    steps = sum(line["steps"] + line["skipped"] for line in lines)
    missed = sum(line["late"] + line["skipped"] for line in lines)
    facts: list[tuple[str, Any]] = [
        ("success", percent(about["success"], about["ci95"])),
        ("control steps", steps),
        ("late or skipped", f"{missed} ({100 * missed / max(steps, 1):.1f} %)"),
        ("steps without an action", sum(line["without_action"] for line in lines)),
        ("jerk at joints / elsewhere", f"{at / elsewhere:.2f}" if elsewhere else "–"),
    ]
    if any("violations" in line for line in lines):
        counted = sum(sum(line.get("violations", {}).values()) for line in lines)
        facts.append(("violations that reached the robot", counted))
    return facts


def _interventions(page: Page, folder: Path) -> None:
    path = folder / "interventions.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    page.section(f"Interventions ({len(rows)})")
    if not rows:
        page.text("None.")
        return
    keys = ("episode", "step", "time", "rule", "where", "asked", "sent")
    hidden = len(rows) - MAX_ROWS
    caption = f"and {hidden} more in interventions.jsonl" if hidden > 0 else ""
    page.table(keys, [[row[k] for k in keys] for row in rows[:MAX_ROWS]], caption)


def _latency(page: Page, traces: dict[int, dict[str, np.ndarray]]) -> None:
    def all_of(key: str) -> np.ndarray:
        return 1e3 * np.concatenate([np.zeros(0), *(trace[key] for trace in traces.values())])

    page.section("Time")
    page.figures(
        [
            (histogram(all_of("latencies"), xlabel="ms", size=(460, 200)), "from a question to its answer"),
            (histogram(all_of("late"), xlabel="ms", size=(460, 200)), "by how much control steps began too late"),
            (histogram(all_of("acted"), xlabel="ms", size=(460, 200)), "from when a step was due until it was sent"),
        ]
    )


def _actions(page: Page, traces: dict[int, dict[str, np.ndarray]], embodiment: Embodiment) -> None:
    page.section("Actions")
    names = embodiment.action_names
    for episode, trace in list(traces.items())[:SHOWN]:
        page.heading(f"Episode {episode}")
        page.figures(
            (_action(trace, i, embodiment), f"{name}; it may be {low:g} to {high:g}")
            for i, (name, low, high) in enumerate(
                zip(names, embodiment.action_low, embodiment.action_high, strict=True)
            )
        )


def _action(trace: dict[str, np.ndarray], i: int, embodiment: Embodiment) -> str:
    time = trace["time"]
    ends = np.array([time.min(initial=0), time.max(initial=0)])
    bounds = {
        name: np.column_stack([ends, np.full(2, value[i])])
        for name, value in (("low", embodiment.action_low), ("high", embodiment.action_high))
    }
    lines = {name: np.column_stack([time, trace[name][:, i]]) for name in ("asked", "sent")}
    return line_plot({**lines, **bounds}, xlabel="s", size=(460, 160))
