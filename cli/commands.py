"""What each verb of the command line does: take a configuration, call one function, say where to look.

From Python: `commands.train(compose.config_of("train", ["data=…", "out=…"]))`.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import envs
from ..data.provenance import command_line
from ..envs.errors import UserError, choose
from .compose import home, listed, refuse, task_names
from .terminal import console, say


def collect(config: Mapping[str, Any]) -> None:
    """Collect episodes into a zarr store: of the environments' scripted experts, or of a policy."""
    from ..data.collect import collect as run

    tasks = None if config["tasks"] is None else task_names(config["tasks"])
    passed = ("seed", "workers", "noise", "hold", "successes_only", "reference", "max_steps", "every")
    options = {name: config[name] for name in passed}
    if config["policy"] == "expert":
        if not tasks:
            raise UserError("foreact collect needs tasks=, or policy=RUN, whose tasks they then are by default")
        refuse(config, ("relabel", "beta"), "policy=expert needs nobody who tells what it should do")
        options["cameras"] = envs.views(tasks[0], config["cameras"], config["pixels"], depth=config["depth"])
    else:
        policy, piloted = _piloted(config)
        tasks, options = tasks or policy.tasks, options | piloted
    with run(tasks, config["episodes"], config["out"], **options) as store:
        say(f"{store.path}: {len(store)} episodes, {store.n_steps} steps. Look: foreact data view {store.path}")


