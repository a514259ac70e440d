"""Does the control loop keep its rate? When actions were sent, beside a policy that thinks, and what memory it took."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ...data.provenance import command_line
from ...data.whole import whole, write_json
from ...envs.errors import UserError
from ...policy.device import describe_machine, on_threads
from ..actors import PolicyActor
from ..casting import as_actor
from ..robot.clock import RealClock
from ..robot.control import Control
from ..robot.rehearsal import Rehearsal, demonstrated
from ..robot.runs import ControlSettings, Run
from ..robot.safety import SafetySettings
from .timing import console, machine

LATE = 2e-3
"""Seconds after which an action that was due has missed its moment."""
WANTED = 1e-3
"""The share of control steps that may do so."""
LOOP, BARE = "foreact control", "sleeping alone"
"""The baseline is what the machine itself can do: a thread that wakes at the same rate and does nothing."""


@dataclass
class Kept:
    """What a run of many episodes leaves: seconds after its moment at which each action was sent, those steps that were
    over before they could begin, those without an action of the policy, seconds of each answer, and the memory of the
    process [MB] over time [s].
    """

    acted: list[np.ndarray] = field(default_factory=list)
    skipped: int = 0
    latencies: list[np.ndarray] = field(default_factory=list)
    resting: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)

    def add(self, run: Run, now: float) -> None:
        """An episode has ended, `now` seconds after the first began."""
        self.acted.append(np.array([tick.acted for tick in run.ticks]))
        self.latencies.append(np.array(run.latencies))
        self.skipped += run.skipped
        self.resting += sum(tick.asked is None for tick in run.ticks)
        self.memory.append((now, resident()))


def resident() -> float:
    """Memory of this process that is in use [MB]."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def lateness(acted: np.ndarray, skipped: int) -> dict[str, Any]:
    """How late actions were. acted (N,): seconds from when each was due until it was sent · skipped: steps whose action
    never was; they have missed their moment as well.
    """
    steps = len(acted) + skipped
    ends = {f"p{q:g}": 1e3 * float(np.percentile(acted, q)) for q in (50, 99, 99.9, 100)}
    missed = int((acted > LATE).sum()) + skipped
    return {"steps": steps, "skipped": skipped, "missed": missed, "missed_share": missed / max(steps, 1), "ms": ends}


def growth(memory: list[tuple[float, float]]) -> float:
    """MB a minute by which memory grew, by a line through all but the first fifth of the time; 0 if that is short."""
    times, used = np.array(memory).T
    later = times >= times[-1] / 5
    if later.sum() < 3:
        return 0.0
    return 60 * float(np.polyfit(times[later], used[later], 1)[0])


def bench_control(
    checkpoint: Path | str,
    task: str | None = None,
    *,
    minutes: float = 5.0,
    hz: float | None = None,
    mode: str = "realtime",
    device: str = "auto",
    runtime: str = "torch",
    threads: int = 1,
    out: Path | str = "bench",
) -> None:
    """Drive a `Rehearsal` of a task in real time for so long, and write when its actions were sent.

    task: default the checkpoint's first · hz: default the robot's own · threads: of the policy. Writes `control.json`
    and `control.png` into the folder `out`. Raises `UserError` as `Control` does.
    """
    if not minutes > 0:
        raise UserError(f"minutes must be above 0, got {minutes:g}")
    with on_threads(threads):
        actor = as_actor(checkpoint, device=device, runtime=runtime, batch_shape=1)
        if not isinstance(actor, PolicyActor):
            raise UserError(f"bench control takes a checkpoint, not {checkpoint}")
        clock = RealClock()
        robot = Rehearsal(*demonstrated(task or actor.policy.tasks[0], actor.policy.embodiment.cameras), clock)
        settings = ControlSettings(mode=mode, hz=hz, max_steps=_steps(robot, hz), uncovered="rest")
        loop = Control(robot, actor, clock, settings, SafetySettings(patience=60), keep=False)
        bare = _sleeps(loop.hz, 60 * minutes / 10)
        kept = _drive(loop, 60 * minutes)
    found = {LOOP: lateness(np.concatenate(kept.acted), kept.skipped), BARE: lateness(bare, 0)}
    slope = growth(kept.memory)
    _show(f"control · {actor.name} on {robot.task} at {loop.hz:g} Hz, {mode}", found, kept, slope)
    console.print(machine(str(getattr(actor.policy, "device", "cpu"))))
    about = {"command": command_line(), "machine": describe_machine(), "policy": actor.name, "task": robot.task}
    times = {"hz": loop.hz, "mode": mode, "minutes": kept.memory[-1][0] / 60, "lateness": found}
    held = {"memory_mb": kept.memory, "growth_mb_a_minute": slope, "resting": kept.resting}
    asked = {"latency_ms": {f"p{q}": 1e3 * float(np.percentile(np.concatenate(kept.latencies), q)) for q in (50, 99)}}
    Path(out).mkdir(parents=True, exist_ok=True)
    edges, counts = _histogram(np.concatenate(kept.acted))
    shape = {"histogram": {"edges_ms": edges.tolist(), "counts": counts.tolist()}}
    write_json(Path(out) / "control.json", {**about, **times, **asked, **held, **shape})
    _draw(Path(out) / "control.png", {LOOP: np.concatenate(kept.acted), BARE: bare}, kept.memory)
    share = 100 * found[LOOP]["missed_share"]
    print(f"sent more than {1e3 * LATE:g} ms late: {share:.3f} % of the steps (wanted: {100 * WANTED:g} % at most)")


