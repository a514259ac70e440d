"""The training of a policy: its data, its loss, and how well it looks."""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.dataset import Dataset
from ..data.mixture import Mixture
from ..data.store import Store
from ..envs.errors import UserError
from .begin import continued, new_policy
from .checkpoint import write_policy
from .config import ModelConfig
from .device import autocast
from .expert_usage import ExpertUsage, expert_usage
from .fingerprint import fingerprint
from .fitting import Batches, Fitting, TrainConfig, marks
from .labels import labels_of
from .latents import latents_of
from .loss import Alignment, Losses, objective
from .model import Model
from .nn.lora import merged, patch
from .policy import Policy
from .tokens.kl import Tokenizer
from .validate import looking, loss_of_tasks, told, validation_loss

log = logging.getLogger(__name__)


class Trainer(Fitting[Model]):
    """Everything that a run needs, built from data and two configurations.

    tokenizer: of the frames that are foreseen, where the preset foresees latents · labels: a policy that tells the
    actions of sources without them · start: a policy to begin from, with its weights, normalisers and instructions.
    """

    def __init__(
        self,
        data: Any,
        model: ModelConfig,
        config: TrainConfig,
        tokenizer: Tokenizer | None = None,
        *,
        labels: Policy | None = None,
        start: Policy | None = None,
    ):
        super().__init__(config)
        latents = None if tokenizer is None else latents_of(tokenizer, model.pixels, self.device)
        split = {"held_out": config.held_out, "seed": config.seed}
        told_by = None if labels is None else labels_of(labels)
        mixture = Mixture(data, model.windows, **split, latents=latents, labels=told_by, reader=config.reader)
        _check(mixture, model, config)
        self.held_out, self.held = mixture.held_out, mixture.held
        self.state_noise = [config.state_noise if s.state_noise is None else s.state_noise for s in mixture.sources]
        self.source_weights = [source.weight for source in mixture.sources]
        self.origin = {
            "stores": marks(mixture),
            "tokenizer": None if tokenizer is None else tokenizer.mark(),
            "labels": None if labels is None else fingerprint(labels.model),
            "init": None if start is None else fingerprint(start.model),
        }
        if start is None:
            self.policy = new_policy(mixture, model, self.device, tokenizer, aligned=config.align > 0)
        else:
            self.policy = continued(mixture, model, self.device, start, tokenizer, aligned=config.align > 0)
        _check_width(self.policy.model)
        # The policy holds the averaged weights, which act; `model` the ones that learn.
        network, besides = copy.deepcopy(self.policy.model).train(), {}
        network.backbone.recompute = config.recompute
        if config.lora:
            patch(network.backbone, config.lora)
        self.alignment = _alignment(mixture, self.policy, config.align, self.device)
        main = mixture.embodiment.name
        besides |= {f"alignment{'' if n == main else f'-{n}'}": module for n, module in self.alignment.items()}
        how = {"mix": config.mix, "temperature": config.temperature}
        loaders = mixture.loaders(config.batch_size, config.seed, config.workers, self._weights, **how)
        self.begin(network, loaders, besides)
        if config.compile:
            for block in network.backbone.blocks:
                block.compile()

    def _weights(self, data: Dataset) -> np.ndarray | None:
        """How likely each sample is drawn: those that reward looking more often, and those of tasks with few steps."""
        config = self.config
        if config.early == 1 and config.task_balance == 0:
            return None
        weights = np.where(data.step < config.early_steps, config.early, 1.0)
        return weights / np.bincount(data.task, weights)[data.task] ** config.task_balance

    def losses(self, sources: Batches, generator: torch.Generator) -> Losses:
        with autocast(self.precision, self.device):
            return objective(
                self.model, self.policy.transforms, [told(self.policy, batch) for batch in sources], generator,
                alignment=self.alignment, align_weight=self.config.align, image_shift=self.config.image_shift,
                state_noise=self.state_noise, source_weights=self.source_weights, step=self.step,
            )  # fmt: skip

    def averaged(self) -> Policy:
        """The policy with the averaged weights of now."""
        self.policy.model.load_state_dict(merged(self.ema.tensors()))
        return self.policy

    def write(self, folder: Path) -> None:
        write_policy(folder, self.averaged())

    def validate(self) -> dict[str, float]:
        """Held-out loss of each segment and the looking metrics, with the averaged weights: of each robot where there
        are several, and their mean."""
        policy = self.averaged()
        numbers = _over_robots({robot: self._look(policy.on(robot), data) for robot, data in self.held.items()})
        return numbers | {f"experts/{k}": v for used in self._used(policy) for k, v in used.numbers.items()}

    def _look(self, policy: Policy, held_out: Dataset) -> dict[str, float]:
        """The numbers of one robot."""
        losses = validation_loss(
            policy, held_out, batch_size=self.config.batch_size, batches=2, precision=self.precision,
            alignment=self.alignment,
        )  # fmt: skip
        numbers = {f"val/{k}": v for k, v in losses.items() if "/" not in k}
        if self.config.val_per_task:
            of_tasks = loss_of_tasks(policy, held_out, most=self.config.val_per_task, precision=self.precision)
            numbers |= {f"task/{name}": loss for name, loss in of_tasks.items()}
        return numbers | {f"look/{k}": v for k, v in looking(policy, held_out).items()}

    def draw(self, run: Path) -> None:
        """Write into the run who goes through which experts, where the preset has such."""
        for used in self._used(self.averaged()):
            used.draw(run / "experts.png")

    def _used(self, policy: Policy) -> list[ExpertUsage]:
        """How held-out steps go through the experts, if there are any and the policy acts."""
        if policy.config.backbone.experts is None or not {"policy", "joint"} & policy.config.draws.keys():
            return []
        rows = np.linspace(0, len(self.held_out) - 1, min(len(self.held_out), self.config.batch_size)).astype(int)
        return [expert_usage(policy, self.held_out.batch(rows))]


