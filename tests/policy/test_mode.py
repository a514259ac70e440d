"""MoDE: one causal sequence, experts by the noise, fused when acting; and experts in the other presets."""

import dataclasses

import numpy as np
import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.diffusion.config import Process, SolverConfig
from foreact.policy.diffusion.path import PATHS, input_scale
from foreact.policy.inputs import unbatched
from foreact.policy.nn.config import BackboneConfig, ExpertsConfig
from foreact.policy.observation import Observation
from foreact.policy.segments import Segment
from foreact.policy.tokens.images import ImageConfig

from .fakes import batch_of, losses

EXPERTS = ExpertsConfig(number=4, chosen=2)


@pytest.fixture
def mode(preset):
    backbone = BackboneConfig(
        width=32, depth=2, heads=2, activation="swiglu", norm="rms", conditioning="attention", time="log_sigma",
        experts=EXPERTS,
    )  # fmt: skip
    return dataclasses.replace(
        preset, name="mode/test", backbone=backbone, layout="sequence", goal_dropout=0.2, times="shared",
        action_process=Process(path="edm_mode", target="edm", times="log_logistic"),
        future_process=Process(path="edm_mode", target="edm", times="log_logistic"),
        solver=SolverConfig(steps=6, grid="exponential"), draws={"policy": 2, "continue": 1, "joint": 1},
    )  # fmt: skip


@pytest.fixture
def joint(preset):
    """Experts on image and action tokens, each at its own time, beside a cached observation."""
    return dataclasses.replace(preset, backbone=dataclasses.replace(preset.backbone, experts=EXPERTS))


