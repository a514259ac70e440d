"""A small autoencoder of frames with a KL-regularised latent (Rombach et al. 2022, §3.1)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...envs.errors import UserError
from ..fingerprint import fingerprint


@dataclass(frozen=True, kw_only=True)
class KLConfig:
    """Sizes of the autoencoder.

    patch: side of the pixel squares that become channels at the entrance (LTX, HaCohen et al. 2024), which makes the
    first layers cheap · channels: one stage for each, with half the resolution of the one before · latent: channels of
    the latent · kl: weight of the KL term against the squared error.
    """

    patch: int = 2
    channels: tuple[int, ...] = (48, 96, 128)
    latent: int = 8
    kl: float = 1e-6

    def __post_init__(self):
        if self.patch < 1 or not self.channels or self.latent < 1:
            raise UserError(f"tokenizer needs patch, latent >= 1 and at least one stage, got {self}")
        if self.kl < 0:
            raise UserError(f"tokenizer kl is a weight, at least 0, got {self.kl}")

    @property
    def stride(self) -> int:
        """Pixels to a latent cell, along each side."""
        return self.patch * 2 ** (len(self.channels) - 1)

    def side(self, pixels: int) -> int:
        """Cells along each side of a frame. Raises `UserError` where it does not divide."""
        if pixels % self.stride:
            raise UserError(f"a tokenizer of stride {self.stride} does not divide frames of {pixels} pixels")
        return pixels // self.stride


class Residual(nn.Module):
    """x + f(x), two convolutions (He et al. 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        self.body = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Tokenizer(nn.Module):
    """Frames (..., H, W, 3) in [-1, 1] ↔ latents (..., h, w, C) of mean 0 and deviation 1 over the training frames."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: KLConfig):
        super().__init__()
        self.config = config
        c, pixels = config.channels, 3 * config.patch**2
        down: list[nn.Module] = [nn.Conv2d(pixels, c[0], 3, padding=1), Residual(c[0])]
        up: list[nn.Module] = [nn.Conv2d(config.latent, c[-1], 3, padding=1), Residual(c[-1])]
        for a, b in pairwise(c):
            down += [nn.Conv2d(a, b, 3, stride=2, padding=1), Residual(b)]
        for a, b in pairwise(c[::-1]):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1), Residual(b)]
        self.down = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(c[-1], 2 * config.latent, 1))
        self.up = nn.Sequential(*up, nn.SiLU(), nn.Conv2d(c[0], pixels, 3, padding=1))
        self.register_buffer("mean", torch.zeros(config.latent))
        self.register_buffer("std", torch.ones(config.latent))

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (N, C, h, w) of the latent of frames (N, H, W, 3), before normalisation."""
        p = self.config.patch
        mean, log_var = self.down(rearrange(frames, "n (h p) (w q) c -> n (p q c) h w", p=p, q=p)).chunk(2, dim=1)
        return mean, log_var.clamp(-30, 20)

    def reconstruct(self, latent: Tensor) -> Tensor:
        """Frames (N, H, W, 3) from latents (N, C, h, w) before normalisation; not clipped."""
        p = self.config.patch
        return rearrange(self.up(latent), "n (p q c) h w -> n (h p) (w q) c", p=p, q=p)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (..., H, W, 3) to normalised latents (..., h, w, C): the posterior's mean."""
        mean, _ = self.posterior(frames.reshape(-1, *frames.shape[-3:]))
        latent = (rearrange(mean, "n c h w -> n h w c") - self.mean) / self.std
        return latent.reshape(*frames.shape[:-3], *latent.shape[1:])

    def decode(self, latent: Tensor) -> Tensor:
        """The inverse of `encode`, as near as it was trained to be: (..., H, W, 3) in [-1, 1]."""
        plain = latent.reshape(-1, *latent.shape[-3:]) * self.std + self.mean
        frames = self.reconstruct(rearrange(plain, "n h w c -> n c h w")).clamp(-1, 1)
        return frames.reshape(*latent.shape[:-3], *frames.shape[1:])

    def loss(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error and the weighted KL divergence to a unit Gaussian, each a mean over its numbers."""
        mean, log_var = self.posterior(frames)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        error = F.mse_loss(self.reconstruct(mean + (0.5 * log_var).exp() * noise).float(), frames)
        kl = 0.5 * (mean.float().square() + log_var.exp() - 1 - log_var).mean()
        return error + self.config.kl * kl, {"error": error.detach(), "kl": kl.detach()}

    def mark(self) -> str:
        """Sixteen hexadecimal digits that name the weights."""
        return fingerprint(self)
