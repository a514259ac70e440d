"""report.html: what came out of an evaluation, failures first, with videos, curves and its command."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...data.page import Clip, Page
from ...data.plot import bar_plot, line_plot
from ...envs.errors import UserError
from .results import alignment, percent

MAX_FAILURES = 60  # rows of the failure table; results.json has all
SKIPPED = {"step", "epoch", "time", "seconds", "minutes", "elapsed"}  # of metrics.jsonl: axes, not curves


def write_report(folder: Path | str, results: Mapping[str, Any] | None = None, run: Path | str | None = None) -> Path:
    """Write `report.html` and `success.svg` in the folder of an evaluation; returns the page's path.

    results: None reads the folder's results.json. run: a training run whose metrics.jsonl gives the curves;
    None looks in the folder and above it. Videos are those in `videos/`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(folder) if results is None else results
    page = Page(f"Evaluation of {results['policy']['policy']}", _subtitle(results))
    page.facts(_facts(results))
    _failures(page, results)
    _success(page, folder, results)
    _replayed(page, results)
    _videos(page, folder)
    _curves(page, folder, run)
    _origin(page, results)
    return page.write(folder / "report.html")


def read_results(folder: Path | str) -> dict[str, Any]:
    """The results of an evaluation's folder; `UserError` where there are none."""
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise UserError(f"{folder} has no results.json; run `foreact eval … out={folder}` first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); run the evaluation again") from error


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Numbers by name from a metrics.jsonl, as (step, value); lines that cannot be read are left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for i, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            row = json.loads(line)
        except ValueError:  # the last line of a run that is still being written
            continue
        for name, value in _numbers(row):
            if name not in SKIPPED:
                curves.setdefault(name, []).append((float(row.get("step", i)), value))
    return curves


def _numbers(row: Any, prefix: str = ""):
    if isinstance(row, dict):
        for name, value in row.items():
            yield from _numbers(value, f"{prefix}{'/' if prefix else ''}{name}")
    elif isinstance(row, int | float) and not isinstance(row, bool):
        yield prefix, float(row)


def _subtitle(results: Mapping[str, Any]) -> str:
    settings = results["settings"]
    what = f"{len(results['per_task'])} task(s)"
    if "seed" in settings:
        last = settings["seed"] + settings["episodes"] - 1
        what += f", seeds {settings['seed']} to {last}, at most {settings['max_steps']} steps"
    return what


