"""`foreact run` and `foreact quickstart`: collect, train and evaluate as one experiment, from one YAML."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import commands, envs
from .commands import as_overrides, config_of, console, home, say


def run_experiment(overrides: Sequence[str]) -> None:
    """Collect, train and evaluate as one experiment; each stage resumes, so the same command goes on after a stop."""
    config = config_of("run", overrides)
    out = Path(config["out"]) if config["out"] else home() / experiment_name(config)
    data = out / "data"
    stages = {
        "collect": {**config["collect"], "out": str(data)},
        "train": {**config["train"], "data": str(data), "out": str(out)},
        "eval": {**config["eval"], "checkpoint": str(out), "out": str(out)},
    }
    verbs: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "collect": commands.collect,
        "train": commands.train,
        "eval": commands.evaluate,
    }
    # All are composed before the first begins: a misspelt setting should not cost a collection.
    composed = {stage: config_of(stage, as_overrides(settings)) for stage, settings in stages.items()}
    for number, (stage, settings) in enumerate(composed.items(), start=1):
        console.rule(f"{number}/{len(stages)} {stage}")
        verbs[stage](settings)
    _what_next(out, config["task"])


def experiment_name(config: Mapping[str, Any]) -> str:
    """The experiment's name, with the task's where it is not the experiment's own."""
    name, task = config["name"], envs.task(config["task"]).name
    own = config_of("run", [f"experiment={name}"])["task"]
    return name if task == envs.task(own).name else f"{name}-{task}"


def _what_next(out: Path, task: str) -> None:
    console.rule("done")
    other = next(name for name in ("door-open-v3", "drawer-open-v3") if envs.resolve(name) != envs.resolve(task))
    say(
        f"""Open   {out / "report.html"}   success, failures, films, curves
       {out / "videos"}        what the robot did, beside what it foresaw
Try    foreact eval checkpoint={out} episodes=100      a narrower interval
       foreact quickstart task={other}            another task (foreact tasks lists them)
       foreact data view {out / "data"}                the demonstrations
       foreact quickstart task={task} train.align=0 out={out}-noalign   without simulator state in training"""
    )
