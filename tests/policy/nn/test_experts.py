"""Experts: the grouped dispatch against a loop, fused layers against routed ones, and what each router may do."""

import dataclasses

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.nn.backbone import Backbone
from foreact.policy.nn.config import ROUTERS, BackboneConfig, ExpertsConfig
from foreact.policy.nn.experts import Bank, Experts
from foreact.policy.nn.fused import Route
from foreact.policy.nn.routing import Choice, TimeRouter, Usage
from foreact.policy.nn.timed import Timed
from foreact.policy.nn.upcycle import upcycled

D = 16


def config(**experts) -> BackboneConfig:
    activation = experts.pop("activation", "swiglu")
    return BackboneConfig(
        width=D, depth=2, heads=2, gate_init=0.5, activation=activation, experts=ExpertsConfig(**experts)
    )


def one(experts: Experts, e: int, x: torch.Tensor) -> torch.Tensor:
    """Expert e of all tokens, as a plain engineer writes it."""
    hidden = experts.activation(x @ experts.up.weight[e].T + experts.up.bias[e])
    return hidden @ experts.down.weight[e].T + experts.down.bias[e]


def by_hand(experts: Experts, x: torch.Tensor, choice: Choice) -> torch.Tensor:
    out = torch.zeros_like(x) if experts.shared is None else experts.shared.run(x)
    for k in range(choice.experts.shape[-1]):
        for e in range(experts.config.number):
            mine = (choice.experts[..., k] == e) * choice.weights[..., k]
            out = out + mine[..., None] * one(experts, e, x)
    return out


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("shared", [0, 2])
def test_grouped_dispatch_is_the_sum_of_the_chosen_experts(activation, shared):
    torch.manual_seed(0)
    experts, x = Experts(config(activation=activation, shared=shared)), torch.randn(3, 2, 5, D)
    which = torch.rand(3, 2, 5, 4).topk(2).indices
    choice = Choice(which, torch.rand(which.shape))
    torch.testing.assert_close(experts(x, Route(choice))[0], by_hand(experts, x, choice), rtol=0, atol=1e-6)


def test_an_expert_that_nobody_takes_costs_nothing_and_has_no_gradient():
    experts, x = Experts(config()), torch.randn(1, 1, 3, D)
    experts(x, Route(Choice(torch.tensor([[[[1, 3]]]]), torch.ones(1, 1, 1, 2))))[0].sum().backward()
    assert experts.up.weight.grad is not None
    assert [bool(g.abs().sum() > 0) for g in experts.up.weight.grad] == [False, True, False, True]


