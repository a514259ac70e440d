"""Losses of experts by hand, and that each does what it is for."""

import pytest
import torch
from foreact.policy.nn import balance
from foreact.policy.nn.backbone import Backbone
from foreact.policy.nn.config import BackboneConfig, ExpertsConfig
from foreact.policy.nn.routing import Usage


def backbone(**experts) -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneConfig(width=16, depth=3, heads=2, experts=ExpertsConfig(**experts)))


def usage(probability: list[float], load: list[float], z: float = 0.0) -> Usage:
    return Usage(torch.tensor(probability), torch.tensor(load), torch.tensor(z))


def test_balance_is_one_where_all_are_used_alike_and_largest_where_one_is():
    even = usage([0.25] * 4, [0.25] * 4)
    assert balance.balance([even]).item() == pytest.approx(1)
    assert balance.balance([even, usage([1, 0, 0, 0], [1, 0, 0, 0])]).item() == pytest.approx((1 + 4) / 2)


def test_losses_have_their_weights_and_none_is_there_without_experts():
    found = balance.expert_losses(backbone(balance=0.02, z=0.1, prior=1.0), [usage([0.5, 0.5], [0.5, 0.5], z=3.0)])
    assert {name: weight for name, (weight, _) in found.items()} == {"balance": 0.02, "z": 0.1, "prior": 1.0}
    assert float(found["z"][1]) == 3
    assert balance.expert_losses(backbone(balance=0.0), [usage([1.0], [1.0])]) == {}
    dense = Backbone(BackboneConfig(width=16, depth=1, heads=2))
    assert balance.expert_losses(dense, []) == {}


def test_a_band_has_as_many_experts_at_every_time_and_moves_on():
    band = balance._band(columns=12, wide=6)
    assert band.shape == (balance.TIMES, 12)
    assert (band.sum(1) == 6).all()
    assert band[0, :6].all()
    assert band[-1, 6:].all()


def test_divergence_is_zero_for_equal_rows_and_log_2_for_disjoint_ones():
    p, q = torch.tensor([[0.5, 0.5, 0, 0]]), torch.tensor([[0, 0, 0.5, 0.5]])
    assert float(balance._divergence(p, p)) == pytest.approx(0, abs=1e-6)
    assert float(balance._divergence(p, q)) == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-4)


def test_the_prior_makes_near_times_share_experts_and_far_ones_not():
    """Spearman's rank correlation of the difference of times and of that of the maps (Switch-DiT: at least 0.6)."""
    from scipy.stats import spearmanr

    def decay(net: Backbone) -> float:
        t = torch.linspace(0, 1, 64)
        assert net.time_router is not None
        with torch.no_grad():
            maps = torch.cat([one.softmax(-1) for one in net.time_router.logits(net.embed_time(t))], dim=1)
        apart = (t[:, None] - t).abs()
        return float(spearmanr(apart.flatten(), torch.cdist(maps, maps).flatten()).statistic)

    net = backbone(prior=1.0)
    first = balance.prior(net).item()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        balance.prior(net).backward()
        optimizer.step()
    assert balance.prior(net).item() < first / 2
    assert decay(net) > 0.6