def ask(policy, query: str, size: int = 3, **changes):
    policy.config = dataclasses.replace(policy.config, solver=dataclasses.replace(policy.config.solver, **changes))
    batch = batch_of(policy, size)
    keys = [(0, i) for i in range(size)]
    told = ["go left", "go right"] * (size // 2) + ["go left"] * (size % 2)
    return policy.ask(query, unbatched(batch), told, keys)


def observed(policy, size: int = 2) -> Observation:
    torch.manual_seed(0)
    config = policy.config
    images = torch.rand(size, 2, 2, config.pixels, config.pixels, 3)
    return Observation(images, torch.randn(size, 2, 3), torch.arange(size) % 2)


@pytest.mark.parametrize("kind", ["mode", "joint"])
@pytest.mark.parametrize("query", ["policy", "joint", "continue"])
@pytest.mark.parametrize("size", [1, 5])
def test_fused_acting_is_routed_acting(make_policy, request, kind, query, size):
    policy = make_policy(request.getfixturevalue(kind))
    if "continue" in query:
        answers = [_continued(policy, plan=plan) for plan in (True, False)]
        np.testing.assert_allclose(*answers, atol=1e-5)
        return
    fused, routed = (ask(policy, query, size, plan=plan) for plan in (True, False))
    np.testing.assert_allclose(fused.actions, routed.actions, atol=1e-5)
    for camera, frames in fused.frames.items():
        assert np.abs(frames.astype(int) - routed.frames[camera]).max() <= 1


def _continued(policy, *, plan: bool) -> np.ndarray:
    """A chunk whose first actions are given: clean tokens beside noisy ones, each at its own time."""
    from foreact.policy.answers import Given

    config = dataclasses.replace(policy.config.solver, plan=plan)
    policy.config = dataclasses.replace(policy.config, solver=config)
    batch = batch_of(policy, 2)
    shown = torch.zeros(2, policy.config.horizon, dtype=torch.bool)
    shown[0, :2], shown[1, :3] = True, True
    assert batch.action is not None
    given = Given(actions=batch.action.numpy(), shown={"action": shown})
    answer = policy.ask("continue", unbatched(batch), ["go left"] * 2, [(0, 0), (0, 1)], given)
    assert answer.actions is not None
    return answer.actions


def test_a_plan_holds_a_fused_layer_for_each_step_and_pair(make_policy, mode):
    policy = make_policy(mode)
    ask(policy, "policy")
    (plan,) = policy._plans._kept.values()
    layers = [{id(layer) for layer, *_ in timed.routes[i].fused} for i in (0, 1) for timed in plan.steps]
    assert all(len(layer) == 1 for layer in layers)
    distinct = len(set().union(*layers))
    hidden = 2 * 4 * 32  # two experts
    one = 4 * (2 * (2 * hidden * 32 + hidden * 32) + 2 * hidden)  # weights twice: CPUs keep them packed as well
    assert plan.nbytes == sum(timed.rows.nbytes for timed in plan.steps) + distinct * one
    assert 2 <= distinct <= 12


def test_training_draws_experts_and_logs_their_losses(make_policy, mode):
    experts = dataclasses.replace(EXPERTS, prior=0.3, z=0.001)
    policy = make_policy(dataclasses.replace(mode, backbone=dataclasses.replace(mode.backbone, experts=experts)))
    policy.model.train()
    found = losses(policy, batch_of(policy, 6))
    weights = {"action": 1.0, "future": 1.0, "balance": 0.01, "prior": 0.3, "z": 0.001}
    assert found.parts.keys() == weights.keys()
    weighted = sum(weights[name] * part for name, part in found.parts.items())
    torch.testing.assert_close(found.total.detach(), weighted)
    found.total.backward()
    for block in policy.model.backbone.blocks:
        grad = block.mlp.up.weight.grad  # type: ignore[union-attr]
        assert (grad.flatten(1).abs().sum(1) > 0).all()
    assert all(p.grad is not None for p in policy.model.backbone.time_router.parameters())  # type: ignore[union-attr]


def test_the_sequence_is_causal(make_policy, mode):
    policy = make_policy(mode)
    encoding = policy.model.encode(observed(policy))
    x, t = torch.randn(2, 1, 6, 4), torch.full((2, 1), 0.4)
    with torch.no_grad():
        before = policy.model.denoise({"action": Segment(x, t)}, encoding)["action"]
        moved = x.clone()
        moved[:, :, 4:] += 1
        after = policy.model.denoise({"action": Segment(moved, t)}, encoding)["action"]
    torch.testing.assert_close(before[:, :, :4], after[:, :, :4])
    assert not torch.allclose(before[:, :, 4:], after[:, :, 4:])


@pytest.mark.parametrize(
    ("token", "conditioning", "tells"),
    [(False, "none", False), (True, "none", True), (False, "attention", True), (False, "adaln", True)],
)
def test_each_way_in_tells_the_noise(make_policy, mode, token, conditioning, tells):
    """With dense layers, and values that look the same at both times."""
    backbone = dataclasses.replace(mode.backbone, conditioning=conditioning, experts=None)
    policy = make_policy(dataclasses.replace(mode, backbone=backbone, noise_token=token))
    encoding, x = policy.model.encode(observed(policy)), torch.randn(2, 1, 6, 4)
    with torch.no_grad():
        found = []
        for t in (0.2, 0.7):
            scale = input_scale("edm", PATHS["edm_mode"], t)
            found.append(
                policy.model.denoise({"action": Segment(x / scale, torch.full((2, 1), t))}, encoding)["action"]
            )
    assert torch.allclose(*found, atol=1e-6) != tells


def test_observed_frames_are_seen_by_actions_before_them(make_policy, mode):
    policy = make_policy(mode)
    encoding, x = policy.model.encode(observed(policy)), torch.randn(2, 1, 6, 4)
    shape = policy.model.segments["future"]
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        frames = torch.randn(2, 1, shape.tokens, shape.width)
        segments = {
            "action": Segment(x, torch.full((2, 1), 0.5)),
            "future": Segment(frames, torch.zeros(2, 1), observed=True),
        }
        with torch.no_grad():
            found.append(
                policy.model.denoise(segments, dataclasses.replace(encoding, beside=_beside(policy)))["action"]
            )
    assert not torch.allclose(*found)


def _beside(policy):
    shape = policy.model.segments["future"]
    return {"future": torch.zeros(2, shape.tokens, shape.channels)}


def test_an_instruction_that_is_not_told_changes_nothing(make_policy, mode):
    policy = make_policy(mode)
    seen = observed(policy)
    nobody = torch.zeros(2, dtype=torch.bool)
    encoded = [
        policy.model.encode(dataclasses.replace(seen, sentence=sentence, told=nobody)).lead
        for sentence in (torch.tensor([0, 1]), torch.tensor([1, 0]))
    ]
    assert torch.equal(*encoded)  # type: ignore[arg-type]


def test_images_through_residual_networks(make_policy, mode):
    image = ImageConfig(stem="resnet18", film=True, per_camera=True)
    policy = make_policy(dataclasses.replace(mode, image=image, draws={"policy": 1}))
    seen = observed(policy)
    lead = policy.model.encode(seen).lead
    assert lead is not None
    assert lead.shape == (2, 1 + 2 * 2 + 2, 32)  # instruction, two cameras of two steps, two states
    policy.model.train()
    losses(policy, batch_of(policy, 6)).total.backward()
    silent = [n for n, p in policy.model.named_parameters() if p.grad is None]
    assert not [n for n in silent if n.startswith("stem")]


def test_what_does_not_fit_is_refused(mode):
    with pytest.raises(UserError, match="in the sequence of what it denoises, so there is nothing to cache"):
        dataclasses.replace(mode, solver=dataclasses.replace(mode.solver, cache=True))
    with pytest.raises(UserError, match="coupling 'full' is not possible"):
        dataclasses.replace(mode, coupling="full")
    with pytest.raises(UserError, match="is causal"):
        dataclasses.replace(mode, draws={"animate": 1})
    choosing = dataclasses.replace(mode.backbone, experts=ExpertsConfig(router="expert_choice"))
    with pytest.raises(UserError, match="every token sees every other"):
        dataclasses.replace(mode, backbone=choosing)
    with pytest.raises(UserError, match="goal_dropout is a share"):
        dataclasses.replace(mode, goal_dropout=1.0)
    with pytest.raises(UserError, match="not steered by the instruction"):
        ImageConfig(stem="conv", film=True)


@pytest.mark.parametrize("router", ["token", "expert_choice", "split"])
def test_other_routers_act_and_learn(make_policy, joint, router):
    experts = ExpertsConfig(router=router, chosen=1 if router == "split" else 2, shared=1, z=0.001)
    backbone = dataclasses.replace(joint.backbone, experts=experts)
    policy = make_policy(dataclasses.replace(joint, backbone=backbone, coupling="full"))
    policy.model.train()
    found = losses(policy, batch_of(policy, 6))
    assert ("balance" in found.parts) == (router != "split")
    found.total.backward()
    policy.model.eval()
    with_plan, without = (ask(policy, "policy", plan=plan).actions for plan in (True, False))
    np.testing.assert_allclose(with_plan, without, atol=1e-5)
