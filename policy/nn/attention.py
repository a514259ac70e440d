"""Attention of a stream of tokens to itself and to a cached context.

The stream holds N independent noise draws of one sample side by side. Each draw sees its own tokens and the
context, never another draw, so the context is neither copied nor recomputed for more draws.
Letters: B batch, H heads, N draws, L tokens of a draw, M context tokens, C channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]  # each (B, H, M, C)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    context: KeysValues | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1).

    q, k, v: (B, H, N, L, C). mask: True where a query may look, broadcastable to (B, 1, N, L, M + L), context
    keys first; a query that may look nowhere is a caller's error. dropout: of attention weights. Returns
    (B, H, N, L, C).
    """
    # The backward pass of PyTorch's CPU kernel is slower than the plain formula. Forward alone and on GPUs kernels are
    # faster. Exporters and compilers see the formula.
    plain = q.device.type == "cpu" and (torch.is_grad_enabled() or torch.compiler.is_compiling())
    rule = _explicit if plain else _fused
    return rule(q, k, v, context, mask, dropout)


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, context: KeysValues | None, mask: Tensor | None, dropout: float = 0.0
) -> Tensor:
    q = q * q.shape[-1] ** -0.5
    logits = q @ k.transpose(-1, -2)  # (B, H, N, L, L)
    if context is not None:
        logits = torch.cat([_per_sample(q, context[0].transpose(-1, -2)), logits], dim=-1)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    # PyTorch's bfloat16 softmax over an odd number of keys is six times slower than float32's
    weights = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(v.dtype)
    weights = F.dropout(weights, dropout) if dropout else weights
    if context is None:
        return weights @ v
    to_context, to_own = weights.split([context[0].shape[-2], k.shape[-2]], dim=-1)
    return _per_sample(to_context, context[1]) + to_own @ v


def _per_sample(x: Tensor, y: Tensor) -> Tensor:
    """x (B, H, N, L, P) @ y (B, H, P, Q), as one product over all draws."""
    out = x.flatten(2, 3) @ y
    return out.unflatten(2, x.shape[2:4])


def _fused(
    q: Tensor, k: Tensor, v: Tensor, context: KeysValues | None, mask: Tensor | None, dropout: float = 0.0
) -> Tensor:
    draws = q.shape[2]
    if context is not None:
        k, v = (
            torch.cat([c.unsqueeze(2).expand(-1, -1, draws, -1, -1), x], dim=-2)
            for c, x in zip(context, (k, v), strict=True)
        )
    if mask is not None:
        mask = _one_batch(mask.expand(len(q), 1, draws, *mask.shape[-2:]))
    # of more than four axes PyTorch would take its slow kernel
    mixed = F.scaled_dot_product_attention(*map(_one_batch, (q, k, v)), attn_mask=mask, dropout_p=dropout)
    return mixed.unflatten(0, (-1, draws)).transpose(1, 2)


def _one_batch(x: Tensor) -> Tensor:
    """(B, H, N, L, C) to (B N, H, L, C)."""
    return x.transpose(1, 2).flatten(0, 1)
