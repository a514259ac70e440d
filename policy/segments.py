"""A sample as a list of segments, each with a role and a time.

A query (policy, joint, video model, …) is a table of roles, not a function: one forward pass, one loss and one
sampler serve them all.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from ..envs.errors import choose
from .diffusion.path import Path, noise


class Role(StrEnum):
    """What a segment is in one forward pass.

    observe: clean, time 0, no loss · denoise: x_t at its own time, in the loss · absent: left out of the sequence ·
    marginal: pure noise that the others may attend to, time 1, no loss (Bao et al. 2023, UniDiffuser, §3) ·
    the others denoise the segment while some of its tokens are observed: which, `known.KNOWN` says.
    """

    OBSERVE = "observe"
    DENOISE = "denoise"
    ABSENT = "absent"
    MARGINAL = "marginal"
    CONTINUE = "continue"
    PREDICT = "predict"
    INTERPOLATE = "interpolate"
    ANIMATE = "animate"
    COMPLETE = "complete"


UNLEARNED = (Role.OBSERVE, Role.ABSENT, Role.MARGINAL)
PARTIAL = tuple(role for role in Role if role not in (*UNLEARNED, Role.DENOISE))

QUERIES: dict[str, dict[str, Role]] = {
    "policy": {"action": Role.DENOISE},
    "continue": {"action": Role.CONTINUE},
    "joint": {"action": Role.DENOISE, "future": Role.DENOISE},
    "video": {"future": Role.DENOISE},
    "forward_dynamics": {"action": Role.OBSERVE, "future": Role.DENOISE},
    "inverse_dynamics": {"action": Role.DENOISE, "future": Role.OBSERVE},
    "predict": {"future": Role.PREDICT},
    "interpolate": {"future": Role.INTERPOLATE},
    "animate": {"future": Role.ANIMATE},
    "complete": {"future": Role.COMPLETE},
}
"""Roles by modality; one that is not named is absent."""

DYNAMICS = ("forward_dynamics", "inverse_dynamics")
"""Queries about what the robot did, exploration noise included, and not about what it should do."""

MODALITIES = {"action": "action", "future": "future", "depth": "future"}
"""Segment → the modality whose role it takes: depth is foreseen wherever colour is."""


def role_of(query: str, segment: str) -> Role:
    """The role of a segment in a query."""
    return QUERIES[query].get(MODALITIES[segment], Role.ABSENT)


def roles_of(query: str, segments: Iterable[str]) -> dict[str, Role]:
    """The roles of the segments that take part in a query."""
    return {name: role for name in segments if (role := role_of(query, name)) != Role.ABSENT}


def learned(query: str, segment: str) -> bool:
    """Is the segment in the loss of that query?"""
    return role_of(query, segment) not in UNLEARNED


@dataclass(frozen=True)
class Segment:
    """One segment of N draws as the backbone sees it.

    x (B, N, L, C): token values · t (B, N): the segment's time · clean (B, N, L) or None: True where a token is
    observed although the segment is denoised (a committed prefix of an action chunk); such a token has time 0 ·
    observed: the whole segment is clean.
    """

    x: Tensor
    t: Tensor
    clean: Tensor | None = None
    observed: bool = False


def assume(role: Role, x0: Tensor, eps: Tensor, t: Tensor, path: Path, clean: Tensor | None = None) -> Segment:
    """Give the clean values x0 (B, N, L, C) a role. `clean`: the tokens that a partly observed one shows."""
    if role == Role.OBSERVE:
        return Segment(x0, torch.zeros_like(t), observed=True)
    if role == Role.MARGINAL:
        return Segment(eps, torch.ones_like(t))
    if role == Role.ABSENT:
        raise ValueError("an absent segment is left out of the sequence: it has no values")
    x = noise(path, x0, eps, t)
    return Segment(x if clean is None else torch.where(clean[..., None], x0, x), t, clean)


# A mask predicate is `allow(query modality, key modality) -> bool` among denoised tokens. What is observed is visible
# to all, and the context sees only itself.
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


def allowed(tokens: list[tuple[str, bool]], coupling: str) -> Tensor | None:
    """The predicate over all pairs of tokens (segment, is observed): (L, L) bool, or None when nothing is forbidden."""
    allow = COUPLINGS[choose(coupling, COUPLINGS, "coupling")]
    kinds = list(dict.fromkeys(tokens))
    among = torch.tensor(
        [[key[1] or allow(MODALITIES[query[0]], MODALITIES[key[0]]) for key in kinds] for query in kinds]
    )
    which = torch.tensor([kinds.index(token) for token in tokens])
    return None if bool(among.all()) else among[which][:, which]
