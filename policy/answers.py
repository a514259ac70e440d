"""What a query observes besides the present, and what it denoised."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

Frames = dict[str, np.ndarray]  # {camera: (B, F, H, W, 3) uint8}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a query observes besides the present, one row for each observation.

    actions (B, K, A) in the robot's units · future {camera: (B, F, H, W, 3) uint8} · depth {camera: (B, F, H, W) m} ·
    shown {segment: (B, L) bool}: which tokens of a partly observed segment are (`known.known` draws them).
    """

    actions: np.ndarray | None = None
    future: Mapping[str, np.ndarray] = field(default_factory=dict)
    depth: Mapping[str, np.ndarray] = field(default_factory=dict)
    shown: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a query denoised: actions (B, K, A), frames {camera: (B, F, H, W, 3) uint8} and depth {camera: (B, F, H, W)
    float32, m}; empty where the query has none. Frames have the policy's pixels.
    """

    actions: np.ndarray | None = None
    frames: Frames = field(default_factory=dict)
    depth: Frames = field(default_factory=dict)
