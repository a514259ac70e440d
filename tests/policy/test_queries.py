"""Every query of every layout and coupling: what is observed, hidden, absent and returned unchanged."""

import dataclasses

import numpy as np
import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.answers import Given
from foreact.policy.diffusion import RULES
from foreact.policy.diffusion.config import SolverConfig
from foreact.policy.inputs import unbatched
from foreact.policy.known import known
from foreact.policy.sample import Network, Start, sample
from foreact.policy.segments import COUPLINGS, PARTIAL, QUERIES, Role, role_of, roles_of

from .fakes import batch_of, losses, observed


@pytest.fixture(scope="session")
def deep(preset):
    """Depth seen and foreseen."""
    return dataclasses.replace(preset, depth=2.0)


def given_of(policy, batch, query: str) -> Given:
    shown = {
        name: known(role, policy.model.segments[name], torch.Size((len(batch), 1)), torch.Generator())[:, 0]
        for name in policy.model.segments
        if (role := role_of(query, name)) in PARTIAL
    }
    future, depth = ({c: v.numpy() for c, v in d.items()} for d in (batch.future, batch.future_depth))
    return Given(actions=batch.action_executed.numpy(), future=future, depth=depth, shown=shown)


def ask(policy, batch, query: str, **options):
    keys = [(0, i, 0) for i in range(len(batch))]
    words = ["go left"] * len(batch)
    return policy.ask(query, unbatched(batch), words, keys, given_of(policy, batch, query), **options)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("kind", ["preset", "deep", "stacked"])
def test_every_query_is_answered(make_policy, request, kind, query):
    config = request.getfixturevalue(kind)
    policy = make_policy(config)
    if config.layout == "stacked" and any(role in PARTIAL for role in QUERIES[query].values()):
        return
    batch = batch_of(policy)
    answer = ask(policy, batch, query)
    moving = roles_of(query, policy.model.segments)
    assert (answer.actions is not None) == (moving.get("action") not in (None, Role.OBSERVE))
    assert bool(answer.frames) == (moving.get("future") not in (None, Role.OBSERVE))
    assert bool(answer.depth) == (bool(answer.frames) and kind == "deep")
    for frames in answer.frames.values():
        assert frames.shape == (3, 2, 32, 32, 3)
    for metres in answer.depth.values():
        assert metres.shape == (3, 2, 32, 32)
        assert 0 <= metres.min() <= metres.max() <= 2.0001


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("kind", ["preset", "stacked"])
def test_a_step_plan_gives_the_same_numbers(make_policy, request, kind, query):
    """With guidance and without; for every solver in one query, as a solver does not know which it solves."""
    config = request.getfixturevalue(kind)
    if config.layout == "stacked" and any(role in PARTIAL for role in QUERIES[query].values()):
        return
    policy = make_policy(config)
    batch, drawn = batch_of(policy), given_of(policy, batch_of(policy), query)

    def answer(plan: bool, rule: str, guidance: float):
        policy.config = dataclasses.replace(config, solver=SolverConfig(rule=rule, steps=2, plan=plan))
        keys = [(0, i, 0) for i in range(len(batch))]
        return policy.ask(query, unbatched(batch), ["go left"] * len(batch), keys, drawn, guidance=guidance)

    guided = [("euler", 1.5)] if config.times == "independent" else []
    rules = RULES if query == "joint" else ("euler",)
    for rule, guidance in [*((rule, 1.0) for rule in rules), *guided]:
        plain, planned = answer(False, rule, guidance), answer(True, rule, guidance)
        if plain.actions is not None:
            np.testing.assert_allclose(planned.actions, plain.actions, atol=1e-5)
        for camera, frames in plain.frames.items():
            assert np.abs(planned.frames[camera].astype(int) - frames).max() <= 1  # a rounding of 1e-5


