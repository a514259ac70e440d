"""Evaluate a policy: many environments in worker processes, one batch of inference across all that wait.

The result of an episode depends on (seed, episode) and the policy alone: noise is keyed by (seed, episode,
step), inference runs at one padded batch shape, and rows are independent. So neither the number of workers
nor who waits beside whom can change it.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ..common.machine import usable_threads
from ..data.whole import write_json
from ..envs.errors import UserError
from ..envs.spec import Camera
from . import stage
from .actors import InsideActor, PolicyActor
from .casting import as_actor, beside_workers
from .engine import Engine, Job, Running, Schedule
from .journal import Journal
from .plan import Plan
from .policies import every_on
from .protocol import Protocol
from .reports.film import write_film
from .reports.progress import progress_bar
from .reports.report import write_report
from .reports.results import assemble, show
from .stage import Look, Start
from .workers import Pool


def evaluate(
    policy: Any,
    tasks: Sequence[str] | None = None,
    *,
    episodes: int = 20,
    seed: int = 1000,
    out: Path | str | None = None,
    max_steps: int = 500,
    every: int | None = None,
    solver_steps: int | None = None,
    n_action_steps: int | None = None,
    ensemble: float | None = None,
    batch_size: int | None = None,
    n_envs: int | None = None,
    workers: int | None = None,
    video: int = 0,
    cameras: Sequence[Camera] | None = None,
    protocol: Protocol | None = None,
    progress: bool = True,
    resume: bool = True,
    run: Path | str | None = None,
    device: str = "auto",
    runtime: str = "torch",
    command: str | None = None,
    registry: str = "foreact.envs",
) -> dict[str, Any]:
    """Roll out a policy on tasks and count its successes; returns what `results.json` holds.

    policy: a policy object, a checkpoint's or run's folder, 'expert' or 'random'. tasks: ids or bare names;
    None: those that the checkpoint was trained on (all, for expert and random). Episode i of each task has
    seed `seed + i` and succeeds if the task's rule holds at any step within `max_steps` of the simulator's own.
    every: how many of those a control step has; None: as the policy learned, and of several rates at the fastest.
    solver_steps, n_action_steps, ensemble, batch_size: see `PolicyActor`; batch_size is the padded batch of inference.
    n_envs, workers: environments and the processes that hold them; they change the speed and nothing else.
    video: films of the first so many episodes of each task. cameras: other views than the checkpoint's own.
    protocol: how they are drawn and in which words the tasks are told; None: our own.
    out: a folder for results.json, report.html, videos and the journal from which the same call resumes.
    run: the training run whose curves the report shows; None: `out` or the folder above it, if it holds one.
    device, runtime: for a policy that is loaded here (`policy.runtimes.RUNTIMES`).

    Raises `UserError` on a policy that does not fit the environments, before anything is rolled out.
    """
    options = {"solver_steps": solver_steps, "n_action_steps": n_action_steps}
    options |= {"ensemble": ensemble, "batch_shape": batch_size}
    with beside_workers(policy):
        actor = as_actor(policy, device=device, runtime=runtime, **options)
        world = import_module(registry)
        names = _names(actor, tasks, world)
        if isinstance(actor, PolicyActor):
            actor, every = _at_work(actor, names, world, every, n_action_steps)
        if cameras is None and isinstance(actor, PolicyActor):
            cameras = actor.policy.embodiment.cameras
        protocol = protocol or Protocol()
        plan = Plan(
            tasks=protocol.told([world.task(name) for name in names]),
            episodes=episodes,
            seed=seed,
            max_steps=max_steps,
            cameras=protocol.cameras(cameras),
            every=1 if every is None else every,
            video=video,
        )
        settings = plan.describe() | protocol.describe(plan.tasks)
        with Journal(out, actor.identity() | settings, resume=resume) as journal:
            pool_of = partial(make_pool, actor=actor, n_envs=n_envs, workers=workers, registry=registry)
            seconds = _roll_out(actor, plan, journal, pool_of, progress)
            about = {"policy": actor.describe(), "settings": settings}
            results = assemble(journal.records, plan.tasks, **about, seconds=seconds, command=command)
            if journal.folder is not None:
                write_json(journal.folder / "results.json", results)
                write_report(journal.folder, results, run=run)
    if progress:
        show(results)
    return results


def _roll_out(
    actor: InsideActor | PolicyActor,
    plan: Plan,
    journal: Journal,
    pool_of: Callable[[int], Pool],
    progress: bool,
) -> float:
    """Add the episodes that the journal lacks; the seconds that it took. pool_of: for so many of them."""
    began = time.perf_counter()
    schedule = Schedule(plan.jobs({(r["task"], r["episode"]) for r in journal.records}))
    with progress_bar(journal.records, len(schedule), enabled=progress) as tick:
        if len(schedule):
            with pool_of(len(schedule)) as pool:
                check(actor, plan, pool)
                _engine(actor, plan, schedule, pool, journal, tick).run()
    return time.perf_counter() - began


def make_pool(
    episodes: int,
    actor: InsideActor | PolicyActor | None,
    n_envs: int | None,
    workers: int | None,
    registry: str,
) -> Pool:
    """Workers and slots that suit the machine, the batch and the number of episodes left."""
    workers = usable_threads() if workers is None else workers
    if n_envs is None:
        # Twice the batch: one half of the environments moves while the other half's looks are inferred.
        n_envs = min(2 * actor.rows, 4 * workers) if isinstance(actor, PolicyActor) else workers
    return Pool(slots=min(n_envs, episodes), workers=workers, registry=registry)


def check(actor: InsideActor | PolicyActor, plan: Plan, pool: Pool) -> None:
    """Build one environment of each suite and compare embodiments, before any rollout."""
    if not isinstance(actor, PolicyActor):
        return
    one_of_each = {task.id.split("/")[0]: task for task in reversed(plan.tasks)}
    for task in one_of_each.values():
        theirs = pool.call(0, stage.describe, task=task.id, cameras=plan.cameras, every=plan.every)
        stage.check_embodiment(actor.policy.embodiment, theirs, task.id)


def _engine(
    actor: InsideActor | PolicyActor, plan: Plan, schedule: Schedule, pool: Pool, journal: Journal, tick
) -> Engine:
    policy = actor if isinstance(actor, PolicyActor) else None
    kind = actor.kind if isinstance(actor, InsideActor) else ""
    filmed = journal.folder is not None and plan.video > 0

    def is_filmed(job: Job) -> bool:
        return filmed and job.episode < plan.video

    def launch(job: Job) -> tuple[Callable[..., Look], dict[str, Any]]:
        film_every = plan.film_every if is_filmed(job) else 0
        start = Start(task=job.task.id, seed=job.seed, max_steps=plan.max_steps, cameras=plan.cameras, every=plan.every)
        start = dataclasses.replace(start, film_every=film_every, **(policy.sight() if policy else {}))
        if policy:
            return stage.begin, {"start": start}
        return stage.play, {"start": start, "kind": kind, "key": job.key}

    def finish(running: Running, look: Look) -> None:
        if look.film and journal.folder is not None:
            _write_film(journal.folder / "videos", running, look)
        journal.append(record(running, look))
        tick()

    return Engine(pool, schedule, launch=launch, finish=finish, actor=policy, filmed=is_filmed)


def record(running: Running, look: Look) -> dict[str, Any]:
    """The journal's line of a finished episode."""
    return {
        "task": running.job.task.name,
        "episode": running.job.episode,
        "seed": running.job.seed,
        "length": look.step,
        "success": look.success,
        "reward": look.reward,
        "actions": look.actions,
        "looks": [[round(ms, 3), rows] for ms, rows in running.costs],
    }


