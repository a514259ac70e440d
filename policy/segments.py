"""A sample as a list of segments, each with a role and a time.

A query (policy, joint, video model, …) is a table of roles, not a function: one forward pass, one loss and one
sampler serve them all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from .diffusion.path import Path, noise


class Role(StrEnum):
    """What a segment is in one forward pass.

    observe: clean, time 0, no loss · denoise: x_t at its own time, in the loss · continue: the same, but the first 1 to
    L/2 tokens are observed, as when a chunk goes on from actions that are committed already · absent: left out of the
    sequence · marginal: pure noise that the others may attend to, time 1, no loss (Bao et al. 2023, UniDiffuser, §3).
    """

    OBSERVE = "observe"
    DENOISE = "denoise"
    CONTINUE = "continue"
    ABSENT = "absent"
    MARGINAL = "marginal"


QUERIES: dict[str, dict[str, Role]] = {
    "policy": {"action": Role.DENOISE, "future": Role.ABSENT},
    "continue": {"action": Role.CONTINUE, "future": Role.ABSENT},
    "joint": {"action": Role.DENOISE, "future": Role.DENOISE},
    "video": {"action": Role.ABSENT, "future": Role.DENOISE},
    "forward_dynamics": {"action": Role.OBSERVE, "future": Role.DENOISE},
    "inverse_dynamics": {"action": Role.DENOISE, "future": Role.OBSERVE},
}


def learned(query: str, segment: str) -> bool:
    """Is the segment in the loss of that query?"""
    return QUERIES[query][segment] in (Role.DENOISE, Role.CONTINUE)


@dataclass(frozen=True)
class Segment:
    """One segment of N draws as the backbone sees it.

    x (B, N, L, C): token values · t (B, N): the segment's time · clean (B, N, L) or None: True where a token is
    observed although the segment is denoised (a committed prefix of an action chunk); such a token has time 0.
    """

    x: Tensor
    t: Tensor
    clean: Tensor | None = None


def assume(role: Role, x0: Tensor, eps: Tensor, t: Tensor, path: Path, clean: Tensor | None = None) -> Segment:
    """Give the clean values x0 (B, N, L, C) a role. `clean` is for 'continue': the tokens that are observed."""
    if role == Role.OBSERVE:
        return Segment(x0, torch.zeros_like(t))
    if role == Role.MARGINAL:
        return Segment(eps, torch.ones_like(t))
    if role == Role.ABSENT:
        raise ValueError("an absent segment is left out of the sequence: it has no values")
    x = noise(path, x0, eps, t)
    if role == Role.CONTINUE and clean is not None:
        return Segment(torch.where(clean[..., None], x0, x), t, clean)
    return Segment(x, t)


# A mask predicate is `allow(query kind, key kind) -> bool`. The context is visible to all, and sees only itself.
Allow = Callable[[str, str], bool]

COUPLINGS: dict[str, Allow] = {
    # every denoised token sees every other
    "full": lambda query, key: True,
    # PAD's release: information flows from the image to the action and never back
    "one_way": lambda query, key: not (query == "future" and key == "action"),
    # Fast-WAM: actions never see the future, so acting without the future is the same computation
    "action_blind": lambda query, key: not (query == "action" and key == "future"),
    # UVA: the two share nothing but the context
    "decoupled": lambda query, key: query == key,
}


def allowed(kinds: list[str], allow: Allow) -> Tensor | None:
    """The predicate over all pairs of tokens: (L, L) bool, or None when nothing is forbidden."""
    table = torch.tensor([[allow(query, key) for key in kinds] for query in kinds])
    return None if bool(table.all()) else table
