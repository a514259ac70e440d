"""`foreact compare`: train and evaluate arms × training seeds × tasks from one YAML, resumable, and write the table."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from . import commands
from .commands import as_overrides, config_of, console, home, say
from .envs.errors import UserError, choose, positive
from .eval.reports.compare import MINUTES, read_arm, together, write_comparison
from .experiment import experiment_folder, stages
from .lanes import side_by_side
from .policy.settings import build

DONE = "done.json"
"""File of a run that is trained and evaluated: the settings it was asked for."""
BEFORE = ("tokenizer", "labels", "teacher")
"""Settings of `foreact train` that name another run."""
Run = tuple[str, int, tuple[str, ...]]
"""Arm, training seed and tasks of a policy."""
Settings = tuple[dict[str, Any] | None, dict[str, Any]]
"""Of a training, None where there is none, and of its evaluation, by dotted name."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison's YAML says.

    arms: name → settings of `foreact train` for that arm, such as {model: joint/small, model.coupling: full}, and under
    `eval` those of its own evaluation; with {checkpoint: true} nothing is trained, and `checkpoint` is evaluated ·
    only: the arms to run now, for more training seeds of some; the table keeps what there is of the others · tasks ·
    per_task: one policy for each task, not one for all · seeds: training seeds · data: sources as in `foreact train`,
    where one without a path means the collected store; null for all of it · before: {tokenizer, labels or teacher:
    settings of `foreact train`} of runs that are trained first, on that data unless they name other, for the arms that
    say `tokenizer: true` and so on · collect, train, eval: settings that all arms share · store: where the collected
    data is; null: in the comparison's folder · experiment: of `foreact run`, whose tasks, data, run and settings are
    the comparison's unless it says otherwise · baseline: the arm that the others are compared with · together:
    {name: arms} for one more row, of all their networks · curves: {what varies: {value: arm}} for plots of success ·
    jobs: runs side by side, each with its share of the cores.
    """

    name: str
    arms: dict[str, dict]
    tasks: tuple[str, ...]
    baseline: str
    seeds: tuple[int, ...] = (0,)
    only: tuple[str, ...] = ()
    per_task: bool = False
    out: str | None = None
    experiment: str | None = None
    checkpoint: str | None = None
    store: str | None = None
    data: Any = None
    collect: dict[str, Any] = field(default_factory=dict)
    before: dict[str, dict] = field(default_factory=dict)
    together: dict[str, list[str]] = field(default_factory=dict)
    curves: dict[str, dict] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    eval: dict[str, Any] = field(default_factory=dict)
    jobs: int = 1

    def __post_init__(self):
        if not self.arms or not self.tasks or not self.seeds:
            raise UserError(f"comparison {self.name!r} needs at least one arm, task and seed")
        choose(self.baseline, self.arms, "baseline arm")
        groups = (self.only, *self.together.values(), *(curve.values() for curve in self.curves.values()))
        for arm in [arm for arms in groups for arm in arms]:
            choose(arm, self.arms, "arm")
        positive("jobs", self.jobs)
        for name in self.before:
            choose(name, BEFORE, "run that is trained first")
        for name, arm in self.arms.items():
            if arm.get("checkpoint") and (self.checkpoint is None or self.per_task):
                raise UserError(
                    f"comparison {self.name!r}: arm {name!r} evaluates one checkpoint= of all tasks; say which"
                )
            for kind in BEFORE:
                if arm.get(kind) is True and kind not in self.before:
                    raise UserError(f"comparison {self.name!r}: arm {name!r} takes its {kind}, and `before:` has none")

    @property
    def folder(self) -> Path:
        return Path(self.out) if self.out else home() / f"compare-{self.name}"

    @property
    def collected(self) -> str:
        """The store that is collected, or was."""
        return self.store or str(self.folder / "data")

    def run_before(self, kind: str) -> str:
        """The folder of a run that is trained first."""
        return str(self.folder / f"data.{kind}")


def load(name: str, overrides: Sequence[str]) -> Comparison:
    """The comparison in a YAML file, or the one of that name among foreact's own, with overrides such as seeds=[0]."""
    own = {p.name.removesuffix(".yaml"): p for p in files("foreact.configs").joinpath("compare").iterdir()}
    file = Path(name)
    if not file.is_file():
        choose(name, own, "comparison (a YAML file, or one of foreact's own)")
        file = Path(str(own[name]))
    try:
        values = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(list(overrides)))
        if "experiment" in values:
            values = OmegaConf.merge(_of_experiment(str(values.experiment)), values)
        return build(Comparison, OmegaConf.to_container(values, resolve=True), str(file))  # type: ignore[arg-type]
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"{file}: {error}") from error


def _of_experiment(name: str) -> dict[str, Any]:
    """What a comparison takes of an experiment: tasks, data, its run, and the settings of training and evaluation."""
    config = config_of("run", [f"experiment={name}"])
    of = stages(config, experiment_folder(config))
    train = {key: value for key, value in of["train"].items() if key not in ("data", "out")}
    tasks = commands.task_names(of["collect"]["tasks"])
    return {
        "train": train,
        "eval": config["eval"],
        "tasks": tasks,
        "store": of["collect"]["out"],
        "checkpoint": of["eval"]["checkpoint"],
    }


