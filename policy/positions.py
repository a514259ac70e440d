"""Where each token stands: (time [control steps], row, column [cells of the image grid]), for rotary positions."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .config import ModelConfig


def _lattice(times: Iterable[float], rows: Tensor, columns: Tensor) -> Tensor:
    """All combinations, times slowest: (T·R·C, 3)."""
    return torch.cartesian_prod(torch.tensor(list(times), dtype=torch.float32), rows, columns)


def context_positions(config: ModelConfig, views: int) -> Tensor:
    """Positions of image tokens, state tokens and the instruction, in the order of the context: (M, 3)."""
    times = [float(t) for t in range(1 - config.n_obs_steps, 1)]
    rows, columns = config.image.grid(config.pixels, config.pixels)
    frames = []
    for t in times:
        cells = _lattice([t], torch.arange(rows).float(), torch.arange(columns).float())
        extra = config.image.count(config.pixels, config.pixels) - len(cells)  # tokens of the whole frame have no cell
        frames.append(torch.cat([cells, torch.tensor([[t, 0.0, 0.0]]).expand(extra, 3)]))
    state = torch.tensor([[t, 0.0, 0.0] for t in times])
    return torch.cat([*frames * views, state, torch.zeros(1, 3)])


def segment_positions(name: str, config: ModelConfig, views: int) -> Tensor:
    """Positions of a denoised segment's tokens: (L, 3)."""
    if name == "action":
        return _lattice(range(config.horizon), torch.zeros(1), torch.zeros(1))
    side = config.pixels // config.future_patch
    cells = torch.arange(side) * (config.future_patch / config.image.stride)
    return _lattice((t for t in config.future for _ in range(views)), cells, cells)
