"""One transformer block: attention and a feed-forward layer, each `x + g · f(x)` with what depends on time.

Modulation (Peebles and Xie 2023, DiT, §3.2) comes in ready-made as six rows a token, because it depends on time
alone and is computed for all layers at once (`Backbone.timed`); so does who goes through which experts.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import KeysValues, attend
from .config import BackboneConfig
from .experts import Experts, FeedForward
from .fused import Route
from .linear import Linear
from .rope import rotate
from .routing import Usage


class Modulation(NamedTuple):
    """Shift, scale (about 1) and gate of the two sub-layers; each (B or 1, N or 1, L or 1, D)."""

    attention_shift: Tensor
    attention_scale: Tensor
    attention_gate: Tensor
    mlp_shift: Tensor
    mlp_scale: Tensor
    mlp_gate: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> "Modulation":
        """Of six rows as the network tells them, whose scales are about 0."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = rows
        return cls(shift, 1 + scale, gate, mlp_shift, 1 + mlp_scale, mlp_gate)


class RMSNorm(nn.RMSNorm):
    """PyTorch's, which on CPUs has no one kernel for weights of another precision and warns; this is faster there."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        eps = torch.finfo(torch.float32).eps if self.eps is None else self.eps
        scale = (norm.square() / x.shape[-1] + eps).rsqrt()
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": lambda width: nn.LayerNorm(width, elementwise_affine=False),
    "rms": RMSNorm,
}
"""Norms of the stream by name: without weights of its own, which modulation has, or with."""


def _head_norm(config: BackboneConfig) -> nn.Module:
    """The norm of the queries or keys of each head."""
    channels = config.width // config.heads
    if not config.qk_norm:
        return nn.Identity()
    return nn.LayerNorm(channels) if config.qk_kind == "layer" else RMSNorm(channels)


class CrossAttention(nn.Module):
    """Attention of a stream to a condition that stays as it is, all of it visible to every token."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        width, self.heads, self.dropout = config.width, config.heads, config.attention_dropout
        self.norm = NORMS[config.norm](width)
        self.q, self.kv, self.out = Linear(width, width), Linear(width, 2 * width), Linear(width, width)
        for layer in (self.q, self.kv):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.q_norm, self.k_norm = _head_norm(config), _head_norm(config)

    def keys_values(self, condition: Tensor) -> KeysValues:
        """Of a condition (B, M, D): each (B, H, M, C)."""
        kv = self.kv(condition).unflatten(-1, (2, self.heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.k_norm(k), v

    def forward(self, x: Tensor, context: KeysValues) -> Tensor:
        """x (B, N, L, D), normalised here."""
        # all draws see the same condition, so they are one long stream here, and it is not copied for each
        q = self.q(self.norm(x)).flatten(1, 2).unflatten(-1, (self.heads, -1)).permute(0, 2, 1, 3)  # (B, H, N L, C)
        k, v = (y.unsqueeze(2) for y in context)
        mixed = attend(self.q_norm(q).unsqueeze(2), k, v, dropout=self.dropout if self.training else 0.0)
        return self.out(mixed.squeeze(2).transpose(1, 2).flatten(-2).unflatten(1, x.shape[1:3]))


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys and optional rotation."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        width, self.heads, self.dropout = config.width, config.heads, config.attention_dropout
        self.qkv = Linear(width, 3 * width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        self.out = Linear(width, width)
        self.q_norm, self.k_norm = _head_norm(config), _head_norm(config)

    def project(self, x: Tensor, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x (B, N, L, D), each (B, H, N, L, C)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # an einops pattern takes longer here than its work
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return q, k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **where: Any) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, dropout=dropout, **where)  # (B, H, N, L, C)
        return self.out(mixed.permute(0, 2, 3, 1, 4).flatten(-2))


class Block(nn.Module):
    """`forward` returns the new stream (B, N, L, D), the keys and values that a later stream may attend to, and how
    experts were used where tokens choose them."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.norm1, self.norm2 = NORMS[config.norm](config.width), NORMS[config.norm](config.width)
        self.attention = Attention(config)
        self.cross = CrossAttention(config) if config.cross else None
        self.mlp = FeedForward(config) if config.experts is None else Experts(config)
        self.register_load_state_dict_pre_hook(_renamed)

    def forward(
        self,
        x: Tensor,
        m: Modulation,
        route: Route | None = None,
        *,
        selector: Tensor | None = None,
        rotary: Tensor | None = None,
        context: KeysValues | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues, Usage | None]:
        q, k, v = self._project(x, m, rotary)
        beside = context if self.cross is None else None  # one softmax over context and stream, or one each
        x = x + m.attention_gate * self.attention(q, k, v, context=beside, mask=mask)
        if self.cross is not None and context is not None:
            x = x + self.cross(x, context)
        hidden, usage = self.mlp(modulate(self.norm2, x, m.mlp_shift, m.mlp_scale), route, selector)
        return x + m.mlp_gate * hidden, (k, v), usage

    def keys_values(self, x: Tensor, m: Modulation, rotary: Tensor | None) -> KeysValues:
        """Only what a later stream may attend to."""
        return self._project(x, m, rotary)[1:]

    def _project(self, x: Tensor, m: Modulation, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention.project(modulate(self.norm1, x, m.attention_shift, m.attention_scale), rotary)


def present_name(name: str) -> str:
    """A weight's name, from before the feed-forward layer was a module of its own as well."""
    return re.sub(r"(^|blocks\.\d+\.)(up|down)\.(weight|bias)$", r"\1mlp.\2.\3", name)


def _renamed(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in [k for k in state if k.startswith(prefix)]:
        state[prefix + present_name(key.removeprefix(prefix))] = state.pop(key)


def modulate(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) · scale + shift; in one pass where a row is of all tokens and the norm has no weights of its own."""
    if isinstance(norm, nn.LayerNorm) and scale.numel() == x.shape[-1] and scale.dtype == x.dtype:
        return F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten(), norm.eps)
    return norm(x) * scale + shift
