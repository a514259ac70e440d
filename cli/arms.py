"""What a comparison is: its arms, robots and data, as its YAML says them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..envs.errors import UserError, choose, positive
from ..policy.settings import build
from .compose import config_of, home, task_names
from .experiment import experiment_folder, stages

BEFORE = ("tokenizer", "labels", "teacher")
"""Settings of `foreact train` that name another run."""


@dataclass(frozen=True, kw_only=True)
class Robot:
    """A part of the data of a comparison of several robots, and what is evaluated on it.

    tasks: of this robot · collect: settings of `foreact collect` that are its own · data: settings of its source in
    `foreact train`, such as its share of a batch · reads: another robot of the comparison whose store it reads, and
    collects none · every: its control steps are so many of its own, in what is learned and in evaluation · alone:
    settings of `foreact train` where an arm has each robot alone, such as its part of a batch.
    """

    tasks: tuple[str, ...]
    collect: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    reads: str = ""
    every: int = 1
    alone: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison's YAML says.

    arms: name → settings of `foreact train` for that arm, such as {model: joint/small, model.coupling: full}, and under
    `eval` those of its own evaluation; with {checkpoint: true} nothing is trained, and `checkpoint` is evaluated; with
    {alone: true} each robot has a policy of its own, trained for its share of the updates; with several robots
    {data: {ROBOT: settings}} changes those of its source, and {besides: sources} come after its data · only: the arms
    to run now, for more training seeds of some; the table keeps what there is of the others · tasks · robots: {name:
    its tasks and data}, in the place of tasks, for several robots, or tasks with data of their own · seeds: training
    seeds · data: sources as in `foreact train`, where one without a path means the collected store; null for all of it
    · before: {tokenizer, labels or teacher: settings of `foreact train`} of runs that are trained first, on that data
    unless they name other, for the arms that say `tokenizer: true` and so on · collect, train, eval: settings that all
    arms share · store: where the collected data is; null: in the comparison's folder · experiment: of `foreact run`,
    whose tasks, data, run and settings are the comparison's unless it says otherwise · baseline: the arm that the
    others are compared with · together: {name: arms} for one more row, of all their networks · curves: {what varies:
    {value: arm}} for plots of success · jobs: runs side by side, each with its share of the cores.
    """

    name: str
    arms: dict[str, dict]
    baseline: str
    tasks: tuple[str, ...] = ()
    robots: dict[str, Robot] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    only: tuple[str, ...] = ()
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
        if not self.arms or not self.groups or not self.seeds:
            raise UserError(f"comparison {self.name!r} needs at least one arm, task and seed")
        if self.robots and (self.tasks or self.data or self.store):
            raise UserError(f"comparison {self.name!r}: `robots:` says what tasks and data are, so nothing else may")
        choose(self.baseline, self.arms, "baseline arm")
        groups = (self.only, *self.together.values(), *(curve.values() for curve in self.curves.values()))
        for arm in [arm for arms in groups for arm in arms]:
            choose(arm, self.arms, "arm")
        positive("jobs", self.jobs)
        for name in self.before:
            choose(name, BEFORE, "run that is trained first")
        for name, robot in self.robots.items():
            positive(f"every of robot {name!r}", robot.every)
            if robot.reads:
                collecting = [n for n, r in self.robots.items() if n != name and not r.reads]
                choose(robot.reads, collecting, f"robot whose store {name!r} reads:")
        for name, arm in self.arms.items():
            self._check_arm(name, arm)

    def _check_arm(self, name: str, arm: Mapping[str, Any]) -> None:
        if arm.get("checkpoint") and self.checkpoint is None:
            raise UserError(f"comparison {self.name!r}: arm {name!r} evaluates one checkpoint= of all tasks; say which")
        for setting in ("alone", "besides"):
            if arm.get(setting) and not self.robots:
                raise UserError(f"comparison {self.name!r}: arm {name!r} says `{setting}`, and there are no `robots:`")
        for robot in arm.get("data") or () if self.robots else ():
            choose(robot, self.robots, f"robot whose data arm {name!r} changes:")
        for kind in BEFORE:
            if arm.get(kind) is True and kind not in self.before:
                raise UserError(f"comparison {self.name!r}: arm {name!r} takes its {kind}, and `before:` has none")

    @property
    def folder(self) -> Path:
        return Path(self.out) if self.out else home() / f"compare-{self.name}"

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Tasks that are evaluated together: those of each robot, or all."""
        if self.robots:
            return {name: robot.tasks for name, robot in self.robots.items()}
        return {"": self.tasks} if self.tasks else {}

    def store_of(self, robot: str = "") -> str:
        """The store that is collected, or was."""
        reads = self.robots[robot].reads if robot else ""
        return self.store or str(self.folder / "data" / (reads or robot))

    def rate_of(self, group: str) -> dict[str, int]:
        """The setting of a group's rate in training and evaluation; none for the robot's own."""
        every = self.robots[group].every if self.robots else 1
        return {"every": every} if every > 1 else {}

    def run_before(self, kind: str) -> str:
        """The folder of a run that is trained first."""
        return str(self.folder / f"data.{kind}")

    def stores(self) -> list[dict[str, Any]]:
        """The settings of `foreact collect` for each store; none where nothing is collected."""
        parts = {n: (r.tasks, r.collect) for n, r in self.robots.items() if not r.reads} or {"": (self.tasks, {})}
        asked = {name: {**self.collect, **own} for name, (_, own) in parts.items()}
        return [{"tasks": list(parts[n][0]), "out": self.store_of(n), **own} for n, own in asked.items() if own]


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
    return {
        "train": train,
        "eval": config["eval"],
        "tasks": task_names(of["collect"]["tasks"]),
        "store": of["collect"]["out"],
        "checkpoint": of["eval"]["checkpoint"],
    }
