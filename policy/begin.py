"""What a training begins from: a new policy that fits its data, or another policy's weights."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.mixture import Mixture
from ..data.normalize import Normalizer, fit_normalizers
from ..envs.errors import UserError
from ..envs.slot_tables import with_slots
from ..envs.spec import Embodiment
from .config import ModelConfig
from .model import Model
from .nn.upcycle import upcycled
from .policy import Policy
from .sentences import Sentences
from .supervision import fit_scales
from .tokens.kl import Tokenizer
from .transforms import Robot, Transforms

_SAMPLE = 256  # steps of a robot whose frames give means and deviations

FREE = (
    "name", "draws", "solver", "goal_dropout", "modality_dropout", "n_action_steps",
    "backbone.experts", "backbone.attention_dropout", "backbone.mlp_dropout",
)  # fmt: skip
"""Settings of a preset that may differ from those of the policy that it begins from."""


def new_policy(
    mixture: Mixture, model: ModelConfig, device: str, tokenizer: Tokenizer | None, *, aligned: bool
) -> Policy:
    """An untrained policy whose transforms fit the episodes that are learned from."""
    plain, samples = _fitted(mixture, model, aligned=aligned), _samples(mixture)
    sentences = Sentences.learn(list(mixture.instructions.values()), model.instruction, mixture.main)
    network = Model(model, plain.rig, len(sentences.known))
    if tokenizer is not None:
        network.adopt(tokenizer)
    transforms = replace(plain, tokenizer=network.tokenizer)
    transforms = replace(transforms, scales=fit_scales(transforms, samples[0]))
    _center(network, transforms, samples)
    return Policy(network, transforms, sentences, mixture.tasks, device, mixture.learned)


def _fitted(mixture: Mixture, model: ModelConfig, *, aligned: bool, known: Policy | None = None) -> Transforms:
    """Transforms on the main robot, which know all. A robot that a policy knows keeps the statistics that it has."""
    robots = {}
    for name, told in mixture.robots.items():
        embodiment = with_slots(told) if model.space == "slots" else told
        robots[name] = Robot(embodiment, _normalizers(mixture, model, embodiment, aligned=aligned, known=known))
    main = robots[mixture.embodiment.name]
    return Transforms(model, main.embodiment, main.normalizers, robots=robots if len(robots) > 1 else {})


def _normalizers(
    mixture: Mixture, model: ModelConfig, embodiment: Embodiment, *, aligned: bool, known: Policy | None
) -> dict[str, Normalizer]:
    modes = {"state": model.state_norm, "action": model.action_norm}
    if aligned and mixture.has_privileged(embodiment.name):
        modes["privileged"] = "gaussian"
    kept = {}
    if known is not None and embodiment.name in known.robots:
        before = known.on(embodiment.name)
        if lines := before.embodiment.differences(embodiment):
            raise UserError(f"robot {embodiment.name!r} of the policy that this begins from is another:\n  "
                            + "\n  ".join(lines))  # fmt: skip
        kept = before.transforms.normalizers
    lies = Transforms(model, embodiment, {}).lies
    new = {name: mode for name, mode in modes.items() if name not in kept}
    return dict(kept) | fit_normalizers(mixture.stores_of(embodiment.name), new, lies)


def _samples(mixture: Mixture) -> list[Batch]:
    """Some of the steps of each robot, the main one first."""
    spread = [(data, min(_SAMPLE, len(data))) for data in mixture.learn.values()]
    return [data.batch(np.linspace(0, len(data) - 1, n).astype(int)) for data, n in spread]


def _center(network: Model, transforms: Transforms, samples: Sequence[Batch]) -> None:
    of_robots = [(transforms.on(batch.robot), batch) for batch in samples]
    network.center_on([(t.views(batch.images), t.seen(batch.images, batch.depth)) for t, batch in of_robots])


def continued(
    mixture: Mixture, model: ModelConfig, device: str, start: Policy, tokenizer: Tokenizer | None, *, aligned: bool
) -> Policy:
    """A copy of a policy, of a preset with the same weights or with experts more.

    It is for the tasks of the mixture, and for its robots; in a space of its own numbers those must be the policy's.
    Raises `UserError` that names both sides where the two do not fit.
    """
    _check(mixture, model, start, tokenizer)
    transforms = _fitted(mixture, model, aligned=aligned, known=start)
    sentences = start.sentences
    if model.instruction != "table":
        sentences = Sentences.learn(list(mixture.instructions.values()), model.instruction, mixture.main)
    network = Model(model, transforms.rig, len(sentences.known))
    samples = _samples(mixture) if model.space != "native" else []
    transforms = replace(transforms, scales=start.transforms.scales, tokenizer=network.tokenizer)
    if samples:
        _center(network, transforms, samples)
    cameras = ([c.name for c in rig.cameras] for rig in (start.transforms.rig, transforms.rig))
    network.load_state_dict(_moved(upcycled(start.model, network), network, *cameras))
    learned = None if start.learned is None else [*start.learned, *mixture.learned]
    return Policy(network, transforms, sentences, mixture.tasks, device, learned)


def _check(mixture: Mixture, model: ModelConfig, start: Policy, tokenizer: Tokenizer | None) -> None:
    mark = None if start.model.tokenizer is None else start.model.tokenizer.mark()
    before, now = (_settings(config) for config in (start.config, model))
    differ = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    robot = ("robot", start.embodiment, mixture.embodiment)
    words = ("instructions", list(start.sentences.known), list(mixture.instructions.values()))
    for what, theirs, ours in (
        *([robot] if model.space == "native" else []),
        *([words] if model.instruction == "table" else []),
        ("tokenizer", mark, mark if tokenizer is None else tokenizer.mark()),
        *((f"model.{key}", before.get(key), now.get(key)) for key in differ),
    ):
        if theirs != ours:
            raise UserError(
                f"the policy {start.config.name!r} and what begins from it differ in {what}: {theirs} and {ours}"
            )


def _settings(config: ModelConfig) -> dict[str, Any]:
    """What two presets must share for one to begin from the other."""
    values = asdict(config)
    backbone = {f"backbone.{key}": value for key, value in values.pop("backbone").items()}
    return {key: value for key, value in (values | backbone).items() if key not in FREE}


def _moved(state: dict[str, Tensor], network: Model, before: list[str], now: list[str]) -> dict[str, Tensor]:
    """Weights of a policy of the cameras `before` for one of the cameras `now`: a camera of the same name keeps what is
    its own, another begins as `network` has it."""
    if before == now:
        return state
    moved, own = dict(state), network.state_dict()
    pairs = [(now.index(camera), before.index(camera)) for camera in now if camera in before]
    shapes = {f"position.{name}": (shape.steps if not shape.folded else 1) for name, shape in network.segments.items()}
    for key, steps in ({"image_position": 1, "mean_frame": 1} | shapes).items():
        if key in own and key != "position.action":
            new, old = (x.view(steps, len(c), -1).clone() for x, c in ((own[key], now), (state[key], before)))
            for i, j in pairs:
                new[:, i] = old[:, j]
            moved[key] = new.view_as(own[key])
    if network.config.image.per_camera:
        moved = {key: value for key, value in moved.items() if not key.startswith("stem.")}
        moved |= {key: value for key, value in own.items() if key.startswith("stem.")}
        for i, j in pairs:
            stem = {k.removeprefix(f"stem.{j}."): v for k, v in state.items() if k.startswith(f"stem.{j}.")}
            moved |= {f"stem.{i}.{key}": torch.clone(value) for key, value in stem.items()}
    return moved
