"""Where each token stands: (time [control steps], row, column [cells of the image grid]), for positions by formula."""

import torch
from torch import Tensor

from .config import ModelConfig
from .shapes import Shape


def context_positions(config: ModelConfig, views: int, *, with_state: bool = True, with_rate: bool = False) -> Tensor:
    """Positions of image tokens, state tokens, the control rate and the instruction, which comes first in a causal
    sequence: (M, 3)."""
    times = [float(t) for t in range(1 - config.n_obs_steps, 1)]
    rows, columns = config.image.grid(config.pixels, config.pixels)
    frames = []
    for t in times:
        cells = Shape(1, 1, rows, columns, 1).positions([t], 1.0)
        extra = config.image.count(config.pixels, config.pixels) - len(cells)  # tokens of the whole frame have no cell
        frames.append(torch.cat([cells, torch.tensor([[t, 0.0, 0.0]]).expand(extra, 3)]))
    state = [torch.tensor([[t, 0.0, 0.0] for t in times])] if with_state else []
    rate = [torch.zeros(1, 3)] if with_rate else []
    instruction, rest = torch.zeros(1, 3), [*frames * views, *state, *rate]
    return torch.cat([instruction, *rest] if config.layout == "sequence" else [*rest, instruction])


def segment_positions(name: str, shape: Shape, config: ModelConfig) -> Tensor:
    """Positions of a denoised segment's tokens: (L, 3)."""
    times = range(config.horizon) if name == "action" and not config.poses else config.future
    return shape.positions([float(t) for t in times], config.cell(name) / config.image.stride)