def _write_film(folder: Path, running: Running, look: Look) -> None:
    job, outcome = running.job, "success" if look.success else "failure"
    title = f"{job.task.name} · seed {job.seed}"
    path = folder / f"{job.task.name}_{job.seed}_{outcome}.mp4"
    write_film(path, look.film, running.foresights, title=title, success=look.success)


def _names(actor: InsideActor | PolicyActor, tasks: Sequence[str] | None, world: Any) -> list[str]:
    if isinstance(tasks, str):
        return [tasks]
    if tasks is not None:
        return list(tasks)
    return list(actor.policy.tasks) if isinstance(actor, PolicyActor) else world.tasks()


def _at_work(
    actor: PolicyActor, tasks: Sequence[str], world: Any, every: int | None, n_action_steps: int | None
) -> tuple[PolicyActor, int]:
    """The same actor on the one robot of all these tasks, and how many of its own steps a control step has."""
    robots = {robot.name: robot for robot in map(world.embodiment, tasks)}
    if len(robots) > 1:
        names = ", ".join(sorted(robots))
        raise UserError(f"the tasks are of the robots {names}; evaluate those of one at a time: tasks=[…]")
    for robot in robots.values():
        every = every_on(actor.policy, robot) if every is None else every
        actor = actor.on(robot.at(every).name, n_action_steps)
    return actor, every or 1
