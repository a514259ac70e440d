"""The one transformer: a context stream that is encoded once, and a denoised stream that attends to it.

Context tokens (what is observed) have time 0 and never look at denoised ones, so their keys and values serve every
solver step of a control step and every noise draw of a training sample.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...envs.errors import UserError, choose
from .attention import KeysValues
from .block import Block, Modulation, modulate
from .linear import Linear


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Width D, depth, heads; positions: the embedders add 'learned' ones, or fixed 'sincos' ones; with 'rotary' they
    add learned ones, and queries and keys are turned as well.

    gate_init: where the gates of x + g · f(x) start. 0 is adaLN-zero; a short training does better with open gates,
    because a closed stream does not see its context until the gates have grown.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qk_norm: bool = True
    positions: str = "learned"
    gate_init: float = 0.0

    def __post_init__(self):
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UserError(f"width {self.width} must split into {self.heads} heads of even size")
        choose(self.positions, ("learned", "rotary", "sincos"), "kind of positions")


@dataclass(frozen=True)
class Context:
    """An encoded observation: keys and values of every layer, and the last layer's tokens (B, M, D)."""

    layers: list[KeysValues]
    tokens: Tensor

    def __getitem__(self, rows: slice) -> "Context":
        """The context of some samples of the batch."""
        return Context([(k[rows], v[rows]) for k, v in self.layers], self.tokens[rows])

    @classmethod
    def empty(cls, like: Tensor) -> "Context":
        """No context tokens, for presets that see the observation beside the noisy values."""
        return cls([], like.new_zeros(len(like), 0, like.shape[-1]))


class Backbone(nn.Module):
    """Blocks, time embedding and the modulation of every layer.

    finals: how many kinds of tokens have a final modulation of their own. recompute: in training keep only what goes
    in and out of a block, and compute the rest again for its gradients (activation checkpointing, Chen et al. 2016).
    """

    recompute = False

    def __init__(self, config: BackboneConfig, finals: int = 1):
        super().__init__()
        self.config = config
        d = config.width
        self.blocks = nn.ModuleList(
            Block(d, config.heads, config.mlp_ratio, activation=config.activation, qk_norm=config.qk_norm)
            for _ in range(config.depth)
        )
        self.time_mlp = nn.Sequential(Linear(d, d), nn.SiLU(), Linear(d, d))
        # The last 2 rows of each kind of token modulate the final norm before its head.
        self.to_modulation = Linear(d, (6 * config.depth + 2 * finals) * d)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.zeros_(self.to_modulation.weight)
        bias = self.to_modulation.bias.new_zeros(self.to_modulation.out_features).view(-1, self.config.width)
        bias[2 : 6 * self.config.depth : 3] = self.config.gate_init
        with torch.no_grad():
            self.to_modulation.bias.copy_(bias.flatten())

    def modulation(self, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Modulation rows of times t (...): (..., R, D). A table for a solver grid is this, computed once.

        condition (..., D) joins the embedded time (DiT's class, PAD's instruction).
        """
        embedded = self.time_mlp(sinusoid(t, self.config.width))
        rows = self.to_modulation(nn.functional.silu(embedded if condition is None else embedded + condition))
        return rows.unflatten(-1, (-1, self.config.width))

    def modulation_version(self) -> tuple[tuple[int, int], ...]:
        """Another one after any change of the weights that `modulation` takes, in place or by other memory."""
        weights = [*self.time_mlp.parameters(), *self.to_modulation.parameters()]
        # inference tensors have no version and never change
        return tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)

    def clean_modulation(self) -> Tensor:
        """Modulation rows (1, 1, 1, R, D) of context tokens, whose time is 0."""
        return self.modulation(torch.zeros(1, 1, 1, device=self.to_modulation.weight.device))

    def encode(self, x: Tensor, *, rotary: Tensor | None = None, rows: Tensor | None = None) -> Context:
        """Run the context tokens x (B, M, D) through all layers. rows: `clean_modulation`, for who has it already."""
        x = _working(x).unsqueeze(1)  # (B, 1, M, D)
        rows = self.clean_modulation() if rows is None else rows
        layers = []
        for i, block in enumerate(self.blocks):
            x, (k, v) = self._run(block, x, layer_modulation(rows, i), rotary=rotary)
            layers.append((k.squeeze(2), v.squeeze(2)))
        return Context(layers, x.squeeze(1))

    def denoise(
        self,
        x: Tensor,
        rows: Tensor,
        context: Context,
        *,
        selector: Tensor | None = None,
        rotary: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Run the tokens of N draws, x (B, N, L, D), through all layers.

        rows (B or 1, N, G, R, D): modulation of G distinct times; selector (B or 1, N, L, G), one-hot, says which
        of them each token has (None: all have the only one). mask: broadcastable to (B, 1, N, L, M + L).
        """
        x = _working(x)
        for i, block in enumerate(self.blocks):
            m = Modulation(*spread(rows[..., 6 * i : 6 * i + 6, :], selector))
            seen = context.layers[i] if context.layers else None
            x, _ = self._run(block, x, m, rotary=rotary, context=seen, mask=mask)
        return x

    def _run(self, block: nn.Module, x: Tensor, m: Modulation, **where: Any) -> tuple[Tensor, KeysValues]:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, x, m, use_reentrant=False, **where)
        return block(x, m, **where)

    def finish(self, x: Tensor, rows: Tensor, selector: Tensor | None, kind: int = 0) -> Tensor:
        """The final norm of tokens x of one kind (B, N, L, D), modulated, ready for their head."""
        first = 6 * self.config.depth + 2 * kind
        shift, scale = spread(rows[..., first : first + 2, :], selector)
        return modulate(nn.functional.layer_norm(x.float(), x.shape[-1:]), shift, scale)


def _working(x: Tensor) -> Tensor:
    """Under autocast the residual stream itself is in the low precision: half the memory traffic, no casts."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def spread(rows: Tensor, selector: Tensor | None) -> tuple[Tensor, ...]:
    """Give each token the rows of its time: (B, N, G, R, D) to R tensors (B, N, L or 1, D)."""
    if selector is None:
        return rows.unbind(-2)
    per_token = selector.to(rows.dtype) @ rows.flatten(
        -2
    )  # a product, because the backward pass of indexing is slow on CPU
    return per_token.unflatten(-1, rows.shape[-2:]).unbind(-2)


def layer_modulation(rows: Tensor, layer: int) -> Modulation:
    return Modulation(*spread(rows[..., 6 * layer : 6 * layer + 6, :], None))


def sinusoid(t: Tensor, width: int, max_period: float = 1e4) -> Tensor:
    """Sine and cosine features of times t (...) in [0, 1], scaled to DDPM's 0 to 1000: (..., width)."""
    half = width // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = 1000.0 * t[..., None].float() * frequency
    features = torch.cat([angle.cos(), angle.sin()], dim=-1)
    return nn.functional.pad(features, (0, width - 2 * half))
