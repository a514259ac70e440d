"""A tiny robot, its fake store and a tiny preset of each kind: model tests need no simulator."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from foreact.data.normalize import Normalizer
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.spec import Camera, Embodiment, Field
from foreact.policy import train
from foreact.policy.config import ModelConfig
from foreact.policy.model import Model
from foreact.policy.nn.config import BackboneConfig, ExpertsConfig
from foreact.policy.policy import Policy
from foreact.policy.sentences import Sentences
from foreact.policy.tokens.images import ImageConfig
from foreact.policy.transforms import Transforms

from .runs import SHORT


def _field(name: str, size: int) -> Field:
    return Field(name=name, unit="m", low=(-1.0,) * size, high=(1.0,) * size)


@pytest.fixture(scope="session")
def embodiment() -> Embodiment:
    return Embodiment(
        name="toy",
        cameras=(
            Camera(name="front", mount="front", height=32, width=32),
            Camera(name="side", mount="side", height=32, width=32),
        ),
        state=(_field("hand", 3),),
        action=(_field("velocity", 3), _field("gripper", 1)),
        privileged=(_field("object", 3),),
        control_hz=20,
    )


@pytest.fixture(scope="session")
def preset() -> ModelConfig:
    """Joint, tiny, with everything on: two views, two observation steps, two future frames."""
    return ModelConfig(
        name="joint/test",
        backbone=BackboneConfig(width=32, depth=2, heads=2, gate_init=0.2),
        image=ImageConfig(channels=(8, 8, 8), keypoints=4, summary=4),
        pixels=32,
        center_images=True,
        n_obs_steps=2,
        horizon=6,
        n_action_steps=3,
        future=(2, 4),
        future_patch=16,
        draws={"policy": 2, "continue": 1, "joint": 0.5},
        instruction="table",
    )


@pytest.fixture(scope="session")
def stacked(preset):
    """PAD's layout at test size."""
    return dataclasses.replace(
        preset,
        layout="stacked", coupling="one_way", times="shared", own_final=True, draws={"joint": 2},
        backbone=dataclasses.replace(preset.backbone, positions="sincos"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_policy(embodiment: Embodiment):
    """(config, randomised heads) → an untrained policy whose output depends on everything."""

    def make(config: ModelConfig) -> Policy:
        import torch

        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        sizes = {"state": 3, "action": 4, "privileged": 3}
        normalizers = {
            k: Normalizer.fit(rng.standard_normal((64, n)).astype(np.float32), "gaussian") for k, n in sizes.items()
        }
        model = Model(config, embodiment, 2)
        for parameter in model.parameters():  # zero-initialised heads and gates would hide differences
            torch.nn.init.normal_(parameter, std=0.1)
        sentences = Sentences("table", ("go left", "go right"))
        return Policy(
            model, Transforms(config, embodiment, normalizers, {"future": 0.5}), sentences, ["toy/l", "toy/r"], "cpu"
        )

    return make


@pytest.fixture(scope="session")
def store(tmp_path_factory, embodiment: Embodiment) -> Path:
    """Six fake episodes of two tasks on disk, for all to read; who adds to them takes a copy."""
    path = tmp_path_factory.mktemp("six") / "store"
    with Store.create(path, embodiment, privileged=True) as made:
        for i in range(6):
            episode = fake_episode(embodiment, steps=12 + i, seed=i, privileged=True)
            task, sentence = (("toy/l", "go left"), ("toy/r", "go right"))[i % 2]
            made.append(dataclasses.replace(episode, task=task, instruction=sentence))
    return path


@pytest.fixture(scope="session")
def trained(store, preset, tmp_path_factory):
    """The run of all four updates, for all to read; who changes it takes a copy."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(store, preset, SHORT, out, command="foreact train …", progress=False)


@pytest.fixture(scope="session")
def dropping(preset):
    """Experts that are drawn, and dropout, which draws from PyTorch's own generator."""
    backbone = dataclasses.replace(preset.backbone, experts=ExpertsConfig(), attention_dropout=0.2, mlp_dropout=0.2)
    return dataclasses.replace(preset, backbone=backbone)
