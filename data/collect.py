"""Collect demonstrations: run experts in simulators, several at a time, into a store that can be continued.

The store is a function of the settings alone. Attempt k of a task is the episode of seed
``FIRST_SEED + 1_000_000 * seed + k``, far from the seeds 1000, 1001 … of evaluation; successful attempts
enter the store in the order of tasks and attempts, however many workers there are and whoever is first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .. import envs
from ..common.machine import usable_threads
from ..envs.errors import UserError
from ..envs.spec import Camera, Embodiment
from . import layout
from .agenda import Agenda
from .crew import Alone, Crew, Processes, Recipe
from .demonstrate import Labels, Noise, Pilot
from .provenance import package_versions
from .store import Store

FIRST_SEED = 100_000
SEEDS_PER_RUN = 1_000_000


def collect(
    tasks: Sequence[str],
    episodes: int,
    out: Path | str,
    *,
    seed: int = 0,
    workers: int = 0,
    noise: float | Noise | None = None,
    hold: int = 5,
    successes_only: bool | None = None,
    reference: float = 0.0,
    cameras: Sequence[Camera] | None = None,
    pilot: Pilot | None = None,
    labels: Labels | None = None,
    max_steps: int | None = None,
    every: int | None = None,
    progress: bool = True,
) -> Store:
    """Bring the store at `out` to `episodes` episodes of each of `tasks`, and return it, open for reading.

    Run again with the same settings, it continues where it was stopped or killed; only `episodes` may grow
    and `workers` may differ. A store collected otherwise is a `UserError` that names the difference.

    workers: processes that simulate and draw; 0: one a core, at most one per episode; 1: this process.
    noise: exploration, see `Noise`; `action` is the expert's all the same, `action_executed` what was done.
    Default 0.3 where the expert drives; a pilot explores by its own mistakes.
    hold: steps recorded after success. successes_only: leave failed attempts out; default where the expert drives.
    reference: share of the episodes in the simulator's own look; their source is 'expert@reference'. cameras:
    instead of the environment's own. pilot: a policy that drives instead of the expert. labels: the expert tells
    the actions of the pilot's drive. max_steps: where an attempt is cut; None: at the task's own limit. every: how many
    of the simulator's own steps a control step has (`Embodiment.at`); None: 1, or as the pilot drives.
    """
    alone = pilot is None
    std = (0.3 if alone else 0.0) if noise is None else noise
    recipe = Recipe(
        noise=std if isinstance(std, Noise) else Noise(std=float(std)),
        hold=hold,
        keep_failures=not (alone if successes_only is None else successes_only),
        cameras=tuple(cameras) if cameras is not None else None,
        reference=reference,
        pilot=pilot,
        labels=labels,
        max_steps=max_steps,
        every=(1 if pilot is None else pilot.every) if every is None else every,
    )
    names = list(dict.fromkeys(envs.resolve(task) for task in tasks))
    if not names or episodes < 1 or workers < 0 or seed < 0:
        raise UserError(
            f"collect needs at least one task, episodes >= 1, workers >= 0 and seed >= 0; "
            f"got {len(names)} tasks, episodes={episodes}, workers={workers}, seed={seed}"
        )
    out = Path(out)
    embodiment = _embodiment(names[0], recipe)
    config = _config(names, seed, recipe)
    with _open(out, embodiment, config) as store:
        agenda = Agenda.of(store, names, episodes, FIRST_SEED + SEEDS_PER_RUN * seed)
        if any(todo.wanted for todo in agenda.tasks):
            crew = _crew(recipe, workers, sum(todo.wanted for todo in agenda.tasks))
            try:
                _run(store, agenda, crew, len(names) * episodes, progress)
            finally:
                crew.close()
    return Store.open(out)


def _run(store: Store, agenda: Agenda, crew: Crew, total: int, progress: bool) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *times, console=Console(stderr=True), disable=not progress) as bar:
        line = bar.add_task("collect", total=total, completed=total - sum(t.wanted for t in agenda.tasks), rate="")
        steps = 0
        while any(todo.wanted for todo in agenda.tasks):
            _start(agenda, crew)
            results = crew.results()
            for job, episode in results:
                agenda.finish(job, episode)
            _start(agenda, crew)  # before writing, so that nobody waits for the disk
            for episode in agenda.enter():
                store.append(episode)
                steps += len(episode)
                seconds = bar.tasks[line].elapsed or 0.0
                bar.update(
                    line,
                    advance=1,
                    description=episode.task,
                    rate=f"{steps / max(seconds, 1e-9):.0f} steps/s",
                )


def _start(agenda: Agenda, crew: Crew) -> None:
    while crew.free and (job := agenda.next_job(ahead=32)):
        crew.start(job)


def _config(names: list[str], seed: int, recipe: Recipe) -> dict[str, Any]:
    """What decides the content of a store beside its embodiment; kept in it and compared when continued."""
    noise, pilot, labels = recipe.noise, recipe.pilot, recipe.labels
    config: dict[str, Any] = {
        "tasks": names,
        "seed": seed,
        "driver": "expert" if pilot is None else "policy",
        "noise": {"std": noise.std, "burst": noise.burst, "rest": noise.rest},
        "hold": recipe.hold,
        "successes_only": not recipe.keep_failures,
        "reference": recipe.reference,
        "max_steps": recipe.max_steps,
        "policy": None if pilot is None else pilot.name,
        "relabel": None if labels is None else "expert",
    }
    if labels is not None:
        who = "the policy's, and the expert's at a share `beta` of the steps" if labels.beta else "the policy's"
        config |= {"beta": labels.beta, "fields": {"action": "the expert's", "action_executed": who}}
    return config


def _open(out: Path, embodiment: Embodiment, config: dict[str, Any]) -> Store:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        out.parent.mkdir(parents=True, exist_ok=True)
        store = Store.create(out, embodiment, privileged=embodiment.privileged_dim > 0)
        return _with_record(store, config)
    store = Store.open(out, mode="a")
    try:
        recorded = layout.read_root(out)["attributes"].get("collect")
        differences = [f"embodiment {line}" for line in store.embodiment.differences(embodiment, ignore_look=False)]
        if recorded is None and len(store) == 0:
            return _with_record(store, config)
        if recorded is None:
            differences.append("collect: it was not made by collecting")
        else:
            differences += [
                f"{k}: {recorded.get(k)!r} there, {v!r} now" for k, v in config.items() if recorded.get(k) != v
            ]
        if differences:
            raise UserError(
                f"{out} holds {len(store)} episodes that were made differently ({'; '.join(differences)}); "
                "use the same settings to continue, or another path"
            )
    except BaseException:
        store.close()
        raise
    return store


def _with_record(store: Store, config: dict[str, Any]) -> Store:
    """Write the settings into the store's attributes, under its writer's lock, and open it again."""
    root = layout.read_root(store.path)
    versions = package_versions(("foreact", "numpy", *envs.packages(config["tasks"][0])))
    root["attributes"]["collect"] = config | {"versions": versions}
    layout.replace_json(store.path / "zarr.json", root)
    store.close()
    return Store.open(store.path, mode="a")


def _embodiment(task: str, recipe: Recipe) -> Embodiment:
    env = envs.make(task, cameras=recipe.cameras, every=recipe.every)
    env.close()
    return env.embodiment


def _crew(recipe: Recipe, workers: int, wanted: int) -> Crew:
    workers = min(workers or usable_threads(), wanted)
    return Alone(recipe) if workers == 1 else Processes(recipe, workers)
