"""Experts that time chose, side by side as one dense layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .linear import Linear, is_packed
from .routing import Choice


class Fused(nn.Module):
    """Experts side by side as one dense layer; each one's hidden units are scaled with its weight.

    bias (k, D) of each · base (D,): of the shared ones, which come first and are not scaled.
    """

    def __init__(
        self,
        up: Tensor,
        up_bias: Tensor,
        down: Tensor,
        bias: Tensor,
        base: Tensor | None,
        hidden: int,
        activation: Callable[[Tensor], Tensor],
    ):
        super().__init__()
        self.up, self.down = _linear(up, up_bias), _linear(down, None)
        self.bias, self.base = bias.detach(), None if base is None else base.detach()
        self.shared = down.shape[1] - hidden * len(bias)
        self.hidden, self.activation = hidden, activation

    def scaled(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What one step needs beside the layer: the scale of each hidden unit and the bias, for weights (k,)."""
        scale = torch.cat([weights.new_ones(self.shared), weights.repeat_interleave(self.hidden)])
        bias = weights @ self.bias
        return scale, bias if self.base is None else bias + self.base

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        hidden = self.activation(self.up(x))
        out = self.down(hidden * scale.to(hidden.dtype))  # in the precision of the stream, as routed
        return out + bias.to(out.dtype)

    @property
    def nbytes(self) -> int:
        """Of its weights, and on a CPU of their packed copies."""
        weights = self.up.weight.nbytes + self.down.weight.nbytes
        return self.up.bias.nbytes + weights * (2 if is_packed(self.up.weight) else 1)


def _linear(weight: Tensor, bias: Tensor | None) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
    return layer


@dataclass(frozen=True)
class Route:
    """Who goes through which experts of one layer, where time decides.

    choice (B or 1, N, G, k) of each of the distinct times · fused: for each of them the layer that the chosen experts
    make, with its scale and bias, where all samples have the same times.
    """

    choice: Choice
    fused: Sequence[tuple[Fused, Tensor, Tensor]] = ()

    def __getitem__(self, step: int) -> "Route":
        """Of one of the times along the first axis."""
        return Route(Choice(*(c[step] for c in self.choice)))


def through(fused: Sequence[tuple[Fused, Tensor, Tensor]], x: Tensor, selector: Tensor | None) -> Tensor:
    """Each token through the layer of its time."""
    if selector is None:
        layer, scale, bias = fused[0]
        return layer(x, scale, bias)
    out = torch.zeros_like(x)
    for g, (layer, scale, bias) in enumerate(fused):
        mine = selector[..., g] > 0  # (B or 1, N, L)
        some = mine.flatten(0, 1).any(0)  # a segment's tokens mostly have one time in all samples
        found = layer(x[:, :, some], scale, bias)
        out[:, :, some] += mine[..., some, None] * found
    return out