def _facts(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    several, latency = len(results["per_task"]) > 1, results["latency_ms"]
    facts: list[tuple[str, Any]] = [
        ("task mean" if several else "success", percent(results["task_mean"], results["task_mean_ci95"]))
    ]
    if several:
        facts.append(("group mean", percent(results["group_mean"], results["group_mean_ci95"])))
    facts.append(("episodes", sum(row["n"] for row in results["per_task"].values())))
    if "alignment" in results["policy"]:
        facts.append(("trained with simulator state", alignment(results["policy"])))
    if latency["p50"] is not None:
        facts += [
            ("inference, p50", f"{latency['p50']:.1f} ms"),
            ("inference, p95", f"{latency['p95']:.1f} ms"),
        ]
    return facts


def _failures(page: Page, results: Mapping[str, Any]) -> None:
    failed = [
        (task, episode["seed"], episode["length"])
        for task, row in results["per_task"].items()
        for episode in row["episodes"]
        if not episode["success"]
    ]
    page.section(f"Failures ({len(failed)})")
    if not failed:
        page.text("None.")
        return
    hidden = len(failed) - MAX_FAILURES
    caption = f"and {hidden} more in results.json" if hidden > 0 else ""
    page.table(["task", "seed", "steps"], failed[:MAX_FAILURES], caption)


def _success(page: Page, folder: Path, results: Mapping[str, Any]) -> None:
    page.section("Success")
    tasks, groups = results["per_task"], results["groups"]
    rows = [
        [name, row["n"], percent(row["success"], row["ci95"]), _mean_length(row["episodes"])]
        for name, row in tasks.items()
    ]
    page.table(["task", "episodes", "success [95 %]", "steps"], rows, "95 % intervals: Wilson for a task")
    if len(tasks) > 1:
        rows = [[name, row["tasks"], row["n"], percent(row["success"], row["ci95"])] for name, row in groups.items()]
        rows.append(["mean over tasks", len(tasks), "", percent(results["task_mean"], results["task_mean_ci95"])])
        rows.append(["mean over groups", "", "", percent(results["group_mean"], results["group_mean_ci95"])])
        page.table(["group", "tasks", "episodes", "success [95 %]"], rows, "bootstrap over episodes for means")
    bars = {name: row["success"] for name, row in tasks.items()}
    chart = bar_plot(bars, intervals={name: tuple(row["ci95"]) for name, row in tasks.items()})
    (folder / "success.svg").write_text(_standalone(chart), encoding="utf-8")
    page.figure(chart, "success rate and 95 % interval")


def _replayed(page: Page, results: Mapping[str, Any]) -> None:
    """What only a replay of a store has: how exactly it came out again."""
    if "replay" not in results:
        return
    found = results["replay"]
    page.section(f"Episodes that came out otherwise than stored ({len(found['differing'])})")
    page.text(
        f"{found['frames']} pictures compared; largest difference {found['max_frame_diff']} of 255, of states "
        f"{found['max_state_diff']:g}. Not replayed: {found['skipped'] or 'none'}."
    )
    if found["differing"]:
        keys = ("episode", "task", "seed", "frame_diff", "state_diff", "mismatch")
        rows = [["" if row[k] is None else row[k] for k in keys] for row in found["differing"]]
        page.table(keys, rows[:MAX_FAILURES])


def _mean_length(episodes: list[dict[str, Any]]) -> int:
    return round(sum(e["length"] for e in episodes) / len(episodes))


def _standalone(svg: str) -> str:
    """A chart of the page as a file of its own: with a namespace and without the page's style sheet."""
    style = (
        "<style>text{font:11px system-ui,sans-serif;fill:#667085}.track{fill:#e9edf2}"
        ".whisker{stroke:#1c2430;stroke-width:1.4;fill:none}</style>"
    )
    head, rest = svg.split(">", 1)
    return head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + ">" + style + rest


def _videos(page: Page, folder: Path) -> None:
    paths = sorted((folder / "videos").glob("*.mp4"), key=lambda p: (p.stem.endswith("_success"), p.stem))
    if not paths:
        return
    page.section("Videos")
    page.text(
        "Left: what happened. Where the model foresees: the picture that it foresaw when it last looked, "
        "held until its time has come, and the real picture of that time."
    )
    page.videos(Clip(p, p.stem.rsplit("_", 1)[0].replace("_", ", seed "), p.stem.endswith("_success")) for p in paths)


def _curves(page: Page, folder: Path, run: Path | str | None) -> None:
    places = [Path(run)] if run is not None else [folder, folder.parent]
    path = next((place / "metrics.jsonl" for place in places if (place / "metrics.jsonl").is_file()), None)
    if path is None:
        if run is not None:
            raise UserError(f"run {run} has no metrics.jsonl; give the folder of a training run")
        return
    families: dict[str, dict[str, Any]] = {}
    for name, curve in read_curves(path).items():
        families.setdefault(_family(name), {})[name] = curve
    if not families:
        return
    page.section("Training")
    page.figures((_curve_plot(lines), family) for family, lines in families.items())


def _family(name: str) -> str:
    titles = {
        "loss": "training loss",
        "val": "held-out loss",
        "look": "looking",
        "task": "held-out loss by task",
        "rollout": "success",
    }
    return titles.get(name.split("/")[0], name)


def _curve_plot(lines: dict[str, list[tuple[float, float]]]) -> str:
    values = [v for curve in lines.values() for _, v in curve if math.isfinite(v)]
    # A loss falls over decades; a correlation or a rate does not.
    log_y = bool(values) and min(values) > 0 and max(values) > 20 * min(values)
    return line_plot({name: np.array(curve) for name, curve in lines.items()}, xlabel="step", log_y=log_y)


def _origin(page: Page, results: Mapping[str, Any]) -> None:
    page.section("How it was made")
    page.code(results["command"])
    page.table(["setting", "value"], [[k, str(v)] for k, v in {**results["policy"], **results["settings"]}.items()])
    page.table(["package", "version"], list(results["versions"].items()))
