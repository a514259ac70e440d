"""Everything that a training run needs, and one step of it.

All randomness of step n is a function of (seed, n), so a run that goes on from a checkpoint repeats an uninterrupted
one bit for bit (same machine type, threads and compile setting).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.mixture import Mixture, iterate
from ..data.normalize import fit_normalizers
from ..data.store import Store
from ..data.windows import Windows
from ..envs.errors import UserError, choose
from .checkpoint import load_training, optimizer_tensors, restore_optimizer, write_checkpoint
from .config import ModelConfig, positive
from .device import autocast, resolve_device, resolve_precision
from .ema import EMA
from .loss import Alignment, Losses, objective
from .model import Model
from .policy import Policy
from .sentences import Sentences
from .transforms import Transforms, fit_scales
from .validate import looking, told, validation_loss

Batches = tuple[Batch, ...]
"""A batch of each source of the training data."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a preset is trained.

    align: weight of the alignment of image tokens to the simulator's state, 0 for none; ignored, with a note, for a
    store without such state · image_shift: largest random shift [pixels] · state_noise: standard deviation of noise on
    the normalised state; in demonstrations it tells what comes next, and a policy that trusts it stops looking (causal
    confusion, de Haan et al. 2019) · early: how much likelier the first `early_steps` steps of an episode are drawn ·
    accumulate: batches for one update · every: 0 for never.
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
    held_out: float = 0.1
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    workers: int = 0
    log_every: int = 10
    val_every: int = 100
    save_every: int = 200
    rollout_every: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "log_every", "save_every"):
            positive(name, getattr(self, name))
        choose(self.schedule, ("cosine", "constant"), "learning-rate schedule")
        if self.state_noise < 0:
            raise UserError(f"state_noise is a standard deviation, at least 0, got {self.state_noise}")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is a share of the episodes between 0 and 1, got {self.held_out}")


class Trainer:
    """Everything that a run needs, built from a store and two configurations, and resumed if there is a checkpoint."""

    def __init__(self, data: Any, model_config: ModelConfig, config: TrainConfig):
        torch.manual_seed(config.seed)
        self.config = config
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        windows = Windows(
            n_obs_steps=model_config.n_obs_steps, horizon=model_config.horizon, future=model_config.future
        )
        mixture = Mixture(data, windows, held_out=config.held_out, seed=config.seed)
        _check(mixture.main, model_config, config)
        self.held_out = mixture.held_out
        self.policy = _new_policy(mixture, model_config, self.device, aligned=config.align > 0)
        # The policy holds the averaged weights, which act; `model` the ones that learn.
        self.model = copy.deepcopy(self.policy.model).train()
        self.alignment = None
        if config.align > 0 and mixture.main.has_privileged:
            frames = len(mixture.embodiment.cameras) * model_config.n_obs_steps
            width, targets = model_config.backbone.width, mixture.embodiment.privileged_dim
            self.alignment = Alignment(width, frames, targets).to(self.device)
        self.parameters = [*self.model.parameters(), *(self.alignment.parameters() if self.alignment else [])]
        self.optimizer = torch.optim.AdamW(_groups(self.parameters, config.weight_decay), lr=config.lr, fused=True)
        self.ema = EMA(self.model, decay=config.ema)
        self.loaders = mixture.loaders(config.batch_size, config.seed, config.workers, self._weights)
        self.step = 0
        if config.compile:
            for block in self.model.backbone.blocks:
                block.compile()

    def _weights(self, data: Dataset) -> np.ndarray | None:
        """How likely each sample is drawn: those that reward looking more often."""
        config = self.config
        return None if config.early == 1 else np.where(data.step < config.early_steps, config.early, 1.0)

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
            losses = self._losses(sources, part)
            if not bool(torch.isfinite(losses.total)):
                raise NotFinite(self.step, sources)
            (losses.total / config.accumulate).backward()
            for name, value in {"loss": losses.total.detach(), **losses.parts}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value / config.accumulate
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip)
        if not bool(torch.isfinite(norm)):
            raise NotFinite(self.step, parts[-1])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.model)
        self.step += 1
        named = {name if name == "loss" else f"loss/{name}": float(v) for name, v in sums.items()}
        return named | {"grad_norm": float(norm), "lr": self.optimizer.param_groups[0]["lr"]}

    def _losses(self, sources: Batches, part: int) -> Losses:
        seed = np.random.SeedSequence([self.config.seed, self.step, part]).generate_state(1)[0]
        generator = torch.Generator(self.device).manual_seed(int(seed))
        with autocast(self.precision, self.device):
            return objective(
                self.model, self.policy.transforms, [told(self.policy, batch) for batch in sources], generator,
                alignment=self.alignment, align_weight=self.config.align, image_shift=self.config.image_shift,
                state_noise=self.config.state_noise, step=self.step,
            )  # fmt: skip

    def averaged(self) -> Policy:
        """The policy with the averaged weights of now."""
        self.ema.copy_to(self.policy.model)
        return self.policy

    def validate(self) -> dict[str, float]:
        """Held-out loss of each segment and the looking metrics, with the averaged weights."""
        policy = self.averaged()
        losses = validation_loss(
            policy, self.held_out, batch_size=self.config.batch_size, batches=2, precision=self.precision,
            alignment=self.alignment,
        )  # fmt: skip
        return {f"val/{k}": v for k, v in losses.items()} | {
            f"look/{k}": v for k, v in looking(policy, self.held_out).items()
        }

    def save(self, run: Path) -> None:
        groups: dict[str, dict[str, Tensor]] = {
            "weights": dict(self.model.state_dict()),
            "optimizer": optimizer_tensors(self.optimizer),
            "ema": self.ema.state_dict(),
        }
        if self.alignment is not None:
            groups["alignment"] = dict(self.alignment.state_dict())
        write_checkpoint(run, self.step, self.averaged(), {"tensors": groups, "state": {"step": self.step}})

    def resume(self, folder: Path) -> None:
        groups, state = load_training(folder)
        self.model.load_state_dict(groups["weights"])
        restore_optimizer(self.optimizer, groups["optimizer"])
        self.ema.load_state_dict(groups["ema"])
        if self.alignment is not None:
            self.alignment.load_state_dict(groups["alignment"])
        self.step = state["step"]


