import dataclasses

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.nn.backbone import Backbone
from foreact.policy.nn.block import RMSNorm
from foreact.policy.nn.config import BackboneConfig
from foreact.policy.nn.timed import sinusoid
from torch import nn

CONFIG = BackboneConfig(width=32, depth=3, heads=2)


def backbone(**changes) -> Backbone:
    return Backbone(dataclasses.replace(CONFIG, **changes))


def test_adaln_zero_starts_as_the_identity():
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(backbone().encode(x, whole=True).tokens, x)


def test_gradients_reach_every_parameter():
    net = backbone(gate_init=0.5)
    context = net.encode(torch.randn(2, 5, 32), whole=True)
    out = net.denoise(torch.randn(2, 3, 4, 32), net.timed(torch.rand(2, 3, 1)), context)
    (out.square().mean() + context.tokens.square().mean()).backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None]
    assert not missing


def test_the_last_layers_tokens_are_only_made_when_asked_for():
    net, x = backbone(gate_init=0.5), torch.randn(2, 5, 32)
    whole, context = net.encode(x, whole=True), net.encode(x)
    assert context.tokens is None
    assert len(whole) == len(context) == 5
    torch.testing.assert_close(whole.layers, context.layers, rtol=0, atol=0)


def test_samples_and_draws_are_independent():
    net = backbone(gate_init=0.5)
    x, t, seen = torch.randn(3, 2, 4, 32), torch.rand(3, 2, 1), torch.randn(3, 5, 32)
    both = net.denoise(x, net.timed(t), net.encode(seen))
    one = net.denoise(x[1:2, 1:], net.timed(t[1:2, 1:]), net.encode(seen[1:2]))
    torch.testing.assert_close(both[1:2, 1:], one, rtol=1e-4, atol=1e-5)


def test_activations_can_be_computed_again():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = backbone(gate_init=0.5)
        net.recompute = recompute
        context = net.encode(torch.linspace(-1, 1, 320).view(2, 5, 32))
        net.denoise(
            torch.linspace(-1, 1, 256).view(2, 1, 4, 32), net.timed(torch.rand(2, 1, 1)), context
        ).sum().backward()
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_selector_gives_each_token_its_time():
    net = backbone(gate_init=0.5)
    torch.nn.init.normal_(net.to_modulation.weight, std=0.1)
    x, context = torch.randn(1, 1, 4, 32), net.encode(torch.randn(1, 5, 32))
    timed = net.timed(torch.tensor([[[0.3, 0.3]]]))
    selector = torch.eye(2)[[0, 1, 1, 0]].expand(1, 1, 4, 2)
    same = net.denoise(x, net.timed(torch.tensor([[[0.3]]])), context)
    torch.testing.assert_close(net.denoise(x, timed, context, selector=selector), same)
    other = net.denoise(x, net.timed(torch.tensor([[[0.3, 0.9]]])), context, selector=selector)
    assert not torch.allclose(other, same)


def test_times_have_distinct_features():
    features = sinusoid(torch.linspace(0, 1, 50), 32)
    assert features.shape == (50, 32)
    assert torch.pdist(features).min() > 0.1


def test_impossible_widths_are_named():
    with pytest.raises(UserError, match="width 30 must split into 4 heads"):
        BackboneConfig(width=30, depth=1, heads=4)


def test_rms_norms_agree_in_low_precision():
    """PyTorch's own, which warns of weights in another precision, and the one that stands in for it."""
    torch.manual_seed(0)
    norm, x = RMSNorm(64), torch.randn(5, 7, 64)
    nn.init.normal_(norm.weight)
    low = norm(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), norm(x), rtol=0.02, atol=0.02)
    assert torch.isfinite(torch.autograd.grad(norm(torch.zeros(3, 64).bfloat16()).sum(), norm.weight)[0]).all()
