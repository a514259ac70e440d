"""The linear layer that infers with packed weights: the numbers of nn.Linear, whatever happens to the weights."""

import copy

import pytest
import torch
from foreact.common import machine
from foreact.policy.nn.linear import Linear, training_kernels
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


def pair(wide: int = 24, bias: bool = True) -> tuple[Linear, nn.Linear]:
    mine, plain = Linear(16, wide, bias=bias), nn.Linear(16, wide, bias=bias)
    plain.load_state_dict(mine.state_dict())
    return mine, plain


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    wide=st.sampled_from([1, 5, 24]),
    bias=st.booleans(),
    stride=st.booleans(),
)
def test_inference_equals_a_plain_layer(shape, wide, bias, stride):
    mine, plain = pair(wide, bias)
    x = torch.randn(*shape, 32)[..., ::2] if stride else torch.randn(*shape, 16)
    with torch.inference_mode():
        torch.testing.assert_close(mine(x), plain(x), atol=1e-5, rtol=1e-5)


def by_onednn(out: torch.Tensor) -> bool:
    """Are its gradients oneDNN's?"""
    return type(out.grad_fn).__name__ == "_DifferentiableBackward"


def change_in_place(layer):
    layer.weight.copy_(layer.weight * 2)


def change_the_parameter(layer):
    layer.weight = nn.Parameter(layer.weight * 2)


def change_the_data(layer):
    layer.weight.data = layer.weight.data * 2


def load(layer):
    layer.load_state_dict({"weight": layer.weight * 2, "bias": layer.bias.clone()})


@pytest.mark.parametrize("change", [change_in_place, change_the_parameter, change_the_data, load])
def test_changed_weights_are_packed_anew(change):
    mine, plain = pair()
    x = torch.randn(3, 16)
    with torch.no_grad():
        before = mine(x)
        change(mine), change(plain)
        torch.testing.assert_close(mine(x), plain(x), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(mine(x), before)


def test_gradients_and_low_precision_take_the_plain_way():
    mine, plain = pair()
    x = torch.randn(3, 16)
    assert torch.equal(mine(x), plain(x))
    mine(x).sum().backward()
    assert mine.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mine(x), plain(x))


def test_a_copy_holds_its_own_weights():
    mine, _ = pair()
    x = torch.randn(3, 16)
    with torch.no_grad():
        before = mine(x)
        other = copy.deepcopy(mine)
        other.weight.zero_()
        assert torch.equal(mine(x), before)
        assert torch.equal(other(x), mine.bias.expand(3, -1))


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    wide=st.sampled_from([1, 5, 24]),
    bias=st.booleans(),
    stride=st.booleans(),
)
def test_training_kernels_have_the_same_gradients(shape, wide, bias, stride):
    """The same to rounding: sums of 16 products of numbers about 1, in another order."""
    mine, plain = pair(wide, bias)
    x = torch.randn(*shape, 32)[..., ::2] if stride else torch.randn(*shape, 16)
    mine_x, plain_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    with training_kernels("onednn"):
        out = mine(mine_x)
    assert by_onednn(out) == (x.numel() > 0 and machine.has_onednn())
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (plain(plain_x) * weights).sum().backward()
    for a, b in zip([mine_x, *mine.parameters()], [plain_x, *plain.parameters()], strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


def test_only_what_needs_a_gradient_gets_one():
    mine, _ = pair()
    mine.weight.requires_grad_(False)
    with training_kernels("onednn"):
        mine(torch.randn(3, 16)).sum().backward()
    assert mine.weight.grad is None
    assert mine.bias.grad is not None


def test_training_kernels_are_put_back():
    mine, _ = pair()
    with pytest.raises(KeyError), training_kernels("onednn"):
        raise KeyError
    assert not by_onednn(mine(torch.randn(3, 16)))