@pytest.mark.parametrize("kind", ["deep", "stacked"])
def test_every_layout_trains(make_policy, request, kind):
    policy = make_policy(request.getfixturevalue(kind))
    found = losses(policy, batch_of(policy))
    found.total.backward()
    assert found.parts.keys() == set(policy.model.segments)
    idle = [n for n, p in policy.model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


@pytest.mark.parametrize("role", PARTIAL)
def test_observed_tokens_come_back_unchanged(make_policy, preset, role):
    policy = make_policy(preset)
    query = next(q for q in QUERIES if role in QUERIES[q].values())
    roles = roles_of(query, policy.model.segments)
    (name,) = roles
    shape = policy.model.segments[name]
    values, noise = torch.randn(2, shape.tokens, shape.width), torch.randn(2, shape.tokens, shape.width)
    shown = known(role, shape, torch.Size((2, 1)), torch.Generator().manual_seed(0))[:, 0]
    with torch.inference_mode():
        encoding = policy.model.encode(observed(policy, batch_of(policy, 2)))
        start = Start(roles, {name: noise}, {name: values}, {name: shown})
        found = sample(Network(policy.model, SolverConfig(steps=3)), encoding, start)[name]
    assert torch.equal(found[shown], values[shown])
    assert not torch.isclose(found[~shown], values[~shown]).all()


@pytest.mark.parametrize("kind", ["preset", "stacked"])
def test_editing_actions_leaves_one_way_pictures_bit_identical(make_policy, request, kind):
    config = dataclasses.replace(request.getfixturevalue(kind), coupling="one_way")
    policy = make_policy(config)
    batch = batch_of(policy)
    before = ask(policy, batch, "joint").frames
    normal = policy._noise
    policy._noise = lambda name, keys, rows: normal(name, keys, rows) + 3 * (name == "action")
    after = ask(policy, batch, "joint")
    assert all(np.array_equal(before[c], after.frames[c]) for c in before)
    policy._noise = lambda name, keys, rows: normal(name, keys, rows) + 3 * (name == "future")
    assert not np.array_equal(ask(policy, batch, "joint").actions, after.actions)


@pytest.mark.parametrize("query", ["forward_dynamics", "inverse_dynamics"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_what_is_observed_matters_under_every_coupling(make_policy, preset, coupling, query):
    policy = make_policy(dataclasses.replace(preset, coupling=coupling))
    batch, other = batch_of(policy), batch_of(policy)
    other.action_executed = -batch.action_executed
    other.future = {c: 255 - v for c, v in batch.future.items()}
    a, b = (ask(policy, x, query) for x in (batch, other))
    if query == "forward_dynamics":
        assert any(not np.array_equal(a.frames[c], b.frames[c]) for c in a.frames)
    else:
        assert not np.array_equal(a.actions, b.actions)


def test_dynamics_learn_what_was_executed_and_policies_what_was_meant(make_policy, preset):
    for query, matters in (("policy", False), ("inverse_dynamics", True)):
        policy = make_policy(dataclasses.replace(preset, draws={query: 1}))
        batch = batch_of(policy)
        before = losses(policy, batch).total
        batch.action_executed = batch.action_executed + 0.5
        assert torch.equal(before, losses(policy, batch).total) != matters


class TestGuidance:
    def test_one_is_none_and_more_moves_along_the_difference(self, make_policy, preset):
        policy = make_policy(dataclasses.replace(preset, coupling="full"))
        batch = batch_of(policy)
        plain, one, two = (ask(policy, batch, "forward_dynamics", guidance=s).frames for s in (1.0, 1.0, 2.0))
        assert all(np.array_equal(plain[c], one[c]) for c in plain)
        assert any(not np.array_equal(plain[c], two[c]) for c in plain)

    def test_zero_is_the_marginal(self, make_policy, preset):
        """u + 0 (c - u) does not look at what is given."""
        policy = make_policy(dataclasses.replace(preset, coupling="full"))
        batch, other = batch_of(policy), batch_of(policy)
        other.action_executed = -batch.action_executed
        a, b = (ask(policy, x, "forward_dynamics", guidance=0.0).frames for x in (batch, other))
        assert all(np.array_equal(a[c], b[c]) for c in a)

    def test_one_time_for_all_has_no_marginals(self, make_policy, preset):
        policy = make_policy(dataclasses.replace(preset, times="shared"))
        with pytest.raises(UserError, match=r"guidance=2 takes marginals .* has one for all: guidance=1"):
            ask(policy, batch_of(policy), "joint", guidance=2.0)


def test_what_a_query_observes_must_be_given(make_policy, preset):
    policy = make_policy(preset)
    batch = batch_of(policy)
    keys = [(0, i, 0) for i in range(3)]
    with pytest.raises(UserError, match=r"'forward_dynamics' observes \['action'\]; give their values"):
        policy.ask("forward_dynamics", unbatched(batch), ["go left"] * 3, keys)
    with pytest.raises(UserError, match="unknown query 'dream'"):
        policy.ask("dream", unbatched(batch), ["go left"] * 3, keys)


def test_observation_encoded_once_equals_one_sequence(make_policy, preset):
    """The cache against the plain computation: context and denoised tokens in one sequence, under one mask."""
    policy = make_policy(dataclasses.replace(preset, coupling="full"))
    net = policy.model.backbone
    torch.manual_seed(1)
    context, x = torch.randn(2, 7, 32), torch.randn(2, 1, 5, 32)
    t = torch.rand(2, 1, 1)
    timed = net.timed(torch.cat([t, torch.zeros_like(t)], dim=-1))
    selector = torch.zeros(2, 1, 12, 2)
    selector[..., :7, 1] = 1
    selector[..., 7:, 0] = 1
    mask = torch.ones(12, 12, dtype=torch.bool)
    mask[:7, 7:] = False
    from foreact.policy.nn.backbone import Context

    whole = net.denoise(torch.cat([context.unsqueeze(1), x], dim=2), timed, Context([]), selector=selector, mask=mask)
    cached = net.denoise(x, net.timed(t), net.encode(context))
    torch.testing.assert_close(whole[:, :, 7:], cached, rtol=0, atol=1e-5)


def test_encoding_at_every_step_is_the_same(make_policy, preset):
    answers = []
    for cache in (None, True, False):
        solver = dataclasses.replace(preset.solver, cache=cache)
        policy = make_policy(dataclasses.replace(preset, solver=solver))
        answers.append(ask(policy, batch_of(policy), "joint").actions)
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-5)
    np.testing.assert_array_equal(answers[0], answers[1])


def test_a_cache_that_the_layout_does_not_allow_is_refused(stacked):
    with pytest.raises(UserError, match="sees the observation on the channels of what it denoises"):
        dataclasses.replace(stacked, solver=SolverConfig(cache=True))
