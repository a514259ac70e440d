"""How the values of a segment lie in tokens: which of time, camera, row and column are tokens, and which channels."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from ..envs.slot_maps import SPACES
from ..envs.slots import SIZE
from ..envs.spec import Embodiment
from .config import ModelConfig


@dataclass(frozen=True)
class Shape:
    """A segment of T steps, V views and a grid of patches, each with C channels.

    folded: steps lie on channels and not in the sequence, as in PAD (Guo et al. 2024), whose number of tokens does not
    grow with the number of foreseen frames, and whose poses are one token.
    """

    steps: int
    views: int
    rows: int
    columns: int
    channels: int
    folded: bool = False

    @property
    def tokens(self) -> int:
        """Tokens L of the segment in the sequence."""
        return (1 if self.folded else self.steps) * self.views * self.rows * self.columns

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.channels * (self.steps if self.folded else 1)

    @property
    def _tokens_last(self) -> str:
        return "(v r c) (t d)" if self.folded else "(t v r c) d"

    def arrange(self, values: Tensor) -> Tensor:
        """Values (B, T, V, R, C, channels) to tokens (B, L, W)."""
        return rearrange(values, f"b t v r c d -> b {self._tokens_last}")

    def restore(self, tokens: Tensor) -> Tensor:
        """The inverse of `arrange`."""
        sizes = {"t": self.steps, "v": self.views, "r": self.rows, "c": self.columns}
        return rearrange(tokens, f"b {self._tokens_last} -> b t v r c d", **sizes)

    def holding(self, tokens: int) -> "Shape":
        """The same where only so many tokens are there: of some of the cameras, or of the first steps."""
        if self.views == 1 and not self.folded:
            return replace(self, steps=tokens // (self.rows * self.columns))
        return replace(self, views=self.views * tokens // self.tokens)

    def spread(self, steps: Tensor) -> Tensor:
        """One value for each step (B, T) to (B, L, 1), or to (B, L, W) where steps are channels."""
        channels = self.channels if self.folded else 1
        size = (self.views, self.rows, self.columns, channels)
        return self.arrange(steps[..., None, None, None, None].expand(*steps.shape, *size))

    def positions(self, times: Iterable[float], cell: float) -> Tensor:
        """(L, 3) time, row, column of the tokens; `cell` is the grid's step in cells of the observed image."""
        first = [0.0] if self.folded else list(times)
        axes = [torch.tensor(first), torch.arange(self.rows) * cell, torch.arange(self.columns) * cell]
        grid = torch.cartesian_prod(*(a.float() for a in axes)).view(len(first), 1, -1, 3)
        return grid.expand(-1, self.views, -1, -1).reshape(-1, 3)


def vector_size(config: ModelConfig, embodiment: Embodiment, which: str) -> int:
    """Numbers of the 'state' or 'action' as the network sees them."""
    own = embodiment.state_dim if which == "state" else embodiment.action_dim
    return own if SPACES[config.space] is None else SIZE


def state_width(config: ModelConfig, embodiment: Embodiment) -> int:
    """Numbers of a state token: the state, and in a shared space which of it is there."""
    size = vector_size(config, embodiment, "state")
    return size if SPACES[config.space] is None else 2 * size


def segment_shapes(config: ModelConfig, embodiment: Embodiment, horizon: int | None = None) -> dict[str, Shape]:
    """Every segment that can be denoised, in the order of the sequence. horizon: of that robot, default the longest."""
    folded = config.layout == "stacked"
    size = vector_size(config, embodiment, "state" if config.poses else "action")
    shapes = {"action": Shape(config.horizon if horizon is None else horizon, 1, 1, 1, size, folded)}
    channels = {"future": config.latent.latent if config.latent else 3} | ({"depth": 1} if config.depth else {})
    for name, n in channels.items():
        if config.future:
            patch = config.patch(name)
            side = config.side(name) // patch
            grid = (len(config.future), len(embodiment.cameras), side, side)
            shapes[name] = Shape(*grid, n * patch**2, folded)
    return shapes


def beside_widths(config: ModelConfig, embodiment: Embodiment) -> dict[str, int]:
    """Channels of clean values that join each segment's tokens: the present frame, where stacked the state, and in a
    shared space which of the action's numbers are there."""
    shapes = segment_shapes(config, embodiment)
    stacked = config.layout == "stacked"
    widths = {name: s.channels for name, s in shapes.items() if name != "action" and (stacked or config.stack_now)}
    if stacked:
        return widths | {"action": config.n_obs_steps * embodiment.state_dim}
    return widths if SPACES[config.space] is None else widths | {"action": SIZE}