def compare(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Run what is not done yet, one training seed of every arm after the other, and write the comparison.

    The same command goes on where it stopped. The table is written anew after each run, so it can be read meanwhile.
    """
    plan = load(name, overrides)
    runs = [run for seed in plan.seeds for arm in plan.only or plan.arms for run in _runs(plan, arm, seed)]
    asked = {run: _settings(plan, *run) for run in runs}
    before = [config_of("train", as_overrides(_before(plan, kind))) for kind in plan.before]
    for train, evaluate in asked.values():  # all before the first begins
        config_of("eval", as_overrides(evaluate))
        if train is not None:
            config_of("train", as_overrides(train))
    if plan.collect:
        collect = {"tasks": list(plan.tasks), "out": plan.collected, **plan.collect}
        commands.collect(config_of("collect", as_overrides(collect)))
    for config in before:
        commands.train(config)
    left = {run: settings for run, settings in asked.items() if not _is_done(plan.folder, *settings)}
    for number, run in enumerate(_carried_out(plan, left), start=len(asked) - len(left) + 1):
        say(f"{number}/{len(asked)} {_name(plan, run)}: done, {_score(_write(plan), run)}")
    summary = _write(plan)
    say(f"Table: {plan.folder / 'comparison.md'}   Plot: {plan.folder / 'comparison.png'}")
    return summary


def _name(plan: Comparison, run: Run) -> str:
    return str(_out(plan, *run).relative_to(plan.folder))


def _score(summary: Mapping[str, Any], run: Run) -> str:
    success = summary["arms"].get(run[0], {"per_seed": {}})["per_seed"].get(run[1])
    return "other tasks to come" if success is None else f"success {100 * success:.0f} %"


def _runs(plan: Comparison, arm: str, seed: int) -> list[Run]:
    """The runs of one arm and training seed; none of a second seed where nothing is trained."""
    if plan.arms[arm].get("checkpoint") and seed != plan.seeds[0]:
        return []
    return [(arm, seed, group) for group in _groups(plan)]


def _groups(plan: Comparison) -> list[tuple[str, ...]]:
    """The tasks that share a policy."""
    return [(task,) for task in plan.tasks] if plan.per_task else [plan.tasks]


def _settings(plan: Comparison, arm: str, seed: int, tasks: tuple[str, ...]) -> Settings:
    """The settings of one run."""
    out, own = _out(plan, arm, seed, tasks), dict(plan.arms[arm])
    evaluate = {"episodes": 20, "video": 2, **plan.eval, **own.pop("eval", {}), "tasks": list(tasks)}
    evaluate |= {"checkpoint": plan.checkpoint if own.get("checkpoint") else str(out), "out": str(out / "eval")}
    if own.get("checkpoint"):
        return None, evaluate
    shared = {**plan.train, **own, "data": _sources(plan, own.get("data", plan.data)), "seed": seed, "out": str(out)}
    shared |= {kind: plan.run_before(kind) for kind in BEFORE if shared.get(kind) is True}
    return shared, evaluate


def _before(plan: Comparison, kind: str) -> dict[str, Any]:
    """The settings of a run that is trained first."""
    settings = plan.before[kind]
    return {**settings, "data": _sources(plan, settings.get("data", plan.data)), "out": plan.run_before(kind)}


def _out(plan: Comparison, arm: str, seed: int, tasks: tuple[str, ...]) -> Path:
    folder = plan.folder / arm / f"seed{seed}"
    return folder / tasks[0] if plan.per_task else folder


def _sources(plan: Comparison, data: Any) -> Any:
    if data is None:
        return plan.collected
    entries = [data] if isinstance(data, Mapping) else data
    return data if isinstance(data, str) else [{"path": plan.collected, **entry} for entry in entries]


def _carried_out(plan: Comparison, runs: Mapping[Run, Settings]) -> Iterator[Run]:
    """Each run, once it is trained and evaluated: one after the other, or side by side with a log in each folder."""
    if plan.jobs == 1:
        for run, settings in runs.items():
            console.rule(_name(plan, run))
            _run(plan.folder, *settings)
            yield run
        return
    logs = {_out(plan, *run) / "log.txt": run for run in runs}
    work = {log: partial(_run, plan.folder, *runs[run]) for log, run in logs.items()}
    say(f"{len(runs)} runs, {plan.jobs} side by side. What they say: log.txt in the folder of each")
    for log in side_by_side(work, plan.jobs):
        yield logs[log]


def _run(folder: Path, train: Mapping[str, Any] | None, evaluate: Mapping[str, Any]) -> None:
    """Train and evaluate one run, and note that this is done with these settings."""
    out = Path(evaluate["out"]).parent
    if train is not None:
        config = config_of("train", as_overrides(train))
        _timed(out / MINUTES, lambda: commands.train(config))
    commands.evaluate(config_of("eval", as_overrides(evaluate)))
    (out / DONE).write_text(json.dumps(_asked(folder, train, evaluate), indent=1) + "\n")


def _is_done(folder: Path, train: Mapping[str, Any] | None, evaluate: Mapping[str, Any]) -> bool:
    done = Path(evaluate["out"]).parent / DONE
    return done.is_file() and json.loads(done.read_text()) == _asked(folder, train, evaluate)


def _asked(folder: Path, train: Mapping[str, Any] | None, evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings, the same wherever the comparison's folder lies."""
    return json.loads(json.dumps({"train": train, "eval": evaluate}).replace(str(folder), "."))


def _timed(file: Path, work: Callable[[], object]) -> None:
    """Add the minutes that the work takes to those in the file: a training may be stopped and go on."""
    began = time.perf_counter()
    before = json.loads(file.read_text()) if file.is_file() else 0.0
    try:
        work()
    finally:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(before + (time.perf_counter() - began) / 60))


def _write(plan: Comparison) -> dict[str, Any]:
    groups = _groups(plan)
    arms = {a: read_arm(a, {seed: [_out(plan, a, seed, g) for g in groups] for seed in plan.seeds}) for a in plan.arms}
    pooled = [together(name, [arms[a] for a in some]) for name, some in plan.together.items()]
    return write_comparison(plan.folder, list(arms.values()), plan.baseline, pooled, plan.curves)
