"""What the tokens of a stream take from their times: features of a time, and the modulation of every layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ..diffusion.path import MODE_SIGMAS
from .block import Modulation
from .fused import Route


@dataclass(frozen=True)
class Timed:
    """All that a stream takes from its times.

    rows (..., B or 1, N, G, R, D): modulation of each of G distinct times · embedded (..., B or 1, N, G, D) · routes:
    of each layer, none where layers are dense or tokens choose their experts.
    """

    rows: Tensor
    embedded: Tensor | None = None
    routes: Sequence[Route] = ()

    def __getitem__(self, step: int) -> "Timed":
        """Of one of the times along the first axis."""
        embedded = None if self.embedded is None else self.embedded[step]
        return Timed(self.rows[step], embedded, [route[step] for route in self.routes])

    @cached_property
    def layers(self) -> Sequence[Modulation]:
        """Modulation of each layer where there is one time; a plan keeps it."""
        rows = self.rows.unbind(-2)
        return [Modulation.of(rows[i : i + 6]) for i in range(0, len(rows) // 6 * 6, 6)]

    def modulation(self, layer: int, selector: Tensor | None) -> Modulation:
        """Of the tokens in one layer."""
        if selector is None:
            return self.layers[layer]
        return Modulation.of(spread(self.rows[..., 6 * layer : 6 * layer + 6, :], selector))

    def route(self, layer: int) -> Route | None:
        """Who goes through which experts of one layer, where time decides it."""
        return self.routes[layer] if self.routes else None


def spread(rows: Tensor, selector: Tensor | None) -> tuple[Tensor, ...]:
    """Give each token the rows of its time: (B, N, G, R, D) to R tensors (B, N, L or 1, D)."""
    if selector is None:
        return rows.unbind(-2)
    # a product, because the backward pass of indexing is slow on CPU
    per_token = selector.to(rows.dtype) @ rows.flatten(-2)
    return per_token.unflatten(-1, rows.shape[-2:]).unbind(-2)


def log_sigma(t: Tensor) -> Tensor:
    """log σ / 4 of times t (...) of the linear path, σ = t / (1 - t) within MoDE's range: (..., 1) (MoDE, §3.1)."""
    low, high = (sigma / (1 + sigma) for sigma in MODE_SIGMAS)
    return torch.logit(t.float().clamp(low, high))[..., None] / 4


def sinusoid(t: Tensor, width: int, max_period: float = 1e4) -> Tensor:
    """Sine and cosine features of times t (...) in [0, 1], scaled to DDPM's 0 to 1000: (..., width)."""
    half = width // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = 1000.0 * t[..., None].float() * frequency
    features = torch.cat([angle.cos(), angle.sin()], dim=-1)
    return nn.functional.pad(features, (0, width - 2 * half))
