"""Chunks a second and latency of `foreact serve` on this machine, with so many clients, beside one without batches."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ... import envs
from ...data.provenance import command_line
from ...data.whole import whole, write_json
from ...envs.errors import UserError
from ...envs.spec import Embodiment
from ...policy.device import describe_machine
from ..serving.client import Client
from .timing import console, machine

BATCHED, SINGLE = "in batches", "one at a time"
"""The baseline answers one question after another (`batch_size=1`)."""
ROUNDS = 3
"""In how many turns each arm has its time, so that what slows the machine slows both."""


@dataclass
class Load:
    """What clients that ask again as soon as they are answered met: seconds of each answer, rows of the batch that it
    was in, and how long all of it took [s].
    """

    latencies: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, float]:
        """Chunks a second, the mean batch (of batches, not of rows), and percentiles of latency [ms]."""
        p50, p95, p99 = 1e3 * np.percentile(self.latencies, [50, 95, 99])
        batch = len(self.rows) / float(np.sum(1 / np.array(self.rows)))
        rate = len(self.rows) / self.seconds
        return {"chunks_a_second": rate, "mean_batch": batch, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


@contextlib.contextmanager
def server(checkpoint: Path | str, **settings: Any) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A `foreact serve` in a process of its own: its address, and the process. settings: of configs/serve.yaml.

    Raises `UserError` with its last words where it ends before it listens. It is ended with the block.
    """
    given = [f"{name}={'null' if value is None else value}" for name, value in {"port": 0, **settings}.items()]
    command = [sys.executable, "-m", "foreact", "serve", f"checkpoint={checkpoint}", *given]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with contextlib.ExitStack() as stack:
        words = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, text=True, env=env)
        process = stack.enter_context(started)
        stack.callback(process.terminate)
        assert process.stdout is not None
        found = next((m for line in process.stdout if (m := re.search(r"ws://[\w.]+:\d+", line))), None)
        if found is None:
            status = process.wait()
            words.seek(0)
            raise UserError(f"the server ended with status {status}: {words.read()[-2000:].strip()}")
        yield found[0], process


def question(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A made-up observation for the policy that a server says it has (`messages.metadata`)."""
    rng, steps = np.random.default_rng(0), metadata["n_obs_steps"]
    robot = Embodiment.from_dict(metadata["embodiment"])
    images = {c.name: rng.integers(0, 256, (steps, c.height, c.width, 3), np.uint8) for c in robot.cameras}
    asked = {"images": images, "state": np.zeros((steps, robot.state_dim), np.float32)}
    if any(c.depth for c in robot.cameras):
        asked["depth"] = {c.name: np.ones((steps, c.height, c.width), np.float32) for c in robot.cameras if c.depth}
    return {**asked, "instruction": envs.task(metadata["tasks"][0]).instruction}


def put_load(uri: str, clients: int, seconds: float, load: Load) -> None:
    """Let so many clients ask for that long, each from a thread of its own."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(Client(uri, timeout=120)) for _ in range(clients)]
        ask, lock, began = question(sockets[0].metadata), threading.Lock(), time.perf_counter()

        def work(client: Client) -> None:
            while time.perf_counter() - began < seconds:
                before = time.perf_counter()
                answer = client.infer(ask)
                with lock:
                    load.latencies.append(time.perf_counter() - before)
                    load.rows.append(answer["server_timing"]["rows"])

        with ThreadPoolExecutor(clients) as threads:
            list(threads.map(work, sockets))
        load.seconds += time.perf_counter() - began


def bench_serve(
    checkpoint: Path | str,
    *,
    clients: Sequence[int] = (1, 8, 32),
    seconds: float = 5.0,
    batch_size: int | None = None,
    device: str = "auto",
    runtime: str = "torch",
    out: Path | str = "bench",
) -> None:
    """Two servers of one policy, one in batches and one without, that so many clients ask in turns.

    seconds: for each of them and each number of clients · batch_size: rows of an inference call of the first; None: as
    `foreact serve`. Writes `serve.json` and `serve.png` into the folder `out`.
    """
    if not clients or min(clients) < 1 or not seconds > 0:
        raise UserError(f"bench serve needs clients=[1,8,…] and seconds above 0, got {list(clients)} and {seconds:g}")
    settings = {"device": device, "runtime": runtime, "clients": max(64, *clients)}
    loads = {n: {name: Load() for name in (BATCHED, SINGLE)} for n in clients}
    with contextlib.ExitStack() as stack:
        sizes = {BATCHED: batch_size, SINGLE: 1}
        uris = {n: stack.enter_context(server(checkpoint, batch_size=s, **settings))[0] for n, s in sizes.items()}
        for uri in uris.values():
            put_load(uri, 1, 0.5, Load())  # what is done only once is not part of an answer
        for _ in range(ROUNDS):
            for n, arms in loads.items():
                for name, load in arms.items():
                    put_load(uris[name], n, seconds / ROUNDS, load)
    found = {n: {name: load.summary() for name, load in arms.items()} for n, arms in loads.items()}
    _show(str(checkpoint), found)
    console.print(machine(device))
    Path(out).mkdir(parents=True, exist_ok=True)
    about = {"command": command_line(), "machine": describe_machine(), "policy": str(checkpoint), "seconds": seconds}
    write_json(Path(out) / "serve.json", {**about, "clients": {str(n): arms for n, arms in found.items()}})
    _draw(Path(out) / "serve.png", found)
    most = found[max(clients)]
    print(f"ratio {most[BATCHED]['chunks_a_second'] / most[SINGLE]['chunks_a_second']:.2f}x")


Found = Mapping[int, Mapping[str, Mapping[str, float]]]


def _show(policy: str, found: Found) -> None:
    table = Table("clients", "", "chunks/s", "speed", "mean batch", "p50", "p95", "p99 [ms]", title=f"serve · {policy}")
    table.caption = f"speed: {SINGLE} = 1"
    for n, arms in found.items():
        for name, row in arms.items():
            speed = row["chunks_a_second"] / arms[SINGLE]["chunks_a_second"]
            times = (f"{row[q]:.0f}" for q in ("p50_ms", "p95_ms", "p99_ms"))
            cells = (f"{row['chunks_a_second']:.1f}", f"{speed:.2f}", f"{row['mean_batch']:.2f}")
            table.add_row(str(n), name, *cells, *times)
    console.print(table)


def _draw(path: Path, found: Found) -> None:
    """Chunks a second, and the median latency up to the slowest hundredth, over clients."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = sorted(found)
    for name in (BATCHED, SINGLE):
        rate, low, high = ([found[n][name][q] for n in at] for q in ("chunks_a_second", "p50_ms", "p99_ms"))
        left.plot(at, rate, marker="o", ms=4, label=name)
        right.plot(at, low, marker="o", ms=4, label=f"{name}: median to 99 %")
        right.fill_between(at, low, high, alpha=0.2)
    left.set(ylabel="chunks a second", ylim=(0, None))
    right.set(ylabel="from a question to its answer [ms]", yscale="log")
    for axes in (left, right):
        axes.set(xlabel="clients", xscale="log", xticks=at, xticklabels=[str(n) for n in at])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    with whole(path) as draft:
        figure.savefig(draft, format="png", dpi=110)
    console.print(f"Plot: {path}")
