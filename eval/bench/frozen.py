"""The backbone as a plain engineer writes it, frozen before anything was tuned: what `bench train` compares with.

Do not improve it. It takes the weights of `Backbone` and computes the same function, but for GELU's approximation:
`scaled_dot_product_attention` over the context copied for every noise draw, the residual stream in float32 under
autocast, the final norm with its own arithmetic. Of policy/nn it takes the features of times and containers, so tuning
there leaves it alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...envs.errors import UserError
from ...policy.nn.backbone import Backbone, Context
from ...policy.nn.timed import Timed, sinusoid


class FrozenBlock(nn.Module):
    """Attention and MLP with adaLN-zero modulation (Peebles and Xie 2023)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width)})
        if qk_norm:
            self.attention.update({name: nn.LayerNorm(width // heads) for name in ("q_norm", "k_norm")})
        hidden = int(width * mlp_ratio)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, m: list[Tensor], context=None, mask: Tensor | None = None):
        """x (B, N, L, D), m: six modulations of it → the new x, and keys and values (B, N, H, L, C)."""
        b, n, tokens, d = x.shape
        qkv = self.attention["qkv"](self.norm1(x) * (1 + m[1]) + m[0])
        q, k, v = qkv.view(b, n, tokens, 3, self.heads, d // self.heads).permute(3, 0, 1, 4, 2, 5)
        if "q_norm" in self.attention:
            q, k = self.attention["q_norm"](q).to(v.dtype), self.attention["k_norm"](k).to(v.dtype)
        own = k, v
        if context is not None:
            k, v = (torch.cat([c.expand(-1, n, -1, -1, -1), x], dim=3) for c, x in zip(context, own, strict=True))
        mixed = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=mask)
        mixed = mixed.view(b, n, self.heads, tokens, -1).transpose(2, 3).reshape(x.shape)
        x = x + m[2] * self.attention["out"](mixed)
        return x + m[5] * self.down(F.gelu(self.up(self.norm2(x) * (1 + m[4]) + m[3]), approximate="tanh")), own


class FrozenBackbone(nn.Module):
    """Stands in for a `Backbone`: the same calls, a copy of its weights."""

    def __init__(self, tuned: Backbone):
        super().__init__()
        config = self.config = tuned.config
        if config.positions == "rotary" or config.experts or config.conditioning != "adaln" or config.norm != "layer":
            raise UserError(
                "the frozen baseline of bench train is a dense DiT that adds its positions: a preset like joint/small"
            )
        sizes = config.width, config.heads, config.mlp_ratio
        self.blocks = nn.ModuleList(FrozenBlock(*sizes, qk_norm=config.qk_norm) for _ in range(config.depth))
        d = config.width
        self.time_mlp = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.to_modulation = nn.Linear(d, tuned.to_modulation.out_features)
        self.load_state_dict({name.replace(".mlp.", "."): w for name, w in tuned.state_dict().items()})

    def timed(self, t: Tensor, condition: Tensor | None = None, **training) -> Timed:
        embedded = self.time_mlp(sinusoid(t, self.config.width))
        rows = self.to_modulation(F.silu(embedded if condition is None else embedded + condition))
        return Timed(rows.unflatten(-1, (-1, self.config.width)))

    def encode(self, x: Tensor, **known) -> Context:
        x = x.unsqueeze(1)
        rows = self.timed(torch.zeros(1, 1, 1, device=x.device)).rows
        layers = []
        for i, block in enumerate(self.blocks):
            x, own = block(x, _spread(rows[..., 6 * i : 6 * i + 6, :], None))
            layers.append(own)
        return Context(layers, x.squeeze(1))

    def denoise(self, x: Tensor, timed: Timed, context: Context, *, selector=None, mask=None, **other) -> Tensor:
        for i, block in enumerate(self.blocks):
            seen = context.layers[i] if context.layers else None
            x, _ = block(x, _spread(timed.rows[..., 6 * i : 6 * i + 6, :], selector), seen, mask)
        return x

    def finish(self, x: Tensor, rows: Tensor, selector: Tensor | None, kind: int = 0) -> Tensor:
        first = 6 * self.config.depth + 2 * kind
        shift, scale = _spread(rows[..., first : first + 2, :], selector)
        return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def _spread(rows: Tensor, selector: Tensor | None) -> list[Tensor]:
    """Modulations (B, N, L or 1, D) of every token, from rows (B, N, G, R, D) and which of them each token has."""
    if selector is None:
        return list(rows.unbind(-2))
    each = selector @ rows.flatten(-2)
    return list(each.unflatten(-1, rows.shape[-2:]).unbind(-2))
