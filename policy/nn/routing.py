"""Who goes through which experts: by the time alone, by each token, or as experts choose (`experts` has the table)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import BackboneConfig, ExpertsConfig
from .linear import Linear


class Choice(NamedTuple):
    """Experts (..., k) int64 and their weights (..., k)."""

    experts: Tensor
    weights: Tensor


class Usage(NamedTuple):
    """How one layer was used, for losses and logs: mean probability and load of each expert (E,), and the mean square
    of log Σ exp of the router's logits. Loads sum to 1."""

    probability: Tensor
    load: Tensor
    z: Tensor


Ways = tuple[Tensor, Tensor, Tensor]
"""Rows, experts and weights (R,) of all ways of tokens through experts, sorted by expert."""


class TimeRouter(nn.Module):
    """The choice of every layer from the embedded time alone: a two-layer MLP each (MoDE, §3.2)."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        assert config.experts is not None
        self.config, self.depth, d = config.experts, config.depth, config.width
        self.layers = nn.ModuleList(
            nn.Sequential(Linear(d, d), nn.SiLU(), Linear(d, self.config.number))
            for _ in range(self.depth if self.config.router == "time" else 0)
        )

    def forward(
        self,
        t: Tensor,
        embedded: Tensor,
        generator: torch.Generator | None = None,
        usage: list[Usage] | None = None,
    ) -> list[Choice]:
        """The choice (..., k) of each layer for times t (...) and their embeddings (..., D).

        generator: draw by probability (Gumbel-top-k, Kool et al. 2019), for training. usage: gets each layer's.
        """
        config = self.config
        if config.router == "split":
            expert = (t * config.number).long().clamp(0, config.number - 1)[..., None]
            return [Choice(expert, torch.ones_like(t)[..., None])] * self.depth
        found = []
        for logits in self.logits(embedded):
            score, probabilities = None, logits.softmax(-1)
            if config.sampled and generator is not None:
                u = torch.rand(logits.shape, generator=generator, device=logits.device)
                score = logits - u.clamp(min=1e-20).log().neg().log()
            found.append(most_likely(probabilities, config, score))
            if usage is not None:
                # balanced is what acting takes: draws are nearly even where probabilities are, its choice need not be
                usage.append(usage_of(probabilities, most_likely(probabilities, config).experts, logits))
        return found

    def logits(self, embedded: Tensor) -> list[Tensor]:
        """Of each layer, for embedded times (..., D): (..., E)."""
        return [layer(embedded).float() for layer in self.layers]


def most_likely(probabilities: Tensor, config: ExpertsConfig, score: Tensor | None = None) -> Choice:
    """The k experts of the highest score, by default their probability (..., E)."""
    experts = (probabilities if score is None else score).topk(config.chosen, dim=-1).indices
    weights = probabilities.gather(-1, experts)
    return Choice(experts, weights / weights.sum(-1, keepdim=True) if config.renormalise else weights)


def taken(probabilities: Tensor, config: ExpertsConfig) -> Ways:
    """Each expert takes the tokens of a sequence (B, N, L, E) that want it most, k/E of them (Zhou et al. 2022)."""
    length = probabilities.shape[2]
    each = max(1, round(length * config.chosen / config.number))
    weight, token = probabilities.flatten(0, 1).topk(each, dim=1)  # (B N, each, E)
    first = length * torch.arange(len(token), device=token.device)[:, None, None]
    row, expert = token + first, torch.arange(config.number, device=token.device).expand_as(token)
    return tuple(values.permute(2, 0, 1).flatten() for values in (row, expert, weight))  # type: ignore[return-value]


def by_expert(choice: Choice) -> Ways:
    """Choices (T, k) as rows, experts and weights (T k,), sorted by expert, so that each one's tokens lie together."""
    k = choice.experts.shape[-1]
    order = choice.experts.flatten().argsort(stable=True)
    return order // k, choice.experts.flatten()[order], choice.weights.flatten()[order]


def usage_of(probabilities: Tensor, expert: Tensor, logits: Tensor) -> Usage:
    """How experts were used: probabilities (..., E) and logits (..., E) of all tokens, and their chosen experts."""
    number = probabilities.shape[-1]
    load = torch.bincount(expert.flatten(), minlength=number) / expert.numel()
    return Usage(probabilities.flatten(0, -2).mean(0), load, logits.logsumexp(-1).square().mean())
