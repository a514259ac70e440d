"""What a robot does when something goes wrong: each fault struck in a run of its own, and a table of what came."""

import contextlib
import multiprocessing
import shutil
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.provenance import command_line
from ...data.store import Store
from ...data.whole import write_json
from ...envs.errors import UserError, choose
from ...policy.checkpoint import find_checkpoint
from ...policy.device import describe_machine
from ..actors import PolicyActor
from ..robot.control import Control
from ..robot.logbook import Logbook
from ..robot.runs import ControlSettings, Run, Tick
from ..robot.safety import EmergencyStop, SafetySettings
from . import trouble
from .scene import FAULTS, Fault, Scene
from .timing import console, machine

BEFORE, DURING, AFTER, PATIENCE = 2.0, 1.0, 2.0, 30.0
"""Seconds of a run until a fault is struck, from there until it is mended, that the robot must then act without a rest,
and that it is given to do so."""
PROMPT = 0.1
"""Seconds within which the robot must rest once a rule says so."""
OVER = "the bench is over"
COUNTED = ("overtaken", "bad_messages", "too_large", "too_fast", "refused", "errors", "reloads", "failed_reloads")
"""What a server counts that is out of the ordinary."""


@dataclass
class _Story:
    """When, in seconds of a run that began at that moment of its clock, its fault was struck and mended, which is
    its last step and in which the robot last rested, and what the striker met.
    """

    fault: Fault
    scene: Scene
    stop: EmergencyStop
    began: float = 0.0
    struck: float = np.nan
    mended: float = np.nan
    now: float = 0.0
    rested: float = 0.0
    said: str = ""

    def watch(self, tick: Tick, loop: Control) -> None:
        """Told of each control step; what takes long is done beside the loop."""
        self.now = tick.time
        if tick.asked is None:
            self.rested = tick.time
        if tick.time >= BEFORE and np.isnan(self.struck):
            self.struck, self.began = tick.time, self.scene.clock.now() - tick.time
            threading.Thread(target=self._tell, daemon=True).start()

    def _tell(self) -> None:
        try:
            self.said = self.fault.strike(self.scene) or ""
            time.sleep(DURING)
            self.fault.mend(self.scene)
            self.mended = self.scene.clock.now() - self.began
            until = time.monotonic() + PATIENCE
            while self.now - max(self.rested, self.mended) < AFTER and time.monotonic() < until:
                time.sleep(0.05)
        except Exception as error:
            self.said = f"{type(error).__name__}: {error}"
        self.stop(OVER)


def bench_faults(
    checkpoint: Path | str,
    task: str | None = None,
    *,
    only: str | None = None,
    hz: float | None = None,
    device: str = "auto",
    runtime: str = "torch",
    out: Path | str = "bench",
) -> None:
    """Strike each of `FAULTS` while a server drives a `Rehearsal` of a task, and write what came of it.

    only: one of them. Writes `faults.json`, `faults.md` and the runs themselves into the folder `out`/faults.
    """
    chosen = list(FAULTS) if only is None else [choose(only, FAULTS, "fault")]
    folder = Path(out) / "faults"
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another out=")
    with tempfile.TemporaryDirectory() as copy, contextlib.ExitStack() as stack:
        ours = shutil.copytree(find_checkpoint(checkpoint), Path(copy) / "policy", ignore=_training)
        strangers = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        scene = Scene(ours, task, {"device": device, "runtime": runtime}, strangers)
        stack.callback(scene.close)
        rows = {name: _struck(scene, name, folder / _slug(name), hz) for name in chosen}
    write_json(folder / "faults.json", {"command": command_line(), "machine": describe_machine(), "faults": rows})
    table = markdown(rows)
    (folder / "faults.md").write_text(table, encoding="utf-8")
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    console.print(machine(device))
    print(f"as it should be: {sum(row['good'] for row in rows.values())} of {len(rows)} faults")


def _training(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "training"]


def _struck(scene: Scene, name: str, folder: Path, hz: float | None) -> dict[str, Any]:
    fault, stop = FAULTS[name], EmergencyStop()
    actor = PolicyActor(policy=scene.policy, name=scene.uri, batch_shape=1)
    before, story = trouble.counts(scene.wire.target), _Story(fault, scene, stop)
    settings = ControlSettings(hz=hz, max_steps=10**6, uncovered="rest")
    loop = Control(scene.robot, actor, scene.clock, settings, SafetySettings(patience=60), stop=stop, watch=story.watch)
    book = Logbook(folder, scene.robot.embodiment, {"fault": name, "hz": loop.hz})
    run = loop.run()
    with contextlib.closing(book):
        book.add(run, source="fault", seed=-1)
    after, alive = trouble.counts(scene.wire.target), scene.process.poll() is None
    with Store.open(folder / "data") as store:
        kept = store.n_steps == len(run.ticks)
    allows = actor.policy.horizon / loop.hz if fault.allows is None else fault.allows
    counted = {k: n for k, v in after.items() if k in COUNTED and (n := v - before[k]) > 0}  # a new server's begin at 0
    row = {**came_of(run, story.struck, story.mended), "said": story.said, "server": counted}
    row |= {"outcome": run.outcome, "kept": kept, "alive": alive, "allows": allows}
    row |= {name: getattr(fault, name) for name in ("rule", "must", "counts")}
    return row | {"good": is_good(row)}


def came_of(run: Run, struck: float, mended: float) -> dict[str, Any]:
    """What a run tells of a fault. struck, mended: seconds since it began.

    rests: seconds from the fault to the first action that let the robot rest; None: it never did · again: seconds from
    when it was mended to the first action of the policy after its last rest · logged: interventions by rule since.
    """
    resting = [tick for tick in run.ticks if tick.time > struck and tick.asked is None]
    later = [tick.time for tick in run.ticks if tick.asked is not None and resting and tick.step > resting[-1].step]
    return {
        "rests": resting[0].time - struck if resting else None,
        "again": max(0.0, later[0] - mended) if later else None,
        "recovered": bool(run.ticks) and run.ticks[-1].asked is not None,
        "logged": dict(Counter(entry.rule for entry in run.interventions if entry.time > struck)),
        "steps": len(run.ticks),
    }


def is_good(row: dict[str, Any]) -> bool:
    """Did the robot rest in time and by that rule, or go on where it should, was it logged, kept, and survived?"""
    if row["rests"] is None:
        held = not (row["rule"] and row["must"])
    else:
        held = row["rule"] in row["logged"] and row["rests"] <= row["allows"] + PROMPT
    counted = not row["counts"] or row["counts"] in row["server"]
    survived = row["recovered"] and row["kept"] and row["alive"] and row["outcome"] == f"stopped: {OVER}"
    return bool(held and counted and survived)


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table of docs/robot.md."""
    lines = [
        "| fault | the robot rests after | the rule allows | acts again, once mended, after | logged | good |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        logged = {**row["logged"], **{k: f"{v:g}" for k, v in row["server"].items()}}
        said = "; ".join(filter(None, [", ".join(f"{k} {v}" for k, v in logged.items()), str(row["said"])]))
        rests = "never" if row["rests"] is None else _ms(row["rests"])
        rule = f"{_ms(row['allows'])} + {_ms(PROMPT)}, `{row['rule']}`" if row["rule"] else "not at all"
        again = "–" if row["again"] is None else _ms(row["again"])
        lines.append(f"| {name} | {rests} | {rule} | {again} | {said or '–'} | {'yes' if row['good'] else 'NO'} |")
    return "\n".join(lines) + "\n"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms"


def _slug(name: str) -> str:
    return name.replace(" ", "-")
