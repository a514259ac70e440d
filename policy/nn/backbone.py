"""The one transformer: a context stream that is encoded once, and a denoised stream that attends to it.

Context tokens (what is observed) have time 0 and never look at denoised ones, so their keys and values serve every
solver step of a control step and every noise draw of a training sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import KeysValues
from .block import NORMS, Block, CrossAttention, modulate
from .config import BackboneConfig
from .experts import Bank, Experts
from .fused import Route
from .linear import Linear, working
from .routing import TimeRouter, Usage
from .timed import Timed, log_sigma, sinusoid, spread


@dataclass(frozen=True)
class Context:
    """An encoded observation: keys and values of every layer, and where they were asked for the tokens that come out of
    the last one (B, M, D)."""

    layers: list[KeysValues]
    tokens: Tensor | None = None

    def __getitem__(self, rows: slice) -> "Context":
        """The context of some samples of the batch."""
        tokens = None if self.tokens is None else self.tokens[rows]
        return Context([(k[rows], v[rows]) for k, v in self.layers], tokens)

    def __len__(self) -> int:
        """Tokens M, of which presets that see the observation beside the noisy values have none."""
        return self.layers[0][0].shape[-2] if self.layers else 0

    def clone(self) -> "Context":
        """A copy in memory of its own."""
        tokens = None if self.tokens is None else self.tokens.clone()
        return Context([(k.clone(), v.clone()) for k, v in self.layers], tokens)


class Backbone(nn.Module):
    """Blocks, time embedding and the modulation of every layer.

    finals: how many kinds of tokens have a final modulation of their own. recompute: in training keep only what goes
    in and out of a block, and compute the rest again for its gradients (activation checkpointing, Chen et al. 2016).
    """

    recompute = False

    def __init__(self, config: BackboneConfig, finals: int = 1):
        super().__init__()
        self.config, self.finals = config, finals
        d = config.width
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        if config.time == "sinusoid":
            self.time_mlp = nn.Sequential(Linear(d, d), nn.SiLU(), Linear(d, d))
        else:
            self.time_mlp = Linear(1, d)
        if config.conditioning == "adaln":
            # The last 2 rows of each kind of token modulate the final norm before its head.
            self.to_modulation = Linear(d, self._rows * d)
            self._initialise()
        self.final_norm = NORMS[config.norm](d)
        by_time = config.experts is not None and config.experts.by_time
        self.time_router = TimeRouter(config) if by_time else None

    @property
    def _rows(self) -> int:
        return 6 * self.config.depth + 2 * self.finals

    def _initialise(self) -> None:
        nn.init.zeros_(self.to_modulation.weight)
        bias = self.to_modulation.bias.new_zeros(self.to_modulation.out_features).view(-1, self.config.width)
        bias[2 : 6 * self.config.depth : 3] = self.config.gate_init
        with torch.no_grad():
            self.to_modulation.bias.copy_(bias.flatten())

    def timed(
        self,
        t: Tensor,
        condition: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        usage: list[Usage] | None = None,
    ) -> Timed:
        """What a stream takes from times t (..., B or 1, N, G). A table for a solver grid is this, computed once.

        condition (..., D) joins the embedded time (DiT's class, PAD's instruction). generator, usage: see
        `routing.TimeRouter`.
        """
        embedded = self.embed_time(t)
        rows = self._modulation(embedded if condition is None else embedded + condition)
        if self.time_router is None:
            return Timed(rows, embedded)
        return Timed(rows, embedded, [Route(choice) for choice in self.time_router(t, embedded, generator, usage)])

    def embed_time(self, t: Tensor) -> Tensor:
        """Times (...) to (..., D)."""
        features = sinusoid(t, self.config.width) if self.config.time == "sinusoid" else log_sigma(t)
        return self.time_mlp(features)

    def _modulation(self, embedded: Tensor) -> Tensor:
        """Rows (..., R, D): shift, scale and gate of both sub-layers of every block, shift and scale of each final."""
        if self.config.conditioning == "adaln":
            rows = self.to_modulation(nn.functional.silu(embedded))
            return rows.unflatten(-1, (-1, self.config.width))
        none, one = torch.zeros_like(embedded), torch.ones_like(embedded)
        shift = embedded if self.config.conditioning == "attention" else none
        block = [shift, none, one, none, none, one]
        return torch.stack([*block * self.config.depth, *[none] * 2 * self.finals], dim=-2)

    @torch.no_grad()
    def fused(self, timed: Timed, bank: Bank) -> Timed:
        """The same for one sample, with the chosen experts of each layer fused."""
        routes = [bank.route(i, self.experts(i), route.choice) for i, route in enumerate(timed.routes)]
        return Timed(timed.rows, timed.embedded, routes)

    def experts(self, layer: int) -> Experts:
        """The experts of a layer."""
        mlp = self.blocks[layer].mlp
        assert isinstance(mlp, Experts)
        return mlp

    def timed_version(self) -> tuple[tuple[int, int], ...]:
        """Another one after any change of the weights behind `timed` and `fused`, in place or by other memory."""
        parts = [self.time_mlp, getattr(self, "to_modulation", None), self.time_router]
        if self.time_router is not None:
            parts += [block.mlp for block in self.blocks]
        weights = [p for part in parts if part is not None for p in part.parameters()]
        # inference tensors have no version and never change
        return tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)

    def clean(self) -> Timed:
        """What context tokens take, whose time is 0: rows (1, 1, 1, R, D)."""
        return self.timed(torch.zeros(1, 1, 1, device=self.device))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.blocks[0].attention.out.weight.device  # type: ignore[union-attr]

    def encode(
        self,
        x: Tensor,
        *,
        rotary: Tensor | None = None,
        clean: Timed | None = None,
        usage: list[Usage] | None = None,
        whole: bool = False,
    ) -> Context:
        """Run the context tokens x (B, M, D) through all layers. clean: what `clean` gives, for who has it already.

        whole: give the last layer's tokens too. Of that layer others see only keys and values, and the rest of it is
        work for nothing.
        """
        x = working(x).unsqueeze(1)  # (B, 1, M, D)
        timed = self.clean() if clean is None else clean
        layers = []
        for i, block in enumerate(self.blocks):
            m = timed.modulation(i, None)
            if whole or i + 1 < len(self.blocks):
                x, (k, v) = self._run(block, usage, x, m, timed.route(i), rotary=rotary)
            else:
                k, v = block.keys_values(x, m, rotary)  # type: ignore[operator]
            layers.append((k.squeeze(2), v.squeeze(2)))
        return Context(layers, x.squeeze(1) if whole else None)

    def condition(self, conditions: Mapping[str, Tensor]) -> Context:
        """Keys and values for the cross-attention of every layer, from conditions (B, M, D) by name."""
        names = self.config.cross
        layers = []
        for i, block in enumerate(self.blocks):
            cross = block.cross
            assert isinstance(cross, CrossAttention)
            layers.append(cross.keys_values(working(conditions[names[i % len(names)]])))
        return Context(layers)

    def denoise(
        self,
        x: Tensor,
        timed: Timed,
        context: Context,
        *,
        selector: Tensor | None = None,
        rotary: Tensor | None = None,
        mask: Tensor | None = None,
        usage: list[Usage] | None = None,
    ) -> Tensor:
        """Run the tokens of N draws, x (B, N, L, D), through all layers.

        timed: of the G distinct times (B or 1, N, G); selector (B or 1, N, L, G), one-hot, says which of them each
        token has (None: all have the only one). mask: broadcastable to (B, 1, N, L, M + L).
        """
        x = working(x)
        where = {"selector": selector, "rotary": rotary, "mask": mask}
        for i, block in enumerate(self.blocks):
            m = timed.modulation(i, selector)
            seen = context.layers[i] if context.layers else None
            x, _ = self._run(block, usage, x, m, timed.route(i), context=seen, **where)
        return x

    def _run(
        self, block: nn.Module, usage: list[Usage] | None, *stream: Any, **where: Any
    ) -> tuple[Tensor, KeysValues]:
        """A block, and how its experts were used noted in `usage`."""
        if self.recompute and torch.is_grad_enabled():
            x, own, used = checkpoint(block, *stream, use_reentrant=False, **where)
        else:
            x, own, used = block(*stream, **where)
        if usage is not None and used is not None:
            usage.append(used)
        return x, own

    def finish(self, x: Tensor, rows: Tensor, selector: Tensor | None, kind: int = 0) -> Tensor:
        """The final norm of tokens x of one kind (B, N, L, D), modulated, ready for their head."""
        first = 6 * self.config.depth + 2 * kind
        shift, scale = spread(rows[..., first : first + 2, :], selector)
        return modulate(self.final_norm, x.float(), shift, 1 + scale)
