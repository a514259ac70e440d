"""One optimiser step, exact resume and averaged weights: what every training has, whatever it learns.

All randomness of step n is a function of (seed, n), so a run that goes on from a checkpoint repeats an uninterrupted
one bit for bit (same machine type, threads and compile setting).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.dataset import READERS
from ..data.loader import Loader
from ..data.mixture import MIXES, Mixture, iterate
from ..envs.errors import UserError, choose, positive
from .checkpoint import load_training, optimizer_tensors, restore_optimizer, write_checkpoint
from .device import KERNELS, PRECISIONS, Placement, resolve
from .ema import EMA
from .loss import Losses
from .nn.linear import training_kernels

Network = TypeVar("Network", bound=nn.Module)
Batches = tuple[Batch, ...]
"""A batch of each source of the training data."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a preset is trained.

    align: weight of the alignment of image tokens to the simulator's state, 0 for none; ignored, with a note, for a
    store without such state · image_shift: largest random shift [pixels] · state_noise: standard deviation of noise on
    the normalised state; in demonstrations it tells what comes next, and a policy that trusts it stops looking (causal
    confusion, de Haan et al. 2019) · early: how much likelier the first `early_steps` steps of an episode are drawn ·
    task_balance: 0 draws every step alike, so that tasks of long episodes fill more of a batch, 1 every task; what is
    between takes the power of a task's weight · val_per_task: held-out steps of each task whose loss of actions is told
    apart, 0 for none · accumulate: batches for one update · lora: rank of the change to a trained backbone's weights, 0
    to train them whole (`nn.lora`) · recompute: less memory for a third more time (activation checkpointing) ·
    reader: of frames, one of `dataset.READERS` · mix, temperature: how much of a batch each robot fills, see
    `Mixture.shares` · every: 0 for never · device, precision, kernels, threads: see `device.resolve`.
    """

    steps: int = 1000
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 1e-3
    warmup: int = 50
    schedule: str = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.99
    align: float = 0.0
    image_shift: int = 0
    state_noise: float = 0.0
    early: float = 1.0
    early_steps: int = 10
    task_balance: float = 0.0
    lora: int = 0
    held_out: float = 0.1
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    kernels: str = "auto"
    threads: int = 0
    compile: bool = False
    recompute: bool = False
    mix: str = "shares"
    temperature: float = 1.0
    reader: str = "memmap"
    workers: int = 0
    log_every: int = 10
    val_every: int = 100
    val_per_task: int = 0
    save_every: int = 200
    rollout_every: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "log_every", "save_every"):
            positive(name, getattr(self, name))
        choose(self.schedule, ("cosine", "constant"), "learning-rate schedule")
        choose(self.reader, READERS, "reader of frames")
        choose(self.mix, MIXES, "mix of sources")
        choose(self.precision, PRECISIONS, "precision")
        choose(self.kernels, KERNELS, "kernels")
        if self.threads < 0:
            raise UserError(f"threads is a number of threads, 0 for all that this process may use, got {self.threads}")
        if self.lora < 0:
            raise UserError(f"lora is a rank, 0 to train all weights, got {self.lora}")
        if self.state_noise < 0:
            raise UserError(f"state_noise is a standard deviation, at least 0, got {self.state_noise}")
        if not 0 <= self.task_balance <= 1:
            raise UserError(f"task_balance goes from 0 (by steps) to 1 (all tasks alike), got {self.task_balance}")
        if self.val_per_task < 0:
            raise UserError(f"val_per_task is a number of steps, 0 for none, got {self.val_per_task}")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is a share of the episodes between 0 and 1, got {self.held_out}")


class Fitting(Generic[Network]):
    """A model that learns from loaders. A subclass says what the loss is, how well it does, and what is saved.

    `begin` is called once the model exists. besides: modules that learn with it and are not a part of it, by name.
    """

    model: Network
    origin: Mapping[str, Any]
    """What it is made from, by fingerprint: a run that goes on must find the same."""

    def __init__(self, config: TrainConfig):
        torch.manual_seed(config.seed)
        self.config = config
        self.placement: Placement = resolve(config.device, config.precision, config.kernels, config.threads)
        self.device = self.placement.device
        self.precision = self.placement.precision
        self.step = 0

    def begin(self, model: Network, loaders: Sequence[Loader], besides: dict[str, nn.Module] | None = None) -> None:
        """Take the weights that learn, and what they learn from."""
        config = self.config
        self.model, self.loaders, self.besides = model, loaders, besides or {}
        modules = [model, *self.besides.values()]
        named = [(n, p) for module in modules for n, p in module.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.optimizer = torch.optim.AdamW(_groups(named, config.weight_decay), lr=config.lr, fused=True)
        self.ema = EMA(model, decay=config.ema)

    def losses(self, sources: Batches, generator: torch.Generator) -> Losses:
        """The loss of one batch, all its randomness from the generator."""
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Numbers on held-out data, with the averaged weights."""
        raise NotImplementedError

    def averaged(self) -> Any:
        """What acts or encodes: the product of the training, with the averaged weights of now."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Write the product into a checkpoint's folder."""
        raise NotImplementedError

    def draw(self, run: Path) -> None:
        """Draw what was learned into the run's folder, where there is something to see."""

    def batches(self) -> Iterator[Batches]:
        """What `update` takes, from the present step on: a batch of each source."""
        return iterate(self.loaders, self.step * self.config.accumulate)

    def update(self, batches: Iterator[Batches]) -> dict[str, float]:
        """One optimiser step. Raises `NotFinite` before the weights are touched by a bad loss."""
        config = self.config
        parts = [next(batches) for _ in range(config.accumulate)]
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * learning_rate(self.step, config)
        sums: dict[str, Tensor] = {}
        for part, sources in enumerate(parts):
            with training_kernels(self.placement.kernels):  # in the backward pass too, which may compute layers again
                losses = self._losses(sources, self._seed(part))
                if not bool(torch.isfinite(losses.total)):
                    raise NotFinite(self.step, sources)
                (losses.total / config.accumulate).backward()
            for name, value in {"loss": losses.total.detach(), **losses.parts}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value / config.accumulate
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip)
        if not bool(torch.isfinite(norm)):
            raise NotFinite(self.step, parts[-1])
        self.optimizer.step()
        # a fused step does not count as a change, and what was made of the old weights (`nn.linear`, `plan`) would stay
        torch.autograd.graph.increment_version(self.parameters)
        self.optimizer.zero_grad()
        self.ema.update(self.model)
        self.step += 1
        named = {name if name == "loss" else f"loss/{name}": float(v) for name, v in sums.items()}
        return named | {"grad_norm": float(norm), "lr": self.optimizer.param_groups[0]["lr"]}

    def _losses(self, sources: Batches, seed: int) -> Losses:
        with torch.random.fork_rng(self._gpus):  # dropout draws from PyTorch's own generator
            torch.manual_seed(seed)
            return self.losses(sources, torch.Generator(self.device).manual_seed(seed))

    def _seed(self, part: int) -> int:
        return int(np.random.SeedSequence([self.config.seed, self.step, part]).generate_state(1)[0])

    @property
    def _gpus(self) -> list[int]:
        return [torch.cuda.current_device()] if self.device.startswith("cuda") else []

    def save(self, run: Path) -> None:
        """Write a checkpoint of the product and of all that resuming needs."""
        groups: dict[str, dict[str, Tensor]] = {
            "weights": dict(self.model.state_dict()),
            "optimizer": optimizer_tensors(self.optimizer),
            "ema": self.ema.state_dict(),
            **{name: dict(module.state_dict()) for name, module in self.besides.items()},
        }
        write_checkpoint(run, self.step, self.write, {"tensors": groups, "state": {"step": self.step}})

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint's folder."""
        groups, state = load_training(folder)
        self.model.load_state_dict(groups["weights"])
        restore_optimizer(self.optimizer, groups["optimizer"])
        self.ema.load_state_dict(groups["ema"])
        for name, module in self.besides.items():
            module.load_state_dict(groups[name])
        self.step = state["step"]


class NotFinite(UserError):
    """A loss or gradient that is NaN or infinite, with the batches that made it."""

    def __init__(self, step: int, batches: Batches):
        super().__init__(f"the loss is not finite at step {step}")
        self.step, self.batches = step, batches


def marks(mixture: Mixture) -> list[str]:
    """A word for each store: its fingerprint."""
    return [f"{one.episodes} episodes, {one.mark}" for one in mixture.learned]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Share of the peak rate at a step: linear warm-up, then a half cosine to 0 or constant."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def _groups(named: Sequence[tuple[str, nn.Parameter]], decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only; the biases of several experts look like one."""
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("bias")]
    others = [p for name, p in named if p.ndim < 2 or name.endswith("bias")]
    return [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
