"""Camera frames to tokens, and patches of pixels to and from frames."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...envs.errors import UserError, choose
from ..nn.linear import Linear
from .resnet import STAGES, ResNet


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How an observed frame becomes tokens.

    stem 'conv': one stride-2 convolution for each entry of `channels`, the last map's cells are the tokens.
    stem 'patch': square patches of `patch` pixels, linearly embedded (channels and keypoints are not used).
    stem 'resnet18', 'resnet34' or 'resnet50': one token a frame. film: the instruction scales and shifts its maps.
    per_camera: a stem for each camera.
    keypoints: so many spatial-softmax points (Levine et al. 2016, §4.2) of the last but one map join as one token;
    0 for none.
    summary: the last map, reduced to so many channels, joins whole as one token that knows where everything is; 0 for
    none.
    """

    stem: str = "conv"
    channels: tuple[int, ...] = (32, 64, 128, 256)
    keypoints: int = 0
    summary: int = 0
    patch: int = 16
    film: bool = False
    per_camera: bool = False

    def __post_init__(self):
        choose(self.stem, ("conv", "patch", *STAGES), "image stem")
        if self.film and self.stem not in STAGES:
            raise UserError(f"image stem {self.stem!r} is not steered by the instruction: film=false")
        if self.stem == "conv" and len(self.channels) < 2:
            raise UserError(f"a convolutional stem needs at least two stages, got channels={self.channels}")

    @property
    def stride(self) -> int:
        """Pixels along each side of the cell that one token stands for."""
        return 2 ** len(self.channels) if self.stem == "conv" else self.patch

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens. Raises `UserError` where the frame does not divide evenly."""
        if self.stem in STAGES:
            return 1, 1
        if height % self.stride or width % self.stride:
            raise UserError(f"a frame of {height} x {width} does not divide into cells of {self.stride} pixels")
        return height // self.stride, width // self.stride

    def count(self, height: int, width: int) -> int:
        """Tokens of one frame."""
        rows, columns = self.grid(height, width)
        return rows * columns + (bool(self.keypoints) + bool(self.summary) if self.stem == "conv" else 0)


class ConvStem(nn.Module):
    """Normalised strided convolutions on pixels and their coordinates, with optional tokens of the whole frame."""

    def __init__(self, config: ImageConfig, width: int, cells: int, channels: int = 3):
        super().__init__()
        sizes = (channels + 2, *config.channels)  # the frame's own and the pixel's two coordinates
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(_groups(b), b), nn.SiLU())
            for a, b in pairwise(sizes)
        )
        self.project = Linear(config.channels[-1], width)
        self.to_keypoints = nn.Conv2d(config.channels[-2], config.keypoints, 1) if config.keypoints else None
        self.from_keypoints = Linear(2 * config.keypoints, width) if config.keypoints else None
        self.to_summary = Linear(config.channels[-1], config.summary) if config.summary else None
        self.from_summary = Linear(cells * config.summary, width) if config.summary else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, channels, H, W) in [-1, 1] → (B, L, D)."""
        x = torch.cat([x, coordinates(x)], dim=1).contiguous(memory_format=torch.channels_last)
        before = x
        for stage in self.stages:
            before, x = x, stage(x)
        cells = rearrange(x, "b c h w -> b (h w) c")
        tokens = [self.project(cells)]
        if self.to_keypoints is not None and self.from_keypoints is not None:
            tokens.append(self.from_keypoints(spatial_softmax(self.to_keypoints(before)))[:, None].to(x.dtype))
        if self.to_summary is not None and self.from_summary is not None:
            tokens.append(self.from_summary(self.to_summary(cells).flatten(1))[:, None])
        return torch.cat(tokens, dim=1)


class PatchStem(nn.Module):
    """Linear embedding of square patches (Dosovitskiy et al. 2021, ViT)."""

    def __init__(self, config: ImageConfig, width: int, cells: int, channels: int = 3):
        super().__init__()
        self.patch = config.patch
        self.project = Linear(channels * config.patch**2, width)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, channels, H, W) in [-1, 1] → (B, L, D)."""
        return self.project(rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=self.patch, q=self.patch))


def _resnet(config: ImageConfig, width: int, cells: int, channels: int = 3) -> ResNet:
    return ResNet(config.stem, width, channels, width if config.film else 0)


STEMS: dict[str, Callable[..., nn.Module]] = {"conv": ConvStem, "patch": PatchStem, **dict.fromkeys(STAGES, _resnet)}
"""Image encoders by name: (config, width, cells, channels) → a module of frames and the instruction (B, D)."""


def _groups(channels: int) -> int:
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)


def coordinates(x: Tensor) -> Tensor:
    """Row and column of every pixel of x (B, C, H, W) in [-1, 1]: (B, 2, H, W)."""
    rows = torch.linspace(-1, 1, x.shape[-2], device=x.device, dtype=x.dtype)
    columns = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(x.shape[0], -1, -1, -1)


def spatial_softmax(maps: Tensor) -> Tensor:
    """Expected row and column of each map (B, K, H, W): (B, 2 K) in [-1, 1]."""
    weights = maps.float().flatten(2).softmax(dim=-1)  # (B, K, H W)
    where = coordinates(maps.float()[:1, :1]).flatten(2)  # (1, 2, H W)
    return torch.einsum("bkp,xcp->bkc", weights, where).flatten(1)


def shift(frames: Tensor, offset: Tensor) -> Tensor:
    """Move each sample's frames (B, ..., H, W, C) by its offset (B, 2) [pixels], repeating the edge."""
    height, width = frames.shape[-3:-1]
    rows = (torch.arange(height, device=frames.device) + offset[:, :1]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=frames.device) + offset[:, 1:]).clamp(0, width - 1)
    moved = [f[..., r[:, None], c[None, :], :] for f, r, c in zip(frames, rows, columns, strict=True)]
    return torch.stack(moved)


def resize(frames: Tensor, size: int) -> Tensor:
    """Frames (..., H, W, C) float to (..., size, size, C), area-averaged when shrinking."""
    if frames.shape[-3:-1] == (size, size):
        return frames
    lead = frames.shape[:-3]
    flat = rearrange(frames.reshape(-1, *frames.shape[-3:]), "b h w c -> b c h w")
    small = rearrange(F.interpolate(flat, (size, size), mode="area"), "b c h w -> b h w c")
    return small.reshape(*lead, *small.shape[1:])
