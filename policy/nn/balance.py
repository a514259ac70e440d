"""Losses that keep experts in use, by name: each is added to the loss of a training with a weight of its own.

Letters: T times, E experts, k chosen, M = depth E columns of the map from times to experts.
"""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .backbone import Backbone
from .routing import Usage

TIMES = 64
"""Times at which the prior looks at the routers."""


def expert_losses(backbone: Backbone, usage: Sequence[Usage]) -> dict[str, tuple[float, Tensor]]:
    """Loss by name, with its weight, of the ways that tokens went in one training step; none where layers are dense."""
    config = backbone.config.experts
    if config is None:
        return {}
    losses = {"balance": (config.balance, balance(usage)), "z": (config.z, _mean([one.z for one in usage]))}
    if config.prior:
        losses["prior"] = config.prior, prior(backbone)
    return {name: loss for name, loss in losses.items() if loss[0] > 0}


def balance(usage: Sequence[Usage]) -> Tensor:
    """E Σ_e p_e f_e of mean probability p and load f, mean over layers: 1 where all are used alike (Fedus et al. 2022,
    Switch Transformers, eq. 4).
    """
    return _mean([len(one.load) * (one.probability * one.load).sum() for one in usage])


def prior(backbone: Backbone) -> Tensor:
    """Jensen-Shannon divergence of the routers' map from times to experts from a banded one: near times share experts.

    Park et al. 2024 (Switch-DiT, §3.3): the band's columns are first matched to the experts that are chosen now.
    """
    assert backbone.time_router is not None
    assert backbone.config.experts is not None
    t = torch.linspace(0, 1, TIMES, device=backbone.device)
    logits = backbone.time_router.logits(backbone.embed_time(t))
    chosen = [torch.zeros_like(one).scatter_(1, one.topk(backbone.config.experts.chosen).indices, 1) for one in logits]
    now = torch.cat([one.detach() for one in chosen], dim=1)  # (T, M)
    band = _band(now.shape[1], backbone.config.experts.chosen * len(logits)).to(now)
    columns, to = linear_sum_assignment(torch.cdist(now.T, band.T, p=1).cpu().numpy())
    wanted = torch.empty_like(band)
    wanted[:, columns] = band[:, to]
    found = torch.cat([one.softmax(-1) for one in logits], dim=1) / len(logits)
    return _divergence(found, wanted / wanted.sum(1, keepdim=True))


def _band(columns: int, wide: int) -> Tensor:
    """(T, M) of 0 and 1: `wide` neighbouring columns a time, which move on with t⁴."""
    first = (torch.linspace(0, 1, TIMES) ** 4 * (columns - wide)).round()[:, None]
    at = torch.arange(columns)
    return ((at >= first) & (at < first + wide)).float()


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the rows of p and q, mean."""
    middle = ((p + q) / 2).clamp(min=1e-6).log()
    return sum(torch.xlogy(x, x).sub(x * middle).sum(1).mean() for x in (p, q)) / 2  # type: ignore[return-value]


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
