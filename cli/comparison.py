"""`foreact compare`: train and evaluate arms × training seeds × tasks from one YAML, resumable, and write the table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .. import envs
from ..eval.reports.compare import named, read_arm, together, write_comparison
from . import commands
from .arms import Comparison, load
from .compose import as_overrides, config_of
from .lanes import side_by_side
from .runs import Run, Settings, before, runs_of, settings_of
from .terminal import console, say

DONE = "done.json"
"""File of a run that is trained and evaluated: the settings it was asked for."""


def compare(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Run what is not done yet, one training seed of every arm after the other, and write the comparison.

    The same command goes on where it stopped. The table is written anew after each run, so it can be read meanwhile.
    """
    plan = load(name, overrides)
    runs = [run for seed in plan.seeds for arm in plan.only or plan.arms for run in runs_of(plan, arm, seed)]
    asked = {run: settings_of(plan, run) for run in runs}
    collected = [config_of("collect", as_overrides(settings)) for settings in plan.stores()]
    first = [config_of("train", as_overrides(before(plan, kind))) for kind in plan.before]
    for train, evaluations in asked.values():  # all before the first begins
        for settings in evaluations:
            config_of("eval", as_overrides(settings))
        if train is not None:
            config_of("train", as_overrides(train))
    for config in collected:
        commands.collect(config)
    for config in first:
        commands.train(config)
    left = {run: settings for run, settings in asked.items() if not _is_done(plan.folder, run, settings)}
    for number, run in enumerate(_carried_out(plan, left), start=len(asked) - len(left) + 1):
        say(f"{number}/{len(asked)} {run.name}: done, {_score(_write(plan), run)}")
    summary = _write(plan)
    say(f"Table: {plan.folder / 'comparison.md'}   Plot: {plan.folder / 'comparison.png'}")
    return summary


def _score(summary: Mapping[str, Any], run: Run) -> str:
    success = summary["arms"].get(run.arm, {"per_seed": {}})["per_seed"].get(run.seed)
    return "other tasks to come" if success is None else f"success {100 * success:.0f} %"


def _carried_out(plan: Comparison, runs: Mapping[Run, Settings]) -> Iterator[Run]:
    """Each run, once it is trained and evaluated: one after the other, or side by side with a log in each folder."""
    if plan.jobs == 1:
        for run, settings in runs.items():
            console.rule(run.name)
            _run(plan.folder, run, settings)
            yield run
        return
    logs = {plan.folder / run.name / "log.txt": run for run in runs}
    work = {log: partial(_run, plan.folder, run, runs[run]) for log, run in logs.items()}
    say(f"{len(runs)} runs, {plan.jobs} side by side. What they say: log.txt in the folder of each")
    for log in side_by_side(work, plan.jobs):
        yield logs[log]


def _run(folder: Path, run: Run, settings: Settings) -> None:
    """Train and evaluate one run, and note that this is done with these settings."""
    train, evaluations = settings
    out = folder / run.name
    if train is not None:
        commands.train(config_of("train", as_overrides(train)))
    for evaluation in evaluations:
        commands.evaluate(config_of("eval", as_overrides(evaluation)))
    (out / DONE).write_text(json.dumps(_asked(folder, settings), indent=1) + "\n", encoding="utf-8")


def _is_done(folder: Path, run: Run, settings: Settings) -> bool:
    done = folder / run.name / DONE
    return done.is_file() and json.loads(done.read_text(encoding="utf-8")) == _asked(folder, settings)


def _asked(folder: Path, settings: Settings) -> dict[str, Any]:
    """A run's settings, the same wherever the comparison's folder lies."""
    train, evaluations = settings
    asked = {"train": train, "eval": evaluations[0] if len(evaluations) == 1 else evaluations}
    return json.loads(json.dumps(asked).replace(str(folder), "."))


def _write(plan: Comparison) -> dict[str, Any]:
    arms = {}
    for name in plan.arms:
        runs = {seed: runs_of(plan, name, seed) for seed in plan.seeds}
        arms[name] = read_arm(name, {seed: _folders(plan, rs) for seed, rs in runs.items() if rs})
    pooled = [together(name, [arms[a] for a in some]) for name, some in plan.together.items()]
    groups = {n: [named(envs.task(task).name, r.every) for task in r.tasks] for n, r in plan.robots.items()}
    return write_comparison(plan.folder, list(arms.values()), plan.baseline, pooled, plan.curves, groups)


def _folders(plan: Comparison, runs: Sequence[Run]) -> dict[Path, list[Path]]:
    """Run folders, and where the results of each are."""
    return {plan.folder / run.name: list(dict.fromkeys(run.evaluations(plan.folder).values())) for run in runs}
