"""Replay a store in the simulator: the cheapest detector of flips, signs, clock and seed errors.

Each stored episode is begun again from its seed and driven by its `action_executed`. What succeeded must
succeed again, and every picture and every state must come out as stored.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..data.store import Store
from ..data.whole import write_json
from ..envs.errors import UserError
from ..envs.spec import Camera, Task
from .engine import Engine, Job, Running, Schedule
from .journal import Journal
from .reports.progress import progress_bar
from .reports.report import write_report
from .reports.results import assemble, show
from .rollout import make_pool, record
from .stage import Look, Stage, Start, check_embodiment, describe


@dataclass(kw_only=True)
class Replayed(Look):
    """How an episode came out again. mismatch: where the first picture differs, as {step, camera, diff}."""

    frames: int = 0
    frame_diff: int = 0
    state_diff: float = 0.0
    mismatch: dict[str, Any] | None = None


def replay(
    data: Path | str,
    *,
    episodes: int | None = None,
    out: Path | str | None = None,
    every: int = 1,
    n_envs: int | None = None,
    workers: int | None = None,
    progress: bool = True,
    resume: bool = True,
    command: str | None = None,
    registry: str = "foreact.envs",
) -> dict[str, Any]:
    """Run the stored actions of a store on the stored seeds; returns what `results.json` holds.

    episodes: only the first so many. every: compare the picture of each so-manieth step.
    The success rates count the stored successes. `replay` in the results holds the number of pictures
    compared, the largest differences of pictures (0 to 255) and states, each episode that differs, and how
    many episodes could not be replayed and why: no seed (as in an outside store), or an unknown task.
    """
    began = time.perf_counter()
    if every < 1 or (episodes is not None and episodes < 1):
        raise UserError(f"replay: every and episodes must be at least 1, got {every} and {episodes}")
    with Store.open(data) as store:
        jobs, skipped = _jobs(store, import_module(registry), episodes)
        identity = {"replay": str(Path(data).resolve()), "episodes": len(jobs), "every": every}
        with Journal(out, identity, resume=resume) as journal:
            done = {record["episode"] for record in journal.records}
            schedule = Schedule(job for job in jobs if job.episode not in done)
            with progress_bar(journal.records, len(schedule), enabled=progress) as tick:
                if len(schedule):
                    with make_pool(len(schedule), None, n_envs, workers, registry) as pool:
                        robot, task = store.embodiment, jobs[0].task.id
                        theirs = pool.call(0, describe, task=task, cameras=robot.cameras, every=robot.every)
                        check_embodiment(robot, theirs, task, "store")
                        _engine(store, every, pool, schedule, journal, tick).run()
            seconds = time.perf_counter() - began
            results = _results(journal.records, store, jobs, skipped, seconds, command, identity)
            if journal.folder is not None:
                write_json(journal.folder / "results.json", results)
                if results["per_task"]:
                    write_report(journal.folder, results)
    if progress:
        _show(results)
    return results


def replay_episode(stage: Stage, start: Start, data: str, episode: int, every: int) -> Replayed:
    """Command of a worker: one stored episode again, compared with what is stored."""
    store = _opened(data)
    ends = np.concatenate([[0], store.episode_ends])
    rows = slice(int(ends[episode]), int(ends[episode + 1]))
    actions, states = store.read("action_executed", rows), store.read("state", rows)
    stored = {c.name: store.read(f"image/{c.name}", rows) for c in store.embodiment.cameras}
    out = Replayed(step=0, done=True)
    stage.begin(start)
    for step, action in enumerate(actions):
        if step % every == 0:
            _compare(
                out,
                step,
                stage.observe(),
                states[step],
                {name: video[step] for name, video in stored.items()},
            )
        stage.act(action)
        out.success |= stage.success
        if stage.step >= stage.limit:
            break
    out.step, out.reward, out.actions = stage.step, stage.reward, stage.actions()
    return out


@lru_cache(maxsize=1)
def _opened(data: str) -> Store:
    return Store.open(data)


def _compare(out: Replayed, step: int, now: dict[str, Any], state: np.ndarray, pictures: dict[str, np.ndarray]) -> None:
    out.state_diff = max(out.state_diff, float(np.abs(np.asarray(now["state"], np.float32) - state).max()))
    for camera, picture in pictures.items():
        diff = int(np.abs(now["images"][camera].astype(np.int16) - picture).max())
        out.frames += 1
        out.frame_diff = max(out.frame_diff, diff)
        if diff and out.mismatch is None:
            out.mismatch = {"step": step, "camera": camera, "diff": diff}


def _jobs(store: Store, world: Any, episodes: int | None) -> tuple[list[Job], Counter[str]]:
    """The episodes that can be replayed, and why others cannot."""
    jobs, skipped, known = [], Counter(), {}
    for name in store.tasks:
        try:
            known[name] = world.task(name)
        except UserError:
            known[name] = None
    meta = store.meta
    for i, (name, seed) in enumerate(zip(meta.task, meta.seed, strict=True)):
        if episodes is not None and i >= episodes:
            break
        if known[name] is None:
            skipped[f"task {name} is not known here"] += 1
        elif seed < 0:
            skipped["no seed is stored"] += 1
        else:
            jobs.append(Job(task=known[name], episode=i, seed=int(seed)))
    return jobs, skipped


def _engine(store: Store, every: int, pool, schedule: Schedule, journal: Journal, tick) -> Engine:
    stored, sources = store.meta.success, store.meta.source
    data = str(store.path)

    def launch(job: Job):
        robot = store.embodiment
        cameras = _cameras(robot.cameras, sources[job.episode])
        start = Start(task=job.task.id, seed=job.seed, max_steps=job.task.max_steps, cameras=cameras, every=robot.every)
        return replay_episode, {"start": start, "data": data, "episode": job.episode, "every": every}

    def finish(running: Running, look: Look) -> None:
        assert isinstance(look, Replayed)
        line = record(running, look) | {"stored_success": bool(stored[running.job.episode])}
        journal.append(line | {k: getattr(look, k) for k in ("frames", "frame_diff", "state_diff", "mismatch")})
        tick()

    return Engine(pool, schedule, launch=launch, finish=finish)


def _cameras(cameras: tuple[Camera, ...], source: str) -> tuple[Camera, ...]:
    """The cameras of an episode: a store may mix looks, and its source then ends in '@look'."""
    look = source.partition("@")[2]
    return tuple(dataclasses.replace(c, look=look) for c in cameras) if look in ("fast", "reference") else cameras


def _results(
    records: Sequence[dict[str, Any]],
    store: Store,
    jobs: list[Job],
    skipped: Counter[str],
    seconds: float,
    command: str | None,
    identity: dict[str, Any],
) -> dict[str, Any]:
    good = [record for record in records if record["stored_success"]]
    failures = [record for record in records if not record["stored_success"]]
    tasks: dict[str, Task] = {job.task.name: job.task for job in jobs}
    results = assemble(
        good,
        list(tasks.values()),
        policy={"policy": "replay"},
        settings={"data": str(store.path), **{k: identity[k] for k in ("episodes", "every")}},
        seconds=seconds,
        command=command,
    )
    keys = ("episode", "task", "seed", "frame_diff", "state_diff", "mismatch")
    ordered = sorted(records, key=lambda r: r["episode"])
    differing = [{k: r[k] for k in keys} for r in ordered if r["mismatch"] or r["state_diff"] > 0]
    results["replay"] = {
        "frames": sum(r["frames"] for r in records),
        "max_frame_diff": max((r["frame_diff"] for r in records), default=0),
        "max_state_diff": max((r["state_diff"] for r in records), default=0.0),
        "differing": differing,
        "stored_failures": {"n": len(failures), "failed_again": sum(not r["success"] for r in failures)},
        "skipped": dict(skipped),
    }
    return results


def _show(results: dict[str, Any]) -> None:
    found = results["replay"]
    if results["per_task"]:
        show(results)
    print(
        f"{found['frames']} pictures compared: largest difference {found['max_frame_diff']} of 255; "
        f"states: {found['max_state_diff']:g}; {len(found['differing'])} episodes differ"
    )
    for episode in found["differing"][:5]:
        who = f"episode {episode['episode']} ({episode['task']}, seed {episode['seed']})"
        print(f"  {who}: {episode['mismatch']}")
    for reason, n in found["skipped"].items():
        print(f"  {n} episodes not replayed: {reason}")
