"""Feed-forward layers: one for all tokens, or several experts of which each token passes through a few.

Who chooses is data (`ExpertsConfig.router`):

| router          | looks at   | chooses                                           | from                              |
|-----------------|------------|---------------------------------------------------|-----------------------------------|
| `time`          | the noise  | the same experts for all tokens of one time       | MoDE, Switch-DiT                  |
| `split`         | the noise  | expert floor(t E): nothing is learned             | PanGu-Draw (Lu et al. 2023)       |
| `token`         | each token | experts for each token                            | DiT-MoE (Fei et al. 2024)         |
| `expert_choice` | each token | each expert its share of the tokens of a sequence | micro-budget (Sehwag et al. 2024) |

What is chosen by time alone is known before a solver's step begins, so the chosen experts can be joined into one dense
layer, exactly: hidden units lie side by side, each expert's scaled with its weight (`fused.Fused`).
Letters: B batch, N noise draws, L tokens, D width, H hidden, E experts, k chosen, G distinct times.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import BackboneConfig
from .fused import Fused, Route, through
from .linear import Linear, working
from .routing import Choice, Usage, Ways, by_expert, most_likely, taken, usage_of


def _relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "relu2": _relu_squared, "swiglu": _swiglu}
"""Activations by name; `swiglu` takes two numbers for each hidden unit (Shazeer 2020)."""


class FeedForward(nn.Module):
    """Up, activation, down: the layer of all tokens. hidden: units, default those of the config."""

    def __init__(self, config: BackboneConfig, hidden: int | None = None):
        super().__init__()
        hidden = _hidden(config) if hidden is None else hidden
        self.up, self.down = Linear(config.width, _doubled(hidden, config)), Linear(hidden, config.width)
        self.activation, self.dropout = ACTIVATIONS[config.activation], config.mlp_dropout

    def forward(self, x: Tensor, *_: object) -> tuple[Tensor, None]:
        return self.run(x), None

    def run(self, x: Tensor) -> Tensor:
        """x (..., D) → (..., D)."""
        hidden = self.activation(self.up(x))
        return self.down(F.dropout(hidden, self.dropout) if self.dropout and self.training else hidden)


class Stacked(nn.Module):
    """A linear map for each expert: weight (E, out, in), bias (E, out)."""

    def __init__(self, number: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(number, outputs))
        bound = inputs**-0.5  # as nn.Linear begins
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, ends: Tensor, expert: Tensor) -> Tensor:
        """x (R, in), sorted by expert; ends (E,) int32: where each one's rows end; expert (R,): whose a row is."""
        if x.device.type == "cpu":  # where one product an expert is a fifth faster than PyTorch's grouped one
            parts = zip(torch.tensor_split(x, ends[:-1].tolist()), self.weight, self.bias, strict=True)
            return torch.cat([F.linear(part, weight, bias) for part, weight, bias in parts])
        weight = self.weight.to(x.dtype).transpose(-2, -1)
        found = torch._grouped_mm(x, weight, offs=ends)  # pyright: ignore[reportPrivateImportUsage]
        return found + self.bias.to(x.dtype)[expert]