def _check(store: Store, model: ModelConfig, config: TrainConfig) -> None:
    if config.align > 0 and model.layout == "stacked":
        raise UserError(f"train.align={config.align} shapes observation tokens, and layout 'stacked' has none; align=0")
    for camera in store.embodiment.cameras:
        if model.depth and not camera.depth:
            raise UserError(
                f"model.depth={model.depth} needs depth, and camera {camera.name!r} of {store.path} has none"
            )
        if camera.height != camera.width:
            raise UserError(f"camera {camera.name!r} is {camera.height} x {camera.width}; presets take square frames")
        if camera.height < model.pixels:
            raise UserError(
                f"model {model.name!r} takes {model.pixels} pixels, but camera {camera.name!r} of store "
                f"{store.path} has {camera.height}; collect larger frames or set model.pixels={camera.height}"
            )


def _new_policy(mixture: Mixture, model: ModelConfig, device: str, *, aligned: bool) -> Policy:
    """An untrained policy whose transforms fit the episodes that are learned from."""
    modes = {"state": model.state_norm, "action": model.action_norm}
    if aligned and mixture.main.has_privileged:
        modes["privileged"] = "gaussian"
    normalizers = fit_normalizers(mixture.acting, modes)
    data, embodiment = mixture.learn, mixture.embodiment
    sample = data.batch(np.linspace(0, len(data) - 1, min(256, len(data))).astype(int))
    transforms = Transforms(model, embodiment, normalizers, fit_scales(model, embodiment, sample))
    sentences = Sentences.learn(list(mixture.instructions.values()), model.instruction)
    network = Model(model, embodiment, len(sentences.known))
    network.center_on(torch.cat(list(transforms.maps(sample.images, sample.depth).values()), dim=-1))
    return Policy(network, transforms, sentences, mixture.tasks, device)


class NotFinite(UserError):
    """A loss or gradient that is NaN or infinite, with the batches that made it."""

    def __init__(self, step: int, batches: Batches):
        super().__init__(f"the loss is not finite at step {step}")
        self.step, self.batches = step, batches


def learning_rate(step: int, config: TrainConfig) -> float:
    """Share of the peak rate at a step: linear warm-up, then a half cosine to 0 or constant."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def _groups(parameters: list[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only."""
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
