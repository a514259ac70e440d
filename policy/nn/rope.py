"""Axial rotary positions: head channels are shared out over (time, row, column)."""

import torch
from torch import Tensor


def rotary_table(positions: Tensor, channels: int, base: float = 100.0) -> Tensor:
    """Angles' cosine and sine for each token (Su et al. 2021, RoFormer, eq. 15; one slice of channels per axis).

    positions: (L, 3) time [control steps], row and column [patches]. Returns (2, L, channels // 2).
    """
    pairs = channels // 2
    share = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    angles = [
        positions[:, axis, None] * base ** (-torch.arange(n, device=positions.device) / max(n, 1))
        for axis, n in enumerate(share)
    ]
    angle = torch.cat(angles, dim=-1)  # (L, channels / 2)
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate channel pairs of x (..., L, C) by the table (2, L, C/2). Norms are kept."""
    cos, sin = table.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