class Experts(nn.Module):
    """E feed-forward layers, of which each token passes through a few. See `config.ExpertsConfig`."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        assert config.experts is not None
        self.config, self.hidden, self.gated = config.experts, _hidden(config), config.activation == "swiglu"
        number = self.config.number
        self.up = Stacked(number, config.width, _doubled(self.hidden, config))
        self.down = Stacked(number, self.hidden, config.width)
        self.shared = FeedForward(config, self.config.shared * self.hidden) if self.config.shared else None
        self.router = None if self.config.by_time else nn.Linear(config.width, number, bias=False)
        self.activation, self.dropout = ACTIVATIONS[config.activation], config.mlp_dropout

    def forward(
        self, x: Tensor, route: Route | None = None, selector: Tensor | None = None
    ) -> tuple[Tensor, Usage | None]:
        """x (B, N, L, D) → the same, and how experts were used where tokens decide.

        route: where time decides. selector (B or 1, N, L, G), one-hot: which of its distinct times each token has, None
        where all have the only one.
        """
        x = working(x)
        if route is not None and route.fused:
            return through(route.fused, x, selector), None
        if route is not None and route.choice.experts.shape[:2] == (1, 1):
            return self._by_times(x, route.choice, selector), None
        if route is not None:
            ways, usage = by_expert(_of_tokens(route.choice, selector, x)), None
        else:
            ways, usage = self._chosen_by_tokens(x)
        out = self._dispatched(x.flatten(0, 2), *ways).view_as(x)
        return out if self.shared is None else out + self.shared.run(x), usage

    def _dispatched(self, tokens: Tensor, row: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
        """Tokens (T, D) through their experts, whose rows lie together, and summed with their weights."""
        ends = torch.bincount(expert, minlength=self.config.number).cumsum(0).to(torch.int32)
        hidden = F.dropout(self.activation(self.up(tokens[row], ends, expert)), self.dropout, self.training)
        found = self.down(hidden, ends, expert)
        return found.new_zeros(tokens.shape).index_add(0, row, found * weight[:, None].to(found.dtype))

    @property
    def idle(self) -> int:
        """Parameters of the experts that a token does not pass through."""
        own = sum(p.numel() for stack in (self.up, self.down) for p in stack.parameters())
        return own * (self.config.number - self.config.chosen) // self.config.number

    def _by_times(self, x: Tensor, choice: Choice, selector: Tensor | None) -> Tensor:
        """All samples alike, (1, 1, G, k) in all: no dispatch, and shapes that exporters know."""
        ways = [
            self._alike(x, experts, weights)
            for experts, weights in zip(choice.experts[0, 0], choice.weights[0, 0], strict=True)
        ]
        out = ways[0] if selector is None else sum(selector[..., g, None] * way for g, way in enumerate(ways))
        assert isinstance(out, Tensor)
        out = out.to(x.dtype)
        return out if self.shared is None else out + self.shared.run(x)

    def _alike(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """All tokens through the same experts (k,)."""
        up, down = (
            (stack.weight[experts].to(x.dtype), stack.bias[experts].to(x.dtype)) for stack in (self.up, self.down)
        )
        hidden = self.activation(x.flatten(0, 2) @ up[0].mT + up[1][:, None])  # (k, B N L, H)
        found = F.dropout(hidden, self.dropout, self.training) @ down[0].mT + down[1][:, None]
        return (found * weights[:, None, None].to(found.dtype)).sum(0).view_as(x)

    def _chosen_by_tokens(self, x: Tensor) -> tuple[Ways, Usage]:
        assert self.router is not None
        config, logits = self.config, self.router(x).float()
        probabilities = logits.softmax(-1)
        if config.router == "token":
            ways = by_expert(most_likely(probabilities.flatten(0, 2), config))
        else:
            ways = taken(probabilities, config)
        return ways, usage_of(probabilities, ways[1], logits)

    def ways(self, x: Tensor, route: Route | None = None, selector: Tensor | None = None) -> Tensor:
        """The share of each token's ways that goes through each expert, (B, N, L, E)."""
        by_time = route is not None
        row, expert, _ = by_expert(_of_tokens(route.choice, selector, x)) if by_time else self._chosen_by_tokens(x)[0]
        count = x.new_zeros(x[..., 0].numel(), self.config.number)
        share = count.index_put((row, expert), x.new_ones(()), accumulate=True) / self.config.chosen
        return share.view(*x.shape[:3], -1)

    def fuse(self, experts: Sequence[int]) -> Fused:
        """These experts, and the shared ones, as one dense layer."""
        shared = [] if self.shared is None else [(self.shared.up.weight, self.shared.up.bias, self.shared.down.weight)]
        parts = [*shared, *((self.up.weight[e], self.up.bias[e], self.down.weight[e]) for e in experts)]
        ups, biases, downs = zip(*parts, strict=True)
        base = None if self.shared is None else self.shared.down.bias
        return Fused(
            _joined(ups, gated=self.gated), _joined(biases, gated=self.gated), torch.cat(downs, dim=1),
            self.down.bias[list(experts)], base, self.hidden, self.activation,
        )  # fmt: skip


def _hidden(config: BackboneConfig) -> int:
    return int(config.width * config.mlp_ratio)


def _doubled(hidden: int, config: BackboneConfig) -> int:
    return 2 * hidden if config.activation == "swiglu" else hidden


def _of_tokens(choice: Choice, selector: Tensor | None, x: Tensor) -> Choice:
    """The choice of every token of x (B, N, L, D), flat: (B N L, k)."""
    if selector is not None:
        which = selector.argmax(-1)[..., None].expand(*x.shape[:3], choice.experts.shape[-1])
        choice = Choice(*(c.expand(*x.shape[:2], -1, -1).gather(2, which) for c in choice))
    return Choice(*(c.expand(*x.shape[:3], -1).flatten(0, 2) for c in choice))


def _joined(parts: Sequence[Tensor], *, gated: bool) -> Tensor:
    """Rows of the up-projections of several experts; where gated, all gates and then all values."""
    if not gated:
        return torch.cat(list(parts))
    gates, values = zip(*(part.chunk(2) for part in parts), strict=True)
    return torch.cat([*gates, *values])


class Bank:
    """Fused layers by layer and set of experts: equal sets share one, whatever their weights."""

    def __init__(self):
        self._kept: dict[tuple[int, ...], Fused] = {}

    def route(self, layer: int, experts: Experts, choice: Choice) -> Route:
        """A route (one sample's, G times) with its layers fused."""
        fused = []
        for chosen, weights in zip(choice.experts.flatten(0, -2), choice.weights.flatten(0, -2), strict=True):
            order = chosen.argsort()
            key = (layer, *chosen[order].tolist())
            if key not in self._kept:
                self._kept[key] = experts.fuse(key[1:])
            fused.append((self._kept[key], *self._kept[key].scaled(weights[order])))
        return Route(choice, fused)
