"""A policy of any preset that has learned nothing, to be timed."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch

from ...data.normalize import Normalizer
from ...envs.metaworld_tasks import EMBODIMENT
from ...policy.config import ModelConfig
from ...policy.model import Model
from ...policy.policy import Policy
from ...policy.sentences import Sentences
from ...policy.transforms import Transforms


def deeper(config: ModelConfig, parameters: int) -> ModelConfig:
    """The preset with as many layers as it takes to have that many parameters at least."""
    for depth in itertools.count(config.backbone.depth):
        config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, depth=depth))
        if sum(p.numel() for p in fake_policy(config).model.parameters()) >= parameters:
            return config
    raise AssertionError


def alone(config: ModelConfig) -> ModelConfig:
    """The preset that learns actions alone, with one noise draw of each sample; where steps lie on channels, which
    frames cannot be left out of, the draw is of all that acting denoises."""
    if config.layout == "stacked":
        return dataclasses.replace(config, draws={config.acting: 1})
    return dataclasses.replace(config, future=(), draws={"policy": 1})


def fake_policy(
    config: ModelConfig, device: str = "cpu", *, cameras: int | None = None, sentence: str = "go"
) -> Policy:
    """An untrained policy of that preset for the Metaworld arm, seen by so many cameras (None: its own)."""
    rng = np.random.default_rng(0)
    sizes = {"state": EMBODIMENT.state_dim, "action": EMBODIMENT.action_dim, "privileged": EMBODIMENT.privileged_dim}
    normalizers = {
        k: Normalizer.fit(rng.standard_normal((64, n)).astype(np.float32), "gaussian") for k, n in sizes.items()
    }
    config = dataclasses.replace(config, instruction="table")
    views = EMBODIMENT.cameras if cameras is None else tuple(
        dataclasses.replace(EMBODIMENT.cameras[0], name=f"camera{i}") for i in range(cameras)
    )  # fmt: skip
    views = tuple(dataclasses.replace(c, height=config.pixels, width=config.pixels) for c in views)
    embodiment = dataclasses.replace(EMBODIMENT, cameras=views)
    torch.manual_seed(0)
    model = Model(config, embodiment, 1)
    transforms = Transforms(config, embodiment, normalizers, tokenizer=model.tokenizer)
    return Policy(model, transforms, Sentences("table", (sentence,)), ["x/go"], device)


def fake_seen(policy: Policy) -> dict[str, Any]:
    """An observation for it."""
    n = policy.n_obs_steps
    images = {c.name: np.zeros((n, c.height, c.width, 3), np.uint8) for c in policy.embodiment.cameras}
    return {"images": images, "state": np.zeros((n, policy.embodiment.state_dim), np.float32)}
