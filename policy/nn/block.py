"""One transformer block: attention and MLP, each `x + g · f(x)` with adaLN-zero modulation.

Modulation (Peebles and Xie 2023, DiT, §3.2) comes in ready-made as six rows a token, because it depends on time
alone and is computed for all layers at once (`Backbone.modulation`).
"""

from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...envs.errors import choose
from .attention import KeysValues, attend
from .linear import Linear
from .rope import rotate


class Modulation(NamedTuple):
    """Scale, shift and gate of the two sub-layers; each (B or 1, N or 1, L or 1, D)."""

    attention_shift: Tensor
    attention_scale: Tensor
    attention_gate: Tensor
    mlp_shift: Tensor
    mlp_scale: Tensor
    mlp_gate: Tensor


def _relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "relu2": _relu_squared}


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys (Dehghani et al. 2023, ViT-22B) and optional rotation."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        self.out = Linear(width, width)
        channels = width // heads
        self.q_norm = nn.LayerNorm(channels) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(channels) if qk_norm else nn.Identity()

    def project(self, x: Tensor, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x (B, N, L, D), each (B, H, N, L, C)."""
        q, k, v = rearrange(self.qkv(x), "b n l (three h c) -> three b h n l c", three=3, h=self.heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return q, k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **where) -> Tensor:
        return self.out(rearrange(attend(q, k, v, **where), "b h n l c -> b n l (h c)"))


class Block(nn.Module):
    """`forward` returns the new stream (B, N, L, D) and the keys and values that a later stream may attend to."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, activation: str, qk_norm: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads, qk_norm=qk_norm)
        hidden = int(width * mlp_ratio)
        self.up, self.down = Linear(width, hidden), Linear(hidden, width)
        self.activation = ACTIVATIONS[choose(activation, ACTIVATIONS, "activation")]

    def forward(
        self,
        x: Tensor,
        m: Modulation,
        *,
        rotary: Tensor | None = None,
        context: KeysValues | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        q, k, v = self.attention.project(modulate(self.norm1(x), m.attention_shift, m.attention_scale), rotary)
        x = x + m.attention_gate * self.attention(q, k, v, context=context, mask=mask)
        hidden = self.activation(self.up(modulate(self.norm2(x), m.mlp_shift, m.mlp_scale)))
        return x + m.mlp_gate * self.down(hidden), (k, v)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift
