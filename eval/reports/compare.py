"""Arms compared on identical evaluation seeds: paired intervals, table and plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...data.whole import write_json
from ...envs.errors import UserError
from ...policy.run_folder import read_metrics
from .compare_plots import draw, draw_curves
from .paired import Outcomes, Spread, interval

Episodes = dict[str, list[dict[str, Any]]]  # task → its episodes, as results.json holds them
LOSS = "val/action"


@dataclass(frozen=True)
class Arm:
    """One arm: the evaluated episodes of each training seed, and where known the minutes that its training took and its
    last held-out loss of actions."""

    name: str
    runs: dict[int, Episodes]
    minutes: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)

    @property
    def episodes(self) -> list[tuple[str, int]]:
        """Task and evaluation seed of each episode, of which all training seeds have the same."""
        met = {seed: [(t, e["seed"]) for t, rows in run.items() for e in rows] for seed, run in self.runs.items()}
        first = next(iter(met))
        for seed, episodes in met.items():
            if episodes != met[first]:
                _refuse(f"training seeds {first} and {seed} of arm {self.name!r}")
        return met[first]

    def at(self, tasks: Sequence[str]) -> "Arm":
        """The same networks at these tasks alone."""
        return replace(self, runs={seed: {t: run[t] for t in tasks} for seed, run in self.runs.items()})

    @property
    def outcomes(self) -> Outcomes:
        """Success of the networks, in the order of training seeds."""
        tasks = [task for task, _ in self.episodes]
        rows = [[float(e["success"]) for rows in self.runs[s].values() for e in rows] for s in sorted(self.runs)]
        return Outcomes(np.array(rows), np.array(tasks))


def _refuse(who: str) -> NoReturn:
    raise UserError(
        f"{who} were evaluated on other tasks or seeds: give both the same eval settings and run the comparison again"
    )


def difference(a: Arm, b: Arm, spread: Spread) -> dict[str, Any]:
    """Success of arm a less that of arm b, paired by episode: what is hard for both does not widen the interval."""
    x, y = a.outcomes, b.outcomes
    found = interval(x.success.mean(0) - y.success.mean(0), x.task, 1 / len(x.success) + 1 / len(y.success), spread)
    return {"difference": float(x.rates.mean() - y.rates.mean()), "ci95": [max(-1.0, found[0]), min(1.0, found[1])]}


def together(name: str, arms: Sequence[Arm]) -> Arm:
    """The networks of several arms as those of one: what is common to them, as if they did not differ otherwise."""
    runs = [run for arm in arms for _, run in sorted(arm.runs.items())]
    minutes = [value for arm in arms for value in arm.minutes.values()]
    losses = [value for arm in arms for value in arm.losses.values()]
    count = sum(bool(arm.runs) for arm in arms)
    title = f"{name} ({count} arm{'s' * (count != 1)})"
    return Arm(title, dict(enumerate(runs)), dict(enumerate(minutes)), dict(enumerate(losses)))


def summarise(arms: Sequence[Arm], baseline: str, pooled: Sequence[Arm] = ()) -> dict[str, Any]:
    """One row for each arm: success over its training seeds with its interval, by task, and against the baseline.

    pooled: arms made of others (`together`), which say nothing new of how networks of one recipe differ. Raises
    `UserError` where arms were evaluated on other tasks or seeds.
    """
    arms, pooled = ([arm for arm in some if arm.runs] for some in (arms, pooled))
    for arm in arms:
        if arm.episodes != arms[0].episodes:
            _refuse(f"arms {arms[0].name!r} and {arm.name!r}")
    base = next((arm for arm in arms if arm.name == baseline), None)
    spread = Spread.of([arm.outcomes for arm in arms])
    rows = {}
    for arm in [*arms, *pooled]:
        found = arm.outcomes
        low, high = interval(found.success.mean(0), found.task, 1 / len(found.success), spread)
        rows[arm.name] = {
            "success": float(found.rates.mean()),
            "ci95": [max(0.0, low), min(1.0, high)],
            "per_task": {
                t: float(found.success[:, found.task == t].mean()) for t in dict.fromkeys(found.task.tolist())
            },
            "per_seed": dict(zip(sorted(arm.runs), found.rates.tolist(), strict=True)),
            "episodes": found.success.size,
            "minutes": float(np.mean(list(arm.minutes.values()))) if arm.minutes else None,
            "loss": float(np.mean(list(arm.losses.values()))) if arm.losses else None,
            "against": None if base is None or arm is base else difference(arm, base, spread),
        }
    return {"baseline": baseline, "arms": rows, "spread": asdict(spread)}


def table(summary: Mapping[str, Any]) -> str:
    """The comparison as a Markdown table, in percent."""
    rows = summary["arms"]
    tasks = list(next(iter(rows.values()))["per_task"]) if rows else []
    head = [
        "arm",
        "success [95 %]",
        f"against {summary['baseline']} [95 %]",
        *tasks,
        "training seeds",
        "held-out loss",
        "minutes a run",
    ]
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
                    "" if row["loss"] is None else f"{row['loss']:.3f}",
                    "" if row["minutes"] is None else f"{row['minutes']:.0f}",
                ]
            )
            + " |"
        )
    return "\n".join([*lines, "", _how(summary["spread"])]) + "\n"


def _grouped(parts: Mapping[str, Mapping[str, Any]], baseline: str) -> str:
    """Success of each group of tasks as a Markdown table, and beside it the difference to the baseline's."""
    lines = ["", "| arm | " + " | ".join(f"{name} [95 %] | against {baseline}" for name in parts) + " |"]
    lines.append("|" + "---|" * (1 + 2 * len(parts)))
    for arm in next(iter(parts.values()))["arms"]:
        cells = [arm]
        for row in (part["arms"][arm] for part in parts.values()):
            against = row["against"]
            cells.append(_interval(row["success"], row["ci95"]))
            cells.append("" if against is None else _interval(against["difference"], against["ci95"], sign=True))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _how(spread: Mapping[str, Any]) -> str:
    if not spread["degrees"]:
        return (
            "Intervals: 95 %, over episodes alone. With one training seed an arm they say how these networks differ, "
            "not how the recipes do."
        )
    points = 100 * spread["networks"] ** 0.5
    return (
        f"Intervals: 95 %, Student's t over training seeds and episodes. Networks of one arm lie {points:.1f} points "
        f"apart (standard deviation between training seeds, {spread['degrees']} degrees of freedom over all arms)."
    )


def _interval(value: float, ci95: Sequence[float], *, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.0f} [{100 * ci95[0]:{plus}.0f}, {100 * ci95[1]:{plus}.0f}]"


def write_comparison(
    folder: Path,
    arms: Sequence[Arm],
    baseline: str,
    pooled: Sequence[Arm] = (),
    curves: Mapping[str, Mapping[float, str]] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Write comparison.json, comparison.md and comparison.png into the folder, and curves.png if there are any; returns
    the summary. curves: {what varies: {its value: arm}} · groups: {name: tasks} that are summarised apart as well."""
    summary = summarise(arms, baseline, pooled)
    parts = {n: summarise([a.at(tasks) for a in arms], baseline) for n, tasks in (groups or {}).items()}
    write_json(folder / "comparison.json", summary | ({"groups": parts} if parts else {}))
    (folder / "comparison.md").write_text(
        table(summary) + (_grouped(parts, baseline) if parts else ""), encoding="utf-8"
    )
    draw(summary, folder / "comparison.png")
    if curves:
        draw_curves(summary, curves, folder / "curves.png")
    return summary


def named(task: str, every: int) -> str:
    """What a task is called whose control steps are `every` of the simulator's own: at several rates it is several."""
    return task if every == 1 else f"{task} (every {every})"


def read_arm(name: str, folders: Mapping[int, Mapping[Path, Sequence[Path]]]) -> Arm:
    """The arm of these run folders by training seed, each with the folders of its evaluations; a seed counts when all
    of them are done."""
    runs, minutes, losses = {}, {}, {}
    for seed, parts in folders.items():
        files = [folder / "results.json" for evaluations in parts.values() for folder in evaluations]
        if all(file.is_file() for file in files):
            runs[seed] = {}
            for found in (json.loads(file.read_text(encoding="utf-8")) for file in files):
                every = found.get("settings", {}).get("every", 1)
                runs[seed] |= {named(task, every): row["episodes"] for task, row in found["per_task"].items()}
            last = [(read_metrics(part / "metrics.jsonl") or [{}])[-1] for part in parts]  # of each training
            if all("minutes" in record for record in last):
                minutes[seed] = sum(record["minutes"] for record in last)
            if all(LOSS in record for record in last):
                losses[seed] = float(np.mean([record[LOSS] for record in last]))
    return Arm(name, runs, minutes, losses)
