"""How near foreseen pictures are to the real ones, and recovered actions to those that were executed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOVING = 0.1
"""A pixel moves if a colour differs from the present picture's by more than this, of the whole range."""


def psnr(squared_errors: float, count: float = 1) -> float | None:
    """Peak signal-to-noise ratio [dB] of so many squared errors, by their sum, colours from 0 to 1; None of none."""
    if not count:
        return None
    squared_error = squared_errors / count
    return -10 * math.log10(max(squared_error, 1e-10))


def moving(real: Tensor, now: Tensor) -> Tensor:
    """Which pixels (..., H, W) of real pictures (..., H, W, C) in [0, 1] differ from the present ones."""
    return (real - now).abs().amax(-1) > MOVING


def ssim(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """Structural similarity (Wang et al. 2004) of pictures (N, H, W, C) in [0, 1]: (N,), over pixels and colours.

    Uniform windows with sample covariances, as in scikit-image.
    """
    a, b = (x.permute(0, 3, 1, 2).double() for x in (a, b))
    n = window**2
    mean_a, mean_b = F.avg_pool2d(a, window, 1), F.avg_pool2d(b, window, 1)
    unbiased = n / (n - 1)
    var_a = unbiased * (F.avg_pool2d(a * a, window, 1) - mean_a**2)
    var_b = unbiased * (F.avg_pool2d(b * b, window, 1) - mean_b**2)
    covariance = unbiased * (F.avg_pool2d(a * b, window, 1) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (value / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2, 3))


def r_squared(found: Tensor, wanted: Tensor) -> float | None:
    """1 - residual / variance, over all rows of (N, A), pooled over the columns; None where nothing varies."""
    variance = (wanted - wanted.mean(0)).square().mean()
    return float(1 - (found - wanted).square().mean() / variance) if variance > 1e-6 else None


@dataclass
class Score:
    """Sums over the looks of one query. Squared errors of the foreseen pictures and of the present one, repeated."""

    squared: list[float] = field(default_factory=list)
    copied: list[float] = field(default_factory=list)
    squared_moving: list[float] = field(default_factory=list)
    copied_moving: list[float] = field(default_factory=list)
    pixels_moving: list[float] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    similarity_copied: list[float] = field(default_factory=list)
    found: list[Tensor] = field(default_factory=list)
    wanted: list[Tensor] = field(default_factory=list)

    def add_pictures(self, foreseen: Tensor, real: Tensor, now: Tensor, hidden: Tensor) -> None:
        """Pictures (B, V, F, H, W, 3) in [0, 1]; hidden (B, V, F, H, W): the pixels that were not given."""
        mask = moving(real, now) & hidden
        for sums, sums_moving, similar, guess in (
            (self.squared, self.squared_moving, self.similarity, foreseen),
            (self.copied, self.copied_moving, self.similarity_copied, now.expand_as(real)),
        ):
            error = (guess - real).square().mean(-1)
            sums += [float(e[h].mean()) for e, h in zip(error, hidden, strict=True) if h.any()]
            sums_moving += [float(e[m].sum()) for e, m in zip(error, mask, strict=True)]
            similar += ssim(guess.flatten(0, 2), real.flatten(0, 2)).tolist()
        self.pixels_moving += mask.flatten(1).sum(1).tolist()
        self.pixels += [mask[0].numel()] * len(mask)

    def add_actions(self, found: np.ndarray, wanted: Tensor, padded: Tensor) -> None:
        """Chunks (B, K, A) in the robot's units; padded (B, K): those beyond the episode's end, which do not count."""
        self.found.append(torch.from_numpy(found)[~padded])
        self.wanted.append(wanted[~padded])

    def summary(self, fields: Sequence[tuple[str, np.ndarray]]) -> dict[str, Any]:
        """The numbers, JSON-ready. fields: names of parts of an action, and the places of each one's numbers."""
        numbers: dict[str, Any] = {}
        if self.pixels:
            numbers = {
                "psnr": psnr(sum(self.squared), len(self.squared)),
                "psnr_copy": psnr(sum(self.copied), len(self.copied)),
                "psnr_moving": psnr(sum(self.squared_moving), sum(self.pixels_moving)),
                "psnr_moving_copy": psnr(sum(self.copied_moving), sum(self.pixels_moving)),
                "moving_share": sum(self.pixels_moving) / sum(self.pixels),
                "looks": len(self.pixels),
                "ssim": float(np.mean(self.similarity)),
                "ssim_copy": float(np.mean(self.similarity_copied)),
            }
        if self.found:
            found, wanted = torch.cat(self.found), torch.cat(self.wanted)
            numbers["r2"] = {name: r_squared(found[:, part], wanted[:, part]) for name, part in fields}
        return numbers
