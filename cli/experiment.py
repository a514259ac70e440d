"""`foreact run` and `foreact quickstart`: collect, train and evaluate as one experiment, from one YAML."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import envs
from . import commands
from .compose import as_overrides, config_of, home
from .forecast import describe_forecast
from .terminal import console, say


def run_experiment(overrides: Sequence[str]) -> None:
    """Collect, train and evaluate as one experiment; each stage resumes, so the same command goes on after a stop."""
    config = config_of("run", overrides)
    out = experiment_folder(config)
    verbs: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "collect": commands.collect,
        "train": commands.train,
        "eval": commands.evaluate,
    }
    # All are composed before the first begins: a misspelt setting should not cost a collection.
    composed = {stage: config_of(stage, as_overrides(settings)) for stage, settings in stages(config, out).items()}
    if composed["collect"]["policy"] == "expert":
        say(describe_forecast(composed))
    for number, (stage, settings) in enumerate(composed.items(), start=1):
        console.rule(f"{number}/{len(composed)} {stage}")
        verbs[stage](settings)
    _what_next(out, config)


def stages(config: Mapping[str, Any], out: Path) -> dict[str, dict[str, Any]]:
    """The settings of each stage of an experiment whose folder is `out`, by dotted name.

    `model` in it, if there is such a section, holds changes of the preset that `train.model` names.
    """
    data, changes = str(out / "data"), {f"model.{key}": value for key, value in config.get("model", {}).items()}
    return {
        "collect": {**config["collect"], "out": data},
        "train": {**config["train"], **changes, "data": data, "out": str(out)},
        "eval": {**config["eval"], "checkpoint": str(out), "out": str(out)},
    }


def experiment_folder(config: Mapping[str, Any]) -> Path:
    """Where an experiment keeps its data, its run and its results."""
    return Path(config["out"]) if config["out"] else home() / experiment_name(config)


def experiment_name(config: Mapping[str, Any]) -> str:
    """The experiment's name, with the task's where it is of one task and that is not the experiment's own."""
    name = config["name"]
    if "task" not in config:
        return name
    own = config_of("run", [f"experiment={name}"])["task"]
    task = envs.task(config["task"]).name
    return name if task == envs.task(own).name else f"{name}-{task}"


def _what_next(out: Path, config: Mapping[str, Any]) -> None:
    console.rule("done")
    tries = {f"foreact data view {out / 'data'}": "the demonstrations"}
    if "task" in config:
        task = config["task"]
        other = next(name for name in ("door-open-v3", "drawer-open-v3") if envs.resolve(name) != envs.resolve(task))
        tries |= {
            f"foreact eval checkpoint={out} episodes=100": "a narrower interval",
            f"foreact quickstart task={other}": "another task (foreact tasks lists them)",
            f"foreact quickstart task={task} train.align=0 out={out}-noalign": "without simulator state in training",
        }
    else:
        tries |= {
            f"foreact eval checkpoint={out} instructions=shuffled out={out}-shuffled": "does it listen?",
            f"foreact collect policy={out} relabel=expert episodes=20 seed=1 out={out}-visited": "where it goes wrong",
            f"foreact pack checkpoint={out} out=pretrained/{out.name}": "weights and a model card, to give away",
        }
    lines = [f"Open   {out / 'report.html'}   success, failures, films, curves"]
    lines += [f"       {out / 'videos'}   what the robot did, beside what it foresaw"]
    lines += [f"{'' if i else 'Try':6} {command}   {why}" for i, (command, why) in enumerate(tries.items())]
    say("\n".join(lines))
