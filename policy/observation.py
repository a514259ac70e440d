"""What the network is shown of the world: normalised, as `transforms` make it."""

from dataclasses import dataclass, field

from torch import Tensor

Maps = dict[str, Tensor]
"""Foreseen segment → its maps (B, V, T, H, W, C): colours in [-1, 1] or latents of 'future', distances of 'depth'."""


@dataclass(frozen=True)
class Observation:
    """Normalised observation.

    images (B, V, T, H, W, 3, or 4 with depth) in [-1, 1] · state (B, T, S), None with video alone · sentence (B,) or
    (B, 384) · beside {segment: (B, L, C)}: the clean values that join a segment's channels · now: present maps
    (B, V, 1, H, W, C) of each foreseen segment · views: which of the policy's cameras are there, None for all ·
    told (B,) bool: whose instruction is given, None for all · rate (B,): control rate [Hz], where a token tells it.
    """

    images: Tensor
    state: Tensor | None
    sentence: Tensor
    beside: dict[str, Tensor] = field(default_factory=dict)
    now: Maps = field(default_factory=dict)
    views: tuple[int, ...] | None = None
    told: Tensor | None = None
    rate: Tensor | None = None
