"""Usage of experts: shares, loads and mutual information by hand, and of a policy."""

import dataclasses

import pytest
import torch
from foreact.policy.expert_usage import OBSERVED, ExpertUsage, expert_usage
from foreact.policy.nn.config import ExpertsConfig

from .fakes import batch_of


def test_numbers_by_hand():
    alike = torch.full((2, 1, 4), 0.25)  # two times, one layer, four experts
    by_time = torch.tensor([[[0.5, 0.5, 0, 0]], [[0, 0, 0.5, 0.5]]])
    one = torch.tensor([[[1.0, 0, 0, 0]]] * 2)
    assert ExpertUsage([0.2, 0.8], {"action": alike}).numbers == {"max_load": 1, "by_noise": 0, "by_kind": 0}
    assert ExpertUsage([0.2, 0.8], {"action": by_time}).numbers["by_noise"] == pytest.approx(1)
    assert ExpertUsage([0.2, 0.8], {"action": one}).numbers["max_load"] == 4
    other = torch.tensor([[[0, 0, 0, 1.0]]] * 2)
    kinds = ExpertUsage([0.2, 0.8], {"action": one, "future": other}).numbers
    assert kinds["by_kind"] == pytest.approx(1)
    assert kinds["max_load"] == 2


@pytest.mark.parametrize(
    ("layout", "router"),
    [("tokens", "time"), ("tokens", "token"), ("tokens", "expert_choice"), ("sequence", "time"), ("sequence", "token")],
)
def test_usage_of_a_policy(make_policy, preset, layout, router, tmp_path):
    backbone = dataclasses.replace(preset.backbone, experts=ExpertsConfig(router=router))
    policy = make_policy(
        dataclasses.replace(
            preset,
            layout=layout,
            times="shared",
            backbone=backbone,
            draws={"joint": 1},
            coupling="full" if layout == "tokens" else "action_blind",
        )
    )
    batch = batch_of(policy, 4)
    usage = expert_usage(policy, dataclasses.replace(batch, task=torch.zeros(4, dtype=torch.int64)))
    assert list(usage.shares) == [OBSERVED, "action", "future"]
    for share in usage.shares.values():
        assert share.shape == (len(usage.times), 2, 4)
        torch.testing.assert_close(share.sum(-1), torch.ones(share.shape[:-1]))
    numbers = usage.numbers
    assert 1 <= numbers["max_load"] <= 4
    if router == "time":
        torch.testing.assert_close(usage.shares["action"], usage.shares["future"])
        assert set(usage.shares["action"].unique().tolist()) <= {0, 0.5}
    if (layout, router) == ("tokens", "expert_choice"):  # whose shares are of any size
        usage.draw(tmp_path / "experts.png")
        assert (tmp_path / "experts.png").stat().st_size > 1000
