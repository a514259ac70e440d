"""Speed and memory of a training step: against a baseline frozen before tuning, the machine's limit and lerobot."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ...data.batch import Batch, fake_batch
from ...policy.config import ModelConfig
from ...policy.device import autocast, on_threads, resolve_device
from ...policy.fitting import Batches, Fitting, TrainConfig
from ...policy.loss import Losses, objective
from ...policy.model import Model
from ...policy.nn.linear import unpacked
from .frozen import FrozenBackbone
from .model import alone, deeper, fake_policy
from .peers import SIZES, SMALLEST, Peer, check_peer, diffusion, lerobot
from .timing import Curves, alternating, console, draw_growth, machine, median, show

TUNED, FROZEN, RECOMPUTED = "as it is", "frozen baseline", "activations recomputed"
ALONE, DEEPER, MATMUL = "actions alone, one draw", "actions alone, one draw, deeper", "matmul"
BATCHES, DRAWS = (16, 32, 64, 128), (1, 2, 4, 8)
"""What the growth plot goes through."""


class Rehearsal(Fitting[Model]):
    """The whole update of a preset (loss, gradients, clipping, AdamW, averages) on one made-up batch.

    cameras: None for the arm's own, one. settings: more of `TrainConfig`.
    arm: `TUNED`, or `FROZEN` (see frozen.py, with AdamW that is not fused), or `RECOMPUTED`, with activation
    checkpointing.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        arm: str = TUNED,
        device: str = "auto",
        cameras: int | None = None,
        **settings: Any,
    ):
        super().__init__(TrainConfig(device=device, batch_size=batch_size, **settings))
        self.policy = fake_policy(config, self.device, cameras=cameras)
        model = self.policy.model.train()
        model.backbone.recompute = arm == RECOMPUTED
        if arm == FROZEN:
            model.backbone = FrozenBackbone(model.backbone).to(self.device)  # type: ignore[assignment]
        self.begin(model, [])
        if arm == FROZEN:
            self.optimizer = torch.optim.AdamW(self.parameters, lr=self.config.lr, foreach=True)
        sizes = {"n_obs_steps": config.n_obs_steps, "horizon": config.horizon, "n_future": len(config.future)}
        self.batch: Batch = fake_batch(self.policy.embodiment, size=batch_size, **sizes).to(self.device)

    def losses(self, sources: Batches, generator: torch.Generator) -> Losses:
        sentence = torch.zeros(len(self.batch), dtype=torch.int64, device=self.device)
        with autocast(self.precision, self.device):
            return objective(self.model, self.policy.transforms, [(self.batch, sentence)], generator)

    def __call__(self) -> None:
        """One update."""
        self.update(itertools.repeat((self.batch,)))


def bench_train(
    config: ModelConfig,
    *,
    device: str = "auto",
    threads: int | None = None,
    batch_size: int = 64,
    rounds: int = 5,
    growth: bool = True,
    peer: str | None = None,
    out: Path | str = "bench",
) -> None:
    """Samples a second of an update, arms in alternation, with the share of this machine's bf16 matmul rate; memory.

    A sample is a distinct window; all arms take the same noise draws of it, and those beside lerobot one, as it does.
    Work is what `flop_counter` counts in one update.

    threads: None leaves PyTorch's · growth: plot how the time grows with the batch and with noise draws · peer: an
    interpreter that has lerobot.
    """
    device = resolve_device(device)
    check_peer(peer, device)
    with on_threads(threads):
        arms = {arm: Rehearsal(config, batch_size, arm, device) for arm in (TUNED, FROZEN)}
        with unpacked(), FlopCounterMode(display=False) as counter:
            arms[TUNED]()
        work = dict.fromkeys(arms, float(counter.get_total_flops()))
        counts = {arm: sum(p.numel() for p in run.parameters) for arm, run in arms.items()}
        product = Matmul(device)
        runs: dict[str, Callable[[], Any]] = {**arms, MATMUL: product}
        with contextlib.ExitStack() as peers:
            if peer:
                theirs = _peers(peer, config, batch_size, peers)
                counts |= {name: run.about["parameters"] for name, run in theirs.items()}
                same = alone(config)  # as theirs: a noise draw of each window, and no frames to foresee
                for name, preset in ((ALONE, same), (DEEPER, deeper(same, counts[SMALLEST]))):
                    run = runs[name] = Rehearsal(preset, batch_size, device=device)
                    counts[name] = sum(p.numel() for p in run.parameters)
                runs |= theirs
            times = alternating(runs, rounds, device)
        rate = product.flops / float(np.median(times.pop(MATMUL))) / 1e9
        took = median(times)
        columns = {
            "samples/s": {name: f"{1000 * batch_size / ms:.1f}" for name, ms in took.items()},
            f"of {rate:.2f} bf16 TFLOP/s": {a: f"{work[a] / took[a] / 1e9 / rate:.0%}" for a in work},
            "M parameters": {name: f"{n / 1e6:.1f}" for name, n in counts.items()},
        }
        show(f"train · {config.name}, {batch_size} samples", times, FROZEN, columns)
        _show_memory(config, batch_size, device)
        if growth:
            _growth(config, device, Path(out) / "train.png")
        console.print(machine(device), f"precision {arms[TUNED].precision}", f"{work[TUNED] / 1e9:.0f} GFLOP an update")
    print(f"ratio {took[FROZEN] / took[TUNED]:.2f}x")


