"""Which tokens of a partly observed segment are shown: the mask families of VDT (Lu et al. 2024, §3.3), by role.

With a time for each token the mask is all that these tasks need: shown tokens are clean, have time 0 and are not in the
loss, so one set of weights continues, predicts, interpolates, animates and completes.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .segments import Role
from .shapes import Shape

Family = Callable[[int, int, int, int, torch.Generator], Tensor]
"""(samples, frames, grid rows, grid columns, generator) → shown (samples, frames, rows, columns) bool."""


def _first(n: int, most: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The first 1 to `most` frames."""
    count = torch.randint(1, max(1, most) + 1, (n, 1), generator=generator, device=generator.device)
    shown = torch.arange(shape[0], device=generator.device) < count
    return shown[..., None, None].expand(n, *shape)


def _continue(n: int, frames: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return _first(n, frames // 2, (frames, rows, columns), generator)


def _predict(n: int, frames: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return _first(n, frames - 1, (frames, rows, columns), generator)


def _interpolate(n: int, frames: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Every k-th frame, counted from the last; k from 2 to all."""
    stride = torch.randint(2, max(2, frames) + 1, (n, 1), generator=generator, device=generator.device)
    behind = frames - 1 - torch.arange(frames, device=generator.device)
    return (behind % stride == 0)[..., None, None].expand(n, frames, rows, columns)


def _animate(n: int, frames: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """One frame, anywhere."""
    which = torch.randint(frames, (n, 1), generator=generator, device=generator.device)
    shown = torch.arange(frames, device=generator.device) == which
    return shown[..., None, None].expand(n, frames, rows, columns)


def _complete(n: int, frames: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """All but a rectangle, which is hidden in every frame; its sides are a quarter to three quarters of the frame."""
    inside = torch.ones(n, 1, 1, 1, dtype=torch.bool, device=generator.device)
    for axis, size in ((2, rows), (3, columns)):
        draw = torch.rand(n, 2, generator=generator, device=generator.device)
        length = ((0.25 + 0.5 * draw[:, :1]) * size).round().clamp(min=1)
        start = (draw[:, 1:] * (size - length + 1)).floor()
        cells = torch.arange(size, device=generator.device)
        hidden = (cells >= start) & (cells < start + length)
        inside = inside & hidden.view(n, 1, *(size if a == axis else 1 for a in (2, 3)))
    return ~inside.expand(n, frames, rows, columns)


KNOWN: dict[Role, Family] = {
    Role.CONTINUE: _continue,
    Role.PREDICT: _predict,
    Role.INTERPOLATE: _interpolate,
    Role.ANIMATE: _animate,
    Role.COMPLETE: _complete,
}
"""Every role of a segment that is partly observed."""


def known(role: Role, shape: Shape, draws: torch.Size, generator: torch.Generator) -> Tensor:
    """Shown tokens of a segment in each of the draws (B, N): (B, N, L) bool. All views show the same cells."""
    shown = KNOWN[role](draws.numel(), shape.steps, shape.rows, shape.columns, generator)
    everywhere = shown[:, :, None, :, :, None].expand(-1, -1, shape.views, -1, -1, 1)
    return replace(shape, channels=1).arrange(everywhere).reshape(*draws, -1)
