"""How long an experiment will take here: a demonstration of its first task and some updates are timed before it begins.

Demonstrations and updates that are there already, because an earlier call was stopped, are not counted.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import envs
from ..common import machine
from .commands import task_names

SIDE_BY_SIDE = 1.2
"""How much longer a demonstration takes while others are recorded on the other cores."""

START = 10.0
"""Seconds of an evaluation that do not grow with its episodes: processes, first pictures, films and the report."""

Settings = Mapping[str, Any]


def describe_forecast(stages: Mapping[str, Settings]) -> str:
    """'About 9 minutes here (…): collect 2, train 6, eval 1', for the settings of an experiment's stages."""
    from ..policy.device import resolve

    train = stages["train"]
    placed = resolve(train["device"], train["precision"], train["kernels"], train["threads"])
    minutes = {stage: seconds / 60 for stage, seconds in forecast(stages).items()}
    parts = ", ".join(f"{stage} {_rounded(m)}" for stage, m in minutes.items())
    where = machine.processor_name() if placed.device == "cpu" else placed.device
    about = f"{where}, {placed.threads} threads, {placed.precision}"
    return f"About {_rounded(sum(minutes.values()))} minutes here ({about}): {parts}"


def forecast(stages: Mapping[str, Settings]) -> dict[str, float]:
    """Seconds that each stage of an experiment ('collect', 'train', 'eval') still takes on this machine."""
    collect, train, evaluation = stages["collect"], stages["train"], stages["eval"]
    tasks = task_names(collect["tasks"])
    attempt = time_attempt(tasks[0], collect)
    workers = collect["workers"] or machine.usable_threads()
    seconds = attempt.seconds / workers * (SIDE_BY_SIDE if workers > 1 else 1)
    left = len(tasks) * collect["episodes"] - _collected(Path(collect["out"]))
    updates = train["steps"] - _trained(Path(train["out"]))
    update = time_update(train, attempt.cameras) if updates > 0 else 0.0
    return {
        "collect": max(0, left) * seconds,
        "train": updates * update,
        "eval": START + len(tasks) * evaluation["episodes"] * seconds,
    }


@dataclass(frozen=True)
class Attempt:
    """One demonstration of an expert: how long it took, and from how many cameras."""

    seconds: float
    cameras: int


def time_attempt(task: str, collect: Settings) -> Attempt:
    """Record one demonstration as `foreact collect` would, and forget it."""
    from ..data.collect import FIRST_SEED
    from ..data.demonstrate import EXPERT, Noise, demonstrate

    cameras = envs.views(task, collect["cameras"], collect["pixels"], depth=collect["depth"])
    env = envs.make(task, cameras=cameras, every=collect["every"] or 1)
    try:
        env.reset(seed=FIRST_SEED)  # builds what draws
        began = time.perf_counter()
        demonstrate(
            env, FIRST_SEED, noise=Noise(), hold=collect["hold"], act=None, keep_failures=True, source=EXPERT,
            max_steps=collect["max_steps"],
        )  # fmt: skip
        return Attempt(time.perf_counter() - began, len(env.embodiment.cameras))
    finally:
        env.close()


def time_update(train: Settings, cameras: int) -> float:
    """Seconds of an update of the preset, on a made-up batch: the shortest of three."""
    from ..eval.bench.train import Rehearsal
    from ..policy.config import ModelConfig
    from ..policy.device import on_threads
    from ..policy.settings import build

    preset = build(ModelConfig, train["model"], "model")
    how = {name: train[name] for name in ("device", "precision", "kernels", "threads")}
    update = Rehearsal(preset, train["batch_size"], cameras=cameras, **how)
    times = []
    with on_threads(train["threads"] or None):
        update()  # the first one also packs weights and takes memory
        for _ in range(3):
            began = time.perf_counter()
            update()
            times.append(time.perf_counter() - began)
    return min(times) * train["accumulate"]


def _collected(store: Path) -> int:
    """Episodes that a store has; 0 where there is none."""
    from ..data.store import Store

    if not store.exists():
        return 0
    with Store.open(store) as found:
        return len(found)


def _trained(run: Path) -> int:
    """Updates that a run has saved; 0 where there is none."""
    latest = run / "checkpoints" / "latest"
    return int(latest.read_text(encoding="utf-8")) if latest.is_file() else 0


def _rounded(minutes: float) -> str:
    return f"{minutes:.0f}" if minutes >= 2 else f"{minutes:.1f}"