class Matmul:
    """A square bf16 product: what the machine gives at most."""

    def __init__(self, device: str):
        self.side = 8192 if device.startswith("cuda") else 2048  # a smaller one is over before a GPU is busy
        self.a = torch.randn(self.side, self.side, device=device, dtype=torch.bfloat16)

    def __call__(self) -> None:
        for _ in range(5):
            torch.mm(self.a, self.a)

    @property
    def flops(self) -> int:
        """Of a call."""
        return 5 * 2 * self.side**3


def _peers(python: str, config: ModelConfig, batch_size: int, stack: contextlib.ExitStack) -> dict[str, Peer]:
    """lerobot's Diffusion policy in both sizes, as its training has it and with bf16 autocast."""
    peers = {}
    for size, settings in SIZES.items():
        for name, bf16 in ((size, False), (f"{size}, bf16", True)):
            asked = {**diffusion(config, **settings), "batch_size": batch_size, "bf16": bf16}
            peers[name] = stack.enter_context(lerobot(python, "train", torch.get_num_threads(), **asked))
    return peers


def _growth(config: ModelConfig, device: str, file: Path) -> None:
    panels: dict[str, Curves] = {}
    total = sum(config.draws.values())
    settings = {
        "samples a batch": {size: (config, size) for size in BATCHES},
        "noise draws a sample": {
            n * total: (dataclasses.replace(config, draws={q: n * d for q, d in config.draws.items()}), 32)
            for n in DRAWS
        },
    }
    for what, points in settings.items():
        panels[what] = {TUNED: {}, FROZEN: {}}
        for at, (preset, size) in points.items():
            times = alternating({arm: Rehearsal(preset, size, arm, device) for arm in panels[what]}, 3, device)
            for arm, values in times.items():
                panels[what][arm][at] = values
    draw_growth(file, panels)


def _show_memory(config: ModelConfig, batch_size: int, device: str) -> None:
    """Peak memory of training, each arm in a process of its own, because a process does not give back its peak."""
    found = {}
    for arm in (TUNED, RECOMPUTED, FROZEN):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[arm] = pool.apply(_peak, (config, batch_size, arm, device))
    told = ", ".join(f"{arm} {peak / 2**20:,.0f} MiB" for arm, peak in found.items())
    console.print(f"memory of training beyond an idle process: {told}")


def _peak(config: ModelConfig, batch_size: int, arm: str, device: str) -> int:
    """Bytes at the peak of two updates, beyond what the process had before."""
    if device.startswith("cuda"):
        run = Rehearsal(config, batch_size, arm, device)
        run()
        run()
        return torch.cuda.max_memory_allocated()
    before = _resident_peak()
    run = Rehearsal(config, batch_size, arm, device)
    run()
    run()
    return _resident_peak() - before


def _resident_peak() -> int:
    """Bytes. Where Linux tells, from the process itself: `getrusage` begins with the peak of the parent there."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(
            next(line for line in status.read_text(encoding="utf-8").splitlines() if "VmHWM" in line).split()[1]
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