def _over_robots(numbers: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the robots that have it, and 'number/robot' where there are several."""
    if len(numbers) == 1:
        return dict(next(iter(numbers.values())))
    names = dict.fromkeys(name for own in numbers.values() for name in own)
    means = {name: float(np.mean([own[name] for own in numbers.values() if name in own])) for name in names}
    return means | {f"{name}/{robot}": value for robot, own in numbers.items() for name, value in own.items()}


def _alignment(mixture: Mixture, policy: Policy, weight: float, device: str) -> dict[str, Alignment]:
    """What tells the simulator's state of each robot whose stores have it; none where that weighs nothing."""
    if weight <= 0:
        return {}
    found = {}
    for name, robot in mixture.robots.items():
        if not mixture.has_privileged(name):
            log.warning("align=%g does nothing for robot %r: its stores have no simulator state", weight, name)
            continue
        frames = len(robot.cameras) * policy.n_obs_steps
        found[name] = Alignment(policy.config.backbone.width, frames, robot.privileged_dim).to(device)
    return found


def _check(mixture: Mixture, model: ModelConfig, config: TrainConfig) -> None:
    if model.space == "native" and len(mixture.robots) > 1:
        raise UserError(
            f"the sources are of the robots {', '.join(mixture.robots)}, and model {model.name!r} learns the numbers "
            "of one: model.space=slots learns many (docs/embodiments.md)"
        )
    if config.align > 0 and model.layout != "tokens":
        raise UserError(
            f"train.align={config.align} shapes an encoded observation, and layout {model.layout!r} has none; align=0"
        )
    if config.image_shift and model.latent:
        raise UserError(
            f"train.image_shift={config.image_shift} moves frames, and latents were made of unmoved ones; 0"
        )
    for store, _ in mixture.acting:
        _check_cameras(store, model)


def _check_cameras(store: Store, model: ModelConfig) -> None:
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


def _check_width(model: Model) -> None:
    """Warn of tokens whose noise cannot pass: what is not in the stream cannot be predicted, and samples stay noise."""
    width = model.backbone.config.width
    for name, shape in model.segments.items():
        if (target := model.processes[name].target) != "x0" and shape.width > width:
            log.warning(
                "model %r predicts %s of %d numbers a token of %s through a stream of %d: %.0f %% or more of the noise "
                "stays in samples; predict x0, or take smaller patches, latents (tokenizer=) or a wider backbone",
                model.config.name, target, shape.width, name, width, 100 * (1 - width / shape.width),
            )  # fmt: skip
