"""Train a tokenizer of frames, load it, and keep the latents of a store's frames in the store."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.derived import derived_rows
from ..data.mixture import Mixture
from ..data.store import Store
from ..data.windows import Windows
from ..envs.errors import UserError, positive
from .checkpoint import find_finished
from .device import autocast
from .fitting import Batches, Fitting, TrainConfig, marks
from .loss import Losses
from .settings import build
from .tokens.images import resize
from .tokens.kl import KLConfig, Tokenizer

FORMAT_VERSION = 1
_SAMPLE = 256  # steps whose frames give the latents' mean and deviation


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A tokenizer preset: the autoencoder's sizes and the side of its frames."""

    name: str
    autoencoder: KLConfig
    pixels: int = 64

    def __post_init__(self):
        positive("pixels", self.pixels)
        self.autoencoder.side(self.pixels)


class TokenizerTrainer(Fitting[Tokenizer]):
    """Learns to reconstruct the frames of all cameras of the data."""

    def __init__(self, data: Any, model: TokenizerConfig, config: TrainConfig):
        super().__init__(config)
        mixture = Mixture(data, Windows(horizon=1), held_out=config.held_out, seed=config.seed, reader=config.reader)
        self.about, self.data, self.held_out = model, mixture.learn[mixture.embodiment.name], mixture.held_out
        self.origin = {"stores": marks(mixture)}
        self.tokenizer = Tokenizer(model.autoencoder).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.begin(
            copy.deepcopy(self.tokenizer).train(),
            mixture.loaders(config.batch_size, config.seed, config.workers, lambda data: None),
        )

    def losses(self, sources: Batches, generator: torch.Generator) -> Losses:
        frames = torch.cat([self._frames(batch) for batch in sources])
        with autocast(self.precision, self.device):
            return Losses(*self.model.loss(frames, generator))

    def _frames(self, batch: Batch) -> Tensor:
        return torch.cat([scaled(v[:, -1].to(self.device), self.about.pixels) for v in batch.images.values()])

    @torch.no_grad()
    def averaged(self) -> Tokenizer:
        """The tokenizer with averaged weights, whose latents have mean 0 and deviation 1 over training frames."""
        self.ema.copy_to(self.tokenizer)
        mean, _ = self.tokenizer.posterior(self._frames(_spread(self.data)))
        values = rearrange(mean, "n c h w -> (n h w) c")
        self.tokenizer.mean.copy_(values.mean(0))
        self.tokenizer.std.copy_(values.std(0).clamp(min=1e-6))
        return self.tokenizer.eval()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Reconstruction PSNR [dB] of held-out frames."""
        tokenizer, frames = self.averaged(), self._frames(_spread(self.held_out))
        error = (tokenizer.decode(tokenizer.encode(frames)) - frames).square().mean() / 4  # colours from 0 to 1
        return {"val/psnr": float(-10 * error.log10())}

    def write(self, folder: Path) -> None:
        write_tokenizer(folder, self.averaged(), self.about)


def _spread(data: Dataset) -> Batch:
    """Steps spread evenly over the data."""
    return data.batch(np.linspace(0, len(data) - 1, min(_SAMPLE, len(data))).astype(int))


def scaled(frames: Tensor, pixels: int) -> Tensor:
    """Frames (..., H, W, 3) uint8 to (..., pixels, pixels, 3) in [-1, 1]."""
    return resize(frames.float() / 127.5 - 1, pixels)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, about: TokenizerConfig) -> None:
    """Write a tokenizer into a folder."""
    save_file({k: v.contiguous() for k, v in tokenizer.state_dict().items()}, folder / "tokenizer.safetensors")
    values = {"format_version": FORMAT_VERSION, **asdict(about)}
    (folder / "tokenizer.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def load_tokenizer(path: Path | str) -> tuple[Tokenizer, TokenizerConfig]:
    """The frozen tokenizer of a run of `foreact train model=tokenizer/…`, and what it is.

    Raises `UserError` where there is none, or the run is not at its end; a folder of its checkpoints/ may be named.
    """
    folder = find_finished(path)
    try:
        about = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "tokenizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no readable tokenizer: {error}") from error
    if (version := about.pop("format_version", None)) != FORMAT_VERSION:
        raise UserError(f"tokenizer {folder} has format {version}, this foreact reads {FORMAT_VERSION}")
    config = build(TokenizerConfig, about, "tokenizer")
    tokenizer = Tokenizer(config.autoencoder)
    tokenizer.load_state_dict(weights)
    return tokenizer.eval().requires_grad_(False), config


def latents_of(tokenizer: Tokenizer, pixels: int, device: str) -> Callable[[Store], dict[str, Path]]:
    """A function of a store: camera → file with the latents (N, h, w, C) float16 of its frames, made where missing."""
    mark = f"{tokenizer.mark()}-{pixels}"
    tokenizer = copy.deepcopy(tokenizer).to(device)

    @torch.inference_mode()
    def encode(frames: np.ndarray) -> np.ndarray:
        return tokenizer.encode(scaled(torch.from_numpy(frames).to(device), pixels)).cpu().numpy().astype(np.float16)

    def files(store: Store) -> dict[str, Path]:
        cameras = [c.name for c in store.embodiment.cameras]
        return {c: derived_rows(store, f"image/{c}", "latents", mark, encode) for c in cameras}

    return files
