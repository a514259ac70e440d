"""The preset rdt: sizes, what attends to what, and what is encoded once."""

import dataclasses

import pytest
import torch
import yaml
from foreact.envs.slot_tables import with_slots
from foreact.envs.slot_tables.fakes import ROBOTS, camera
from foreact.policy.config import ModelConfig
from foreact.policy.inputs import observe, unbatched
from foreact.policy.model import Model
from foreact.policy.nn.block import RMSNorm
from foreact.policy.settings import build

from .test_config import FOLDER
from .test_robots import KINDS, batch_of, policy_of


def preset_of(size: str) -> ModelConfig:
    return build(ModelConfig, yaml.safe_load((FOLDER / "rdt" / f"{size}.yaml").read_text(encoding="utf-8")))


# Blocks of 10 D² each, and millions of parameters of all: the paper's 166 M, and 1228 M counted from RDT's own layers.
SIZES = [("170m", 14, 1024, 166), ("1b", 28, 2048, 1228)]


@pytest.mark.parametrize(("size", "depth", "width", "millions"), SIZES)
def test_parameters_are_within_three_percent_of_rdts(size, depth, width, millions):
    config = preset_of(size)
    robot = with_slots(ROBOTS["aloha-viperx"])
    with torch.device("meta"):
        model = Model(
            config, dataclasses.replace(robot, cameras=tuple(camera(name) for name in ("front", "right", "left"))), 1
        )
    blocks = sum(p.numel() for p in model.backbone.blocks.parameters())
    assert blocks == pytest.approx(depth * 10 * width**2, rel=0.03)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.fixture
def policy(preset):
    shared = {"space": "slots", "rate_token": True}
    return policy_of(dataclasses.replace(preset, **shared, **KINDS["rdt"]))


def observed(policy, **changes):
    batch, _ = batch_of(policy, "aloha-viperx")
    seen = observe(policy.transforms, policy.sentences, "cpu", unbatched(batch), ["go left"] * 3)
    return dataclasses.replace(seen, **changes)


def test_layers_attend_to_instruction_and_images_in_turn(policy):
    seen = observed(policy)
    images = policy.model.image_tokens(seen.views)
    lengths = [k.shape[-2] for k, _ in policy.model.encode(seen).context.layers]
    assert lengths == [1, images]
    assert all(isinstance(block.cross.q_norm, RMSNorm) for block in policy.model.backbone.blocks)


def test_each_condition_is_only_in_its_own_layers(policy):
    seen = observed(policy)
    before = policy.model.encode(seen).context.layers
    other = policy.model.encode(dataclasses.replace(seen, images=seen.images + 1)).context.layers
    assert torch.equal(before[0][0], other[0][0])
    assert not torch.equal(before[1][0], other[1][0])
    told = policy.model.encode(dataclasses.replace(seen, sentence=1 - seen.sentence)).context.layers
    assert not torch.equal(before[0][0], told[0][0])


def test_noise_rate_and_state_lead_the_actions(policy):
    encoding = policy.model.encode(observed(policy))
    assert encoding.lead.shape[1] == policy.config.n_obs_steps + 1  # states and rate; the noise is added for each time
    faster = policy.model.encode(observed(policy, rate=torch.full((3,), 10.0)))
    assert torch.equal(faster.lead[:, :-1], encoding.lead[:, :-1])
    assert not torch.equal(faster.lead[:, -1], encoding.lead[:, -1])


def test_the_observation_is_encoded_once(policy):
    batch, _ = batch_of(policy, "aloha-viperx")
    asked = (unbatched(batch), ["go left"] * 3, [(0, i) for i in range(3)])
    once = policy.act(*asked)
    solver = dataclasses.replace(policy.config.solver, cache=False, plan=False)
    policy.config = dataclasses.replace(policy.config, solver=solver)
    torch.testing.assert_close(torch.from_numpy(policy.act(*asked)), torch.from_numpy(once), rtol=1e-4, atol=1e-5)
