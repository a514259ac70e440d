"""The network and its loss: what it sees, what it hides, and what nothing may reach."""

import dataclasses

import pytest
import torch
from foreact.policy.diffusion.config import Process
from foreact.policy.diffusion.path import PATHS
from foreact.policy.loss import Alignment
from foreact.policy.segments import COUPLINGS, QUERIES, Role, Segment, allowed, assume, learned

from .fakes import batch_of, losses, observed


def segments_of(policy, n: int = 2, b: int = 3) -> dict[str, Segment]:
    return {
        name: Segment(torch.randn(b, n, shape.tokens, shape.width), torch.rand(b, n))
        for name, shape in policy.model.segments.items()
    }


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("stem", ["conv", "patch"])
def test_shapes(make_policy, preset, positions, stem):
    backbone = dataclasses.replace(preset.backbone, positions=positions)
    image = dataclasses.replace(preset.image, stem=stem, patch=8)
    policy = make_policy(dataclasses.replace(preset, backbone=backbone, image=image))
    observation = observed(policy, batch_of(policy))
    segments = segments_of(policy)
    predictions = policy.model.denoise(segments, policy.model.encode(observation))
    assert {k: v.shape for k, v in predictions.items()} == {k: s.x.shape for k, s in segments.items()}


def test_context_cached_once_equals_each_draw_alone(make_policy, preset):
    policy = make_policy(preset)
    observation = observed(policy, batch_of(policy))
    segments = segments_of(policy, n=3)
    together = policy.model.denoise(segments, policy.model.encode(observation))
    for n in range(3):
        one = {k: Segment(s.x[:, n : n + 1], s.t[:, n : n + 1]) for k, s in segments.items()}
        alone = policy.model.denoise(one, policy.model.encode(observation))
        for name in one:
            torch.testing.assert_close(together[name][:, n : n + 1], alone[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_couplings_hide_what_they_say(make_policy, preset, coupling):
    policy = make_policy(dataclasses.replace(preset, coupling=coupling))
    observation = observed(policy, batch_of(policy))
    segments = segments_of(policy)
    encoding = policy.model.encode(observation)
    before = policy.model.denoise(segments, encoding)
    for changed, other in (("action", "future"), ("future", "action")):
        moved = segments | {changed: dataclasses.replace(segments[changed], x=segments[changed].x + 1)}
        after = policy.model.denoise(moved, encoding)
        assert torch.equal(before[other], after[other]) == (not COUPLINGS[coupling](other, changed))


def test_acting_blind_to_the_future_is_the_same_without_it(make_policy, preset):
    policy = make_policy(preset)
    observation = observed(policy, batch_of(policy))
    segments = segments_of(policy)
    encoding = policy.model.encode(observation)
    joint = policy.model.denoise(segments, encoding)["action"]
    alone = policy.model.denoise({"action": segments["action"]}, encoding)["action"]
    torch.testing.assert_close(joint, alone, rtol=1e-4, atol=1e-5)


def test_mask_table():
    table = allowed([("action", False), ("future", False)], "action_blind")
    assert table is not None
    assert table.tolist() == [[True, False], [True, True]]
    assert allowed([("action", False), ("future", False)], "full") is None


def test_what_is_observed_is_hidden_from_nobody():
    assert allowed([("action", False), ("future", True)], "action_blind") is None
    assert allowed([("action", True), ("future", False)], "one_way") is None


def test_a_continued_segment_shows_its_first_tokens_clean():
    x0, eps, t = torch.randn(2, 1, 6, 3), torch.randn(2, 1, 6, 3), torch.full((2, 1), 0.5)
    clean = torch.arange(6).expand(2, 1, 6) < 2
    segment = assume(Role.CONTINUE, x0, eps, t, PATHS["flow"], clean)
    assert torch.equal(segment.x[:, :, :2], x0[:, :, :2])
    torch.testing.assert_close(segment.x[:, :, 2:], (x0 + eps)[:, :, 2:] / 2)


def test_a_share_of_the_batch_costs_no_other_rows(make_policy, preset):
    policy = make_policy(dataclasses.replace(preset, draws={"policy": 1, "joint": 0.5}))
    batch = batch_of(policy, 4)
    assert batch.future_pad is not None
    before = losses(policy, batch).parts["future"]
    batch.future_pad[2:] = True  # the second half is not drawn
    assert torch.equal(before, losses(policy, batch).parts["future"])


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_trains_what_it_denoises(make_policy, preset, query):
    policy = make_policy(dataclasses.replace(preset, draws={query: 2}))
    parts = losses(policy, batch_of(policy)).parts
    assert parts.keys() == {name for name in policy.model.segments if learned(query, name)}


def test_clean_prefix_is_not_in_the_loss_and_has_time_zero(make_policy, preset):
    policy = make_policy(preset)
    observation = observed(policy, batch_of(policy))
    segment = segments_of(policy)["action"]
    encoding = policy.model.encode(observation)
    clean = torch.zeros(segment.x.shape[:3], dtype=torch.bool)
    clean[..., :2] = True
    prefixed = policy.model.denoise({"action": dataclasses.replace(segment, clean=clean)}, encoding)["action"]
    assert not torch.allclose(prefixed, policy.model.denoise({"action": segment}, encoding)["action"])
    all_clean = dataclasses.replace(segment, clean=torch.ones_like(clean))
    at_zero = dataclasses.replace(segment, t=torch.zeros_like(segment.t))
    torch.testing.assert_close(
        policy.model.denoise({"action": all_clean}, encoding)["action"],
        policy.model.denoise({"action": at_zero}, encoding)["action"],
    )


def test_padding_is_not_in_the_loss(make_policy, preset):
    policy = make_policy(dataclasses.replace(preset, draws={"policy": 2}))
    batch = batch_of(policy)
    batch.action_pad[:, 4:] = True
    policy.model.zero_grad()
    before = losses(policy, batch).parts["action"]
    changed = dataclasses.replace(batch, action=batch.action.clone())
    changed.action[:, 5] += 1
    noisy = losses(policy, changed).parts["action"]
    # the padded step is still seen by its neighbours, so the loss moves, but a loss on it would move it far more
    changed.action_pad[:] = False
    assert abs(noisy - before) < abs(losses(policy, changed).parts["action"] - before)


def test_an_absent_future_leaves_no_gradient(make_policy, preset):
    policy = make_policy(dataclasses.replace(preset, draws={"policy": 2}))
    losses(policy, batch_of(policy)).total.backward()
    touched = {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert not [name for name in touched if "future" in name]
    assert any("action" in name for name in touched)


def test_the_same_seed_gives_the_same_loss(make_policy, preset):
    policy = make_policy(preset)
    batch = batch_of(policy)
    options = {"image_shift": 3, "state_noise": 0.5}
    first, second, other = (losses(policy, batch, seed=seed, **options).total for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_state_noise_reaches_the_state_and_nothing_else(make_policy, preset):
    policy = make_policy(preset)
    batch = batch_of(policy)
    # equal draws but for the size
    little, much = (losses(policy, batch, seed=1, state_noise=std).total for std in (0.5, 1.0))
    assert not torch.equal(little, much)
    each = losses(policy, batch, batch, seed=1, state_noise=[0.5, 1.0]).total
    assert not torch.equal(each, losses(policy, batch, batch, seed=1, state_noise=[1.0, 0.5]).total)
    policy.model.from_state.weight.data.zero_()
    little, much = (losses(policy, batch, seed=1, state_noise=std).total for std in (0.5, 1.0))
    assert torch.equal(little, much)


def test_a_source_counts_by_its_weight(make_policy, preset):
    policy = make_policy(preset)
    one, other = batch_of(policy), batch_of(policy, 2, seed=7)
    equal = losses(policy, one, other, seed=1)
    assert torch.equal(losses(policy, one, other, seed=1, source_weights=[3, 3]).total, equal.total)
    told = losses(policy, one, other, seed=1, source_weights=[3, 1])
    assert told.parts == equal.parts
    first, most = losses(policy, one, seed=1).total, losses(policy, one, other, seed=1, source_weights=[1e9, 1]).total
    torch.testing.assert_close(most, first)
    assert min(first, equal.total) < told.total < max(first, equal.total)


@pytest.mark.parametrize(
    ("path", "target"), [("ddpm_cosine", "v"), ("ddpm_linear", "eps"), ("edm", "edm"), ("flow", "x0")]
)
def test_every_path_trains_and_acts(make_policy, preset, path, target):
    process = Process(path=path, target=target)
    policy = make_policy(dataclasses.replace(preset, action_process=process, future_process=process))
    assert torch.isfinite(losses(policy, batch_of(policy)).total)
    batch = batch_of(policy, 2)
    observations = [
        {"images": {c: v[i].numpy() for c, v in batch.images.items()}, "state": batch.state[i].numpy()}
        for i in range(2)
    ]
    chunk = policy.act(observations, ["go left"] * 2, [(0, 0, 0), (1, 0, 0)])
    assert abs(chunk).max() <= 1


class TestPrivileged:
    def test_no_policy_input_can_reach_it(self, make_policy, preset):
        policy = make_policy(preset)
        batch = batch_of(policy)
        assert batch.privileged is not None
        moved = dataclasses.replace(batch, privileged=batch.privileged + 100)
        assert torch.equal(losses(policy, batch).total, losses(policy, moved).total)
        batch.privileged.requires_grad_()
        losses(policy, batch).total.backward()
        assert batch.privileged.grad is None

    def test_alignment_uses_it_as_a_target_only(self, make_policy, preset):
        policy = make_policy(preset)
        alignment = {policy.embodiment.name: Alignment(32, 4, 3)}
        batch = batch_of(policy)
        result = losses(policy, batch, alignment=alignment, align_weight=0.5)
        assert result.parts["align"] > 0
        result.total.backward()
        assert policy.model.stem.project.weight.grad.abs().sum() > 0

    def test_alignment_is_off_without_state(self, make_policy, preset):
        policy = make_policy(preset)
        batch = dataclasses.replace(batch_of(policy), privileged=None)
        alignment = {policy.embodiment.name: Alignment(32, 4, 3)}
        assert "align" not in losses(policy, batch, alignment=alignment, align_weight=0.5).parts


def test_overfits_one_batch(make_policy, preset):
    policy = make_policy(dataclasses.replace(preset, draws={"joint": 4}))
    for head in policy.model.head.values():
        torch.nn.init.zeros_(head.weight)
    batch = batch_of(policy, 2)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=3e-3)
    first = losses(policy, batch).total.item()
    for step in range(60):
        losses(policy, batch, seed=step).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses(policy, batch).total.item() < 0.6 * first