def _steps(robot: Rehearsal, hz: float | None) -> int:
    """Control steps of an episode: ten seconds, so that what an episode leaves is let go of every now and then."""
    return round(10 * (hz or robot.embodiment.control_hz))


def _drive(loop: Control, seconds: float) -> Kept:
    """Episodes until the time is over. Raises `UserError` where one does not reach its last step."""
    kept, began = Kept(), time.monotonic()
    for episode in _until(began + seconds):
        run = loop.run(episode)
        if run.outcome != "step limit":
            raise UserError(f"episode {episode} ended after {len(run.ticks)} steps: {run.outcome}")
        kept.add(run, time.monotonic() - began)
    return kept


def _until(end: float) -> Iterator[int]:
    episode = 0
    while episode == 0 or time.monotonic() < end:
        yield episode
        episode += 1


def _sleeps(hz: float, seconds: float) -> np.ndarray:
    """Seconds by which a thread that only sleeps wakes too late, at that rate: (N,)."""
    clock, late = RealClock(), []
    began = clock.now()
    for step in range(max(2, round(seconds * hz))):
        clock.sleep_until(began + step / hz)
        late.append(clock.now() - began - step / hz)
    return np.array(late)


def _show(title: str, found: dict[str, dict[str, Any]], kept: Kept, slope: float) -> None:
    table = Table("", "steps", f"later than {1e3 * LATE:g} ms", "skipped", "median", "99 %", "99.9 %", "slowest [ms]")
    table.title = title
    for name, row in found.items():
        ends = (f"{value:.2f}" for value in row["ms"].values())
        table.add_row(name, str(row["steps"]), f"{100 * row['missed_share']:.3f} %", str(row["skipped"]), *ends)
    console.print(table)
    asked = np.percentile(1e3 * np.concatenate(kept.latencies), [50, 99])
    console.print(
        f"an answer takes {asked[0]:.1f} ms, 99 % at most {asked[1]:.1f} ms; memory {kept.memory[0][1]:.0f} MB after "
        f"the first episode, {kept.memory[-1][1]:.0f} MB after the last, {slope:+.2f} MB a minute; "
        f"{kept.resting} steps without an action, until the first answer or for want of one"
    )


def _histogram(acted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges [ms], evenly apart in their logarithm, and how many actions were sent so late; the ends take what is
    beyond them."""
    edges = np.geomspace(0.01, 100, 61)
    counts, _ = np.histogram(np.clip(1e3 * acted, edges[0], edges[-1]), edges)
    return edges, counts


def _draw(path: Path, acted: dict[str, np.ndarray], memory: list[tuple[float, float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for name, values in acted.items():
        edges, counts = _histogram(values)
        left.stairs(counts / len(values), edges, label=name, fill=name == LOOP, alpha=0.7)
    left.axvline(1e3 * LATE, color="#e11d48", lw=1, label=f"{1e3 * LATE:g} ms")
    left.set(xscale="log", yscale="log", xlabel="sent so many ms after it was due", ylabel="share of control steps")
    left.legend(fontsize=7)
    times, used = np.array(memory).T
    right.plot(times / 60, used, marker="o", ms=2, lw=1)
    right.set(xlabel="minutes", ylabel="memory of the process [MB]", ylim=(0, 1.2 * used.max()))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with whole(path) as draft:
        figure.savefig(draft, format="png", dpi=110)
    console.print(f"Plot: {path}")
