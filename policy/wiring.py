"""How the tokens of one sequence meet: whose time each of them has, and who sees whom."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .segments import Segment, allowed


@dataclass(frozen=True)
class Wiring:
    """How the tokens of segments meet: the same at every solver step, because it depends on roles alone.

    selector (B, N, L, G) one-hot: which of the G distinct times each token has, None: all have the only one · rotary:
    the table that turns queries and keys, None where positions are only added · mask (L, M + L): who sees whom, None:
    everyone all.
    """

    selector: Tensor | None
    rotary: Tensor | None
    mask: Tensor | None


def main_segment(segments: Mapping[str, Segment]) -> int:
    """Which of the segments gives its time to tokens that have none: the first that is denoised."""
    return next((i for i, s in enumerate(segments.values()) if not s.observed), 0)


def selector(segments: Mapping[str, Segment], lead: int) -> Tensor | None:
    """Which of the distinct times (`Denoiser.times`) each token has, as `Wiring` takes it.

    lead: tokens before those of the segments, with the time of what is denoised.
    """
    groups = len(segments) + any(s.clean is not None for s in segments.values())
    if groups == 1:
        return None
    first = next(iter(segments.values())).x
    one_hot = torch.eye(groups, device=first.device)
    columns = [one_hot[main_segment(segments)].expand(*first.shape[:2], lead, -1)] if lead else []
    columns += [
        one_hot[i].expand(*s.x.shape[:3], -1)
        if s.clean is None
        else torch.where(s.clean[..., None], one_hot[-1], one_hot[i])
        for i, s in enumerate(segments.values())
    ]
    return torch.cat(columns, dim=2)


def mask(segments: Mapping[str, Segment], coupling: str, *, context: int, lead: int, causal: bool) -> Tensor | None:
    """Who sees whom by a coupling (`segments.COUPLINGS`), as `Wiring` takes it.

    context: clean tokens that all may see · lead: tokens before those of the segments; where there are such, causal
    lets a token see what comes before it, and what is observed.
    """
    tokens = [(name, s.observed) for name, s in segments.items() for _ in range(s.x.shape[2])]
    table, device = allowed(tokens, coupling), next(iter(segments.values())).x.device
    if lead and causal:
        whole = torch.ones(lead + len(tokens), lead + len(tokens), dtype=torch.bool).tril()
        among = whole[lead:, lead:]
        among |= torch.tensor([observed for _, observed in tokens])
        among &= torch.ones_like(among) if table is None else table
        return whole.to(device)
    if table is None:
        return None
    seen = torch.ones(len(tokens), context, dtype=torch.bool)
    return torch.cat([seen, table], dim=1).to(device)
