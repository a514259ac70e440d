"""Low-rank patches: nothing at first, the same when merged, and experts fuse with them."""

import copy

import pytest
import torch
from foreact.policy.nn.backbone import Backbone
from foreact.policy.nn.config import BackboneConfig, ExpertsConfig
from foreact.policy.nn.experts import Bank
from foreact.policy.nn.lora import merged, patch
from torch import nn

D = 16
SEEN, X, T = torch.randn(3, 4, D), torch.randn(3, 2, 5, D), torch.full((1, 1, 1), 0.3)


def backbone(rank: int, *, moved: bool = True, shared: int = 1) -> tuple[Backbone, Backbone]:
    """One without patches, and a copy with them, which have been moved off zero."""
    torch.manual_seed(0)
    experts = ExpertsConfig(number=4, chosen=2, shared=shared)
    plain = Backbone(BackboneConfig(width=D, depth=2, heads=2, gate_init=0.5, activation="swiglu", experts=experts))
    patched = copy.deepcopy(plain)
    patch(patched, rank)
    for name, parameter in patched.named_parameters():
        if moved and name.endswith(".up") and ".parametrizations." in name:
            nn.init.normal_(parameter, std=0.1)
    return plain, patched


def run(net: Backbone, *, fused: bool = False) -> torch.Tensor:
    timed = net.timed(T)
    return net.denoise(X, net.fused(timed, Bank()) if fused else timed, net.encode(SEEN))


def test_a_patch_is_nothing_at_first_and_something_later():
    plain, patched = backbone(4, moved=False)
    torch.testing.assert_close(run(patched), run(plain), rtol=0, atol=0)
    plain, patched = backbone(4)
    assert (run(patched) - run(plain)).abs().max() > 0.1


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_merged_is_patched(precision):
    plain, patched = backbone(4)
    plain.load_state_dict(merged(patched.state_dict()))
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        torch.testing.assert_close(run(plain), run(patched), rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_patched_experts_fuse(precision, tolerance):
    """In bfloat16 to its rounding: of 8 bits, relative to values of 1."""
    _, patched = backbone(4)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        routed = run(patched)
        torch.testing.assert_close(run(patched, fused=True), routed, rtol=tolerance, atol=tolerance)
    assert routed.dtype == precision


def test_patches_learn_and_weights_stay():
    _, patched = backbone(2)
    run(patched).square().sum().backward()
    learn = {name for name, p in patched.named_parameters() if p.requires_grad}
    assert all(name.endswith((".0.up", ".0.down")) for name in learn)
    got = {name for name, p in patched.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("mlp.down" in name for name in got)
    assert any("time_router" in name for name in got)
    assert any("attention" in name for name in got)


def test_layers_smaller_than_the_rank_learn_whole():
    _, patched = backbone(8)
    last = patched.time_router.layers[0][2]  # type: ignore[index, union-attr]
    assert not hasattr(last, "parametrizations")
    assert last.weight.shape[0] < 8
    assert last.weight.requires_grad