def _piloted(config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The policy that drives a collection, and what `data.collect` takes of it."""
    from ..data.demonstrate import Labels
    from ..eval.recording import pilot

    refuse(config, ("cameras", "pixels", "depth"), "a policy that drives sees through its own cameras")
    labels = None
    if config["relabel"] is None:
        refuse(config, ("beta",), "without relabel=expert the policy alone acts")
    else:
        choose(config["relabel"], ("expert",), "relabel")
        labels = Labels(beta=float(config["beta"]))
    policy, at_the_wheel = pilot(config["policy"], config["device"], config["every"])
    return policy, {"pilot": at_the_wheel, "labels": labels, "cameras": policy.embodiment.cameras}


def train(config: Mapping[str, Any], *, dry_run: bool = False) -> None:
    """Train a preset on a store; the same command with the same out resumes exactly."""
    from ..policy import TrainConfig, load_policy
    from ..policy import train as run
    from ..policy.describe import describe
    from ..policy.distill import DistillConfig
    from ..policy.latents import TokenizerConfig
    from ..policy.settings import build
    from ..policy.train import build_preset

    model = build_preset(config["model"])
    is_tokenizer = isinstance(model, TokenizerConfig)
    out = config["out"] or (f"{config['data']}.tokenizer" if is_tokenizer else None)
    settings = build(TrainConfig, {f.name: config[f.name] for f in fields(TrainConfig)}, "train")
    if dry_run:
        if isinstance(model, DistillConfig):
            if config["teacher"] is None:
                raise UserError("model=distill needs teacher=, the run whose policy is distilled")
            model = model.student(load_policy(config["teacher"], "cpu").config)
        say(describe(model, config["data"], settings))
        return
    if out is None:
        raise UserError("foreact train needs out=; see: foreact train --help")
    evaluate = _rollouts(config) if settings.rollout_every else None
    options = {k: config[k] for k in ("tokenizer", "teacher", "labels", "init")}
    options |= {"command": command_line(), "evaluate": evaluate}
    folder = run(config["data"], model, settings, out, **options)
    after = f"foreact train … tokenizer={folder}" if is_tokenizer else f"foreact eval checkpoint={folder}"
    say(f"{folder}: trained for {settings.steps} steps. Next: {after}")


def _rollouts(config: Mapping[str, Any]) -> Callable[..., dict[str, float]]:
    from ..eval import evaluate

    def rollouts(policy: Any, step: int) -> dict[str, float]:
        results = evaluate(policy, episodes=config["rollout_episodes"], seed=2000, progress=False)
        return {name: entry["success"] for name, entry in results["per_task"].items()}

    return rollouts


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Roll out a checkpoint, the experts, random actions or a stored episode's own, and count successes."""
    from ..eval import evaluate as run
    from ..eval.protocol import Protocol
    from ..eval.replay import replay

    kind = choose(config["policy"], ("checkpoint", "expert", "random", "replay"), "policy")
    out = Path(config["out"]) if config["out"] else _results_folder(kind, config["checkpoint"], config["runtime"])
    if kind == "replay":
        if config["data"] is None:
            raise UserError("foreact eval policy=replay needs data=, the store whose episodes are to be run again")
        results = replay(config["data"], out=out, workers=config["workers"], command=command_line())
    else:
        if kind == "checkpoint" and config["checkpoint"] is None:
            raise UserError("foreact eval needs checkpoint=RUN, or policy=expert, random or replay")
        policy = config["checkpoint"] if kind == "checkpoint" else kind
        passed = (
            "episodes", "seed", "max_steps", "every", "solver_steps", "n_action_steps", "ensemble", "batch_size",
            "n_envs", "workers", "video", "device", "runtime",
        )  # fmt: skip
        options = {name: config[name] for name in passed}
        shown = {name: config[name] for name in ("views", "look", "source", "instructions")}
        options["protocol"] = Protocol(name=config["protocol"], **shown)
        tasks = None if config["tasks"] is None else task_names(config["tasks"])
        curves = config["checkpoint"] and (Path(config["checkpoint"]) / "metrics.jsonl").is_file()
        trained = config["checkpoint"] if curves else None
        results = run(policy, tasks, out=out, run=trained, command=command_line(), **options)
    say(f"Results: {out / 'results.json'}   Report: {out / 'report.html'}")
    return results


def imagine(config: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a checkpoint what comes, on stored or fresh episodes; write videos and print how near it came."""
    from ..data.store import Store
    from ..eval.imagine import imagine as run
    from ..eval.imagine import show
    from ..eval.recording import record
    from ..policy import load_policy
    from ..policy.checkpoint import find_checkpoint

    policy = load_policy(config["checkpoint"], config["device"])
    out = Path(config["out"]) if config["out"] else _beside(config["checkpoint"], "imagine")
    episodes = config["episodes"]
    if config["task"] is not None:
        driver = find_checkpoint(config["checkpoint"]).name if config["driver"] == "policy" else config["driver"]
        live = out / f"live-{envs.task(config['task']).name}-{driver}-{config['seed']}"
        out.mkdir(parents=True, exist_ok=True)
        data = record(policy, config["task"], _count(episodes), live, driver=config["driver"], seed=config["seed"])
    elif config["data"] is not None:
        data = Store.open(config["data"])
    else:
        raise UserError("foreact imagine needs data=, a store, or task=, to record fresh episodes of")
    queries = None if config["query"] is None else listed(config["query"])
    found = run(
        policy, data, queries=queries, episodes=episodes, every=config["every"], guidance=config["guidance"],
        samples=config["samples"], out=out, shown=config["shown"],
    )  # fmt: skip
    show(found, console)
    say(f"Videos: {out}   Numbers: {out / 'imagine.json'}")
    return found


def _count(episodes: Any) -> int:
    if not isinstance(episodes, int):
        raise UserError(f"with task= fresh episodes are recorded: episodes= is how many, got {episodes}")
    return episodes


def _results_folder(kind: str, checkpoint: str | None, runtime: str) -> Path:
    if kind != "checkpoint" or checkpoint is None:
        return home() / f"eval-{kind}"
    return _beside(checkpoint, "eval" if runtime == "torch" else f"eval-{runtime}")


def _beside(checkpoint: str, what: str) -> Path:
    """A folder for what is found out about a checkpoint: inside it, but for those that come with foreact."""
    from ..policy.checkpoint import packaged_name

    name = packaged_name(checkpoint)
    return Path(checkpoint) / what if name is None else home() / f"{what}-{name}"


def pack(config: Mapping[str, Any]) -> Path:
    """Write a checkpoint as a folder to give away: weights in bf16 and a model card."""
    from ..eval.pack import pack as run

    folder = run(config["checkpoint"], config["out"], results=config["results"])
    say(f"{folder}: {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.1f} MB. Next: read {folder / 'README.md'}, "
        f"and foreact eval checkpoint={folder}")  # fmt: skip
    return folder


def export(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write a checkpoint's network for other runtimes, and say how near and how fast they are."""
    from ..eval.export import export as run
    from ..eval.export import show

    options = {name: config[name] for name in ("data", "rows", "bounds", "device")}
    found = run(config["checkpoint"], runtimes=listed(config["runtimes"]), **options)
    show(found, console)
    fastest = min(found, key=lambda runtime: found[runtime]["ms"])
    where = f" device={config['device']}" if fastest == "aot" else ""
    say(f"Next: foreact eval checkpoint={config['checkpoint']} runtime={fastest}{where}")
    return found


def bench(name: str, config: Mapping[str, Any]) -> None:
    """Measure speed against a named baseline in the same run."""
    from ..eval.bench import bench as run

    run(name, {**config, "out": config["out"] or home() / "bench"})


def list_tasks() -> None:
    """Print every task with its difficulty group and instruction."""
    for task in map(envs.task, envs.tasks()):
        say(f"{task.id:42} {task.group:10} {task.instruction}")