def test_gradients_are_those_of_the_plain_formula():
    torch.manual_seed(0)
    experts, x = Experts(config(router="token")), torch.randn(2, 2, 6, D)
    probabilities = experts.router(x).softmax(-1)  # type: ignore[misc]
    which = probabilities.topk(2).indices
    weights = probabilities.gather(-1, which)
    choice = Choice(which, weights / weights.sum(-1, keepdim=True))
    found = []
    for out in (experts(x)[0], by_hand(experts, x, choice)):
        experts.zero_grad()
        out.square().sum().backward(retain_graph=True)
        found.append([p.grad.clone() for p in experts.parameters()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_each_expert_takes_its_share_of_every_sequence():
    experts, x = Experts(config(router="expert_choice")), torch.randn(2, 3, 8, D)
    out, usage = experts(x)
    assert usage is not None
    torch.testing.assert_close(usage.load, torch.full((4,), 0.25))
    torch.testing.assert_close(out[1:, 2:], experts(x[1:, 2:])[0])  # another sequence changes nothing


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_fused_is_routed(shared, batch):
    torch.manual_seed(0)
    net = Backbone(config(shared=shared))
    x, seen, t = torch.randn(batch, 1, 5, D), torch.randn(batch, 4, D), torch.full((1, 1, 1), 0.3)
    with torch.no_grad():
        timed = net.timed(t)
        fused = net.fused(timed, Bank())
        context = net.encode(seen)
        for one_choice, route in zip(timed.routes, fused.routes, strict=True):
            assert one_choice.choice is not None
            assert len(route.fused) == 1
        torch.testing.assert_close(net.denoise(x, fused, context), net.denoise(x, timed, context), rtol=0, atol=1e-5)


def test_fused_tokens_of_several_times_go_their_own_ways():
    torch.manual_seed(0)
    net = Backbone(config())
    x, seen = torch.randn(2, 1, 6, D), torch.randn(2, 4, D)
    selector = torch.eye(3)[torch.tensor([[0, 0, 2, 1, 1, 1], [0, 2, 2, 1, 1, 1]])][:, None]  # a prefix is clean
    with torch.no_grad():
        timed, context = net.timed(torch.tensor([[[0.9, 0.2, 0.0]]])), net.encode(seen)
        fused = net.fused(timed, Bank())
        torch.testing.assert_close(
            net.denoise(x, fused, context, selector=selector),
            net.denoise(x, timed, context, selector=selector),
            rtol=0, atol=1e-5,
        )  # fmt: skip


def test_equal_sets_of_experts_share_one_layer():
    net, bank = Backbone(config()), Bank()
    fused = [net.fused(net.timed(torch.full((1, 1, 1), t)), bank) for t in torch.linspace(0, 1, 40).tolist()]
    layers = {id(layer) for timed in fused for layer, *_ in timed.routes[0].fused}
    assert 1 <= len(layers) <= 6


def test_training_draws_by_probability_and_acting_takes_the_most_likely():
    torch.manual_seed(0)
    router = TimeRouter(config())
    embedded, t = torch.randn(1, D).expand(4000, D), torch.zeros(4000)
    usage: list[Usage] = []
    drawn = router(t, embedded, torch.Generator().manual_seed(0), usage)[0]
    first = torch.bincount(drawn.experts[:, 0], minlength=4) / 4000
    torch.testing.assert_close(first, usage[0].probability, rtol=0, atol=0.03)
    assert (drawn.experts[:, 0] != drawn.experts[:, 1]).all()
    torch.testing.assert_close(drawn.weights.sum(-1), torch.ones(4000))
    acting = router(t, embedded)[0]
    assert (acting.experts == usage[0].probability.topk(2).indices).all()


def test_balanced_is_what_acting_takes_and_not_what_training_draws():
    torch.manual_seed(0)
    router, usage = TimeRouter(config(balance=0.01)), []
    t, embedded = torch.rand(64), torch.randn(64, D)
    drawn = router(t, embedded, torch.Generator().manual_seed(0), usage)
    for layer, (acting, seen) in enumerate(zip(router(t, embedded), usage, strict=True)):
        load = torch.bincount(acting.experts.flatten(), minlength=4) / acting.experts.numel()
        torch.testing.assert_close(seen.load, load)
        assert not torch.equal(drawn[layer].experts, acting.experts)


def test_a_split_by_time_learns_nothing():
    net = Backbone(config(router="split", chosen=1))
    choice = net.timed(torch.tensor([[[0.0, 0.24, 0.26, 0.99, 1.0]]])).routes[0].choice
    assert choice is not None
    assert choice.experts.flatten().tolist() == [0, 0, 1, 3, 3]
    assert net.time_router is not None
    assert not list(net.time_router.parameters())


@pytest.mark.parametrize("router", ROUTERS)
def test_gradients_reach_every_expert(router):
    torch.manual_seed(0)
    net = Backbone(config(router=router, chosen=1 if router == "split" else 2, shared=1))
    generator = torch.Generator().manual_seed(0)
    timed = net.timed(torch.linspace(0, 1, 64).view(32, 2, 1), generator=generator)
    out = net.denoise(torch.randn(32, 2, 4, D), timed, net.encode(torch.randn(32, 5, D)))
    out.square().mean().backward()
    for block in net.blocks:
        for grad in (block.mlp.up.weight.grad, block.mlp.down.weight.grad):  # type: ignore[union-attr]
            assert (grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"chosen": 5}, "5 chosen of 4"),
        ({"router": "split"}, "chosen=1, not 2"),
        ({"router": "token", "prior": 1.0}, "learns none"),
        ({"router": "moon"}, "unknown router of experts"),
        ({"shared": -1}, "got -1"),
    ],
)
def test_impossible_experts_are_named(settings, said):
    with pytest.raises(UserError, match=said):
        ExpertsConfig(**settings)


def test_dense_weights_from_before_load():
    net = Backbone(dataclasses.replace(config(), experts=None))
    old = {name.replace(".mlp.", "."): value for name, value in net.state_dict().items()}
    other = Backbone(dataclasses.replace(config(), experts=None))
    other.load_state_dict(old)
    x = torch.randn(1, 3, D)
    torch.testing.assert_close(other.encode(x, whole=True).tokens, net.encode(x, whole=True).tokens)
    assert isinstance(net.clean(), Timed)


@pytest.mark.parametrize(("router", "chosen"), [("time", 2), ("token", 1), ("split", 1)])
def test_upcycled_experts_begin_as_the_dense_layer(router, chosen):
    torch.manual_seed(0)
    dense = Backbone(dataclasses.replace(config(), experts=None))
    net = Backbone(config(router=router, chosen=chosen))
    net.load_state_dict(upcycled(dense, net))
    x, seen, t = torch.randn(3, 2, 5, D), torch.randn(3, 4, D), torch.rand(3, 2, 1)
    with torch.no_grad():
        found = [one.denoise(x, one.timed(t, generator=torch.Generator()), one.encode(seen)) for one in (dense, net)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="sum to 1"):
        upcycled(dense, Backbone(config(router=router, chosen=chosen, shared=1)))
    with pytest.raises(UserError, match="set mlp_ratio alike"):
        upcycled(Backbone(dataclasses.replace(config(), experts=None, mlp_ratio=2.0)), net)
