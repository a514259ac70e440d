"""The runs of a comparison, and the settings of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arms import BEFORE, Comparison


@dataclass(frozen=True)
class Run:
    """One training of an arm, and what it is evaluated on.

    groups: names of `Comparison.groups` · apart: has the arm other trainings, for the other groups?
    """

    arm: str
    seed: int
    groups: tuple[str, ...]
    apart: bool

    @property
    def name(self) -> str:
        """Its folder, in that of the comparison."""
        return f"{self.arm}/seed{self.seed}" + (f"/{self.groups[0]}" if self.apart else "")

    def evaluations(self, folder: Path) -> dict[str, Path]:
        """Group → where its results are."""
        own = folder / self.name / "eval"
        return dict.fromkeys(self.groups, own) if len(self.groups) == 1 else {g: own / g for g in self.groups}


def runs_of(plan: Comparison, arm: str, seed: int) -> list[Run]:
    """The runs of one arm and training seed; none of a second seed where nothing is trained."""
    if plan.arms[arm].get("checkpoint") and seed != plan.seeds[0]:
        return []
    groups = tuple(plan.groups)
    if plan.arms[arm].get("alone"):
        return [Run(arm, seed, (group,), True) for group in groups]
    return [Run(arm, seed, groups, False)]


Settings = tuple[dict[str, Any] | None, list[dict[str, Any]]]
"""Of a training, None where there is none, and of its evaluations, by dotted name."""


def settings_of(plan: Comparison, run: Run) -> Settings:
    """The settings of one run."""
    out, own = plan.folder / run.name, dict(plan.arms[run.arm])
    own.pop("besides", None)  # `_robots` has read it
    alone, loaded = own.pop("alone", False), own.pop("checkpoint", False)
    shared = {"episodes": 20, "video": 2, **plan.eval, **own.pop("eval", {})}
    shared["checkpoint"] = plan.checkpoint if loaded else str(out)
    evaluations = [
        {**shared, **plan.rate_of(group), "tasks": list(plan.groups[group]), "out": str(to)}
        for group, to in run.evaluations(plan.folder).items()
    ]
    if loaded:
        return None, evaluations
    train = {**plan.train, **own, "seed": run.seed, "out": str(out)}
    train["data"] = _robots(plan, run) if plan.robots else _sources(plan, own.get("data", plan.data))
    if alone:
        share = _share(plan, run.groups[0]) / sum(_share(plan, name) for name in plan.robots)
        train |= {"steps": round(train["steps"] * share), **plan.robots[run.groups[0]].alone}
    return train | {kind: plan.run_before(kind) for kind in BEFORE if train.get(kind) is True}, evaluations


def before(plan: Comparison, kind: str) -> dict[str, Any]:
    """The settings of a run that is trained first."""
    settings = plan.before[kind]
    return {**settings, "data": _sources(plan, settings.get("data", plan.data)), "out": plan.run_before(kind)}


def _share(plan: Comparison, robot: str) -> float:
    return float(plan.robots[robot].data.get("share", 1.0))


def _robots(plan: Comparison, run: Run) -> list[dict[str, Any]]:
    """The sources of a run; how one counts beside others is nothing where it is alone."""
    arm = plan.arms[run.arm]
    unused = ("share", "weight") if arm.get("alone") else ()
    data = {name: {**plan.robots[name].data, **arm.get("data", {}).get(name, {})} for name in run.groups}
    own = {name: {k: v for k, v in settings.items() if k not in unused} for name, settings in data.items()}
    sources = [{"path": plan.store_of(name), **plan.rate_of(name), **own[name]} for name in run.groups]
    return sources + arm.get("besides", [])


def _sources(plan: Comparison, data: Any) -> Any:
    if data is None:
        return plan.store_of()
    entries = [data] if isinstance(data, Mapping) else data
    return data if isinstance(data, str) else [{"path": plan.store_of(), **entry} for entry in entries]
