"""Who goes through which experts: by the noise and by the kind of token, as numbers and as a picture."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.whole import whole
from .diffusion.config import Process
from .diffusion.times import TIMES
from .loss import Lesson, segment_losses
from .nn.experts import Experts
from .policy import Policy
from .prepared import prepare
from .segments import roles_of
from .validate import told

LEVELS = 16
"""Times at which usage is looked at: equally likely ones in training."""
OBSERVED = "observed"


@dataclass(frozen=True)
class ExpertUsage:
    """times (T,), and for each kind of token the share of its ways through each expert, (T, layers, E); sums to 1."""

    times: list[float]
    shares: dict[str, Tensor]

    @property
    def numbers(self) -> dict[str, float]:
        """max_load: the most that an expert of a layer has, over the mean · by_noise, by_kind: mutual information of
        the expert and the time, and of it and the kind of token [bit], mean over layers.
        """
        moving = torch.stack([share for kind, share in self.shares.items() if kind != OBSERVED])
        load = moving.mean((0, 1))
        kinds = torch.stack(list(self.shares.values())).mean(1)
        return {
            "max_load": float(load.max() * load.shape[-1]),
            "by_noise": float(_information(moving.mean(0))),
            "by_kind": float(_information(kinds)),
        }

    def draw(self, path: Path) -> None:
        """A PNG: a row for each kind of token, a column for each layer, the noise to the right."""
        from matplotlib.figure import Figure

        layers = next(iter(self.shares.values())).shape[1]
        figure = Figure(figsize=(1.5 + 1.7 * layers, 0.7 + 1.6 * len(self.shares)), layout="constrained")
        grid = figure.subplots(len(self.shares), layers, squeeze=False, sharex=True, sharey=True)
        for row, (kind, share) in zip(grid, self.shares.items(), strict=True):
            for layer, axes in enumerate(row):
                axes.stackplot(range(len(self.times)), *share[:, layer].T.tolist())
                axes.set(ylim=(0, 1), xlim=(0, len(self.times) - 1), yticks=[], title=f"layer {layer + 1}")
                axes.set_xticks([0, len(self.times) - 1], [f"{self.times[0]:.2g}", f"{self.times[-1]:.2g}"])
            row[0].set_ylabel(kind)
        figure.supxlabel("noise, time 0 to 1")
        with whole(path) as draft:
            figure.savefig(draft, format="png", dpi=110)


def expert_usage(policy: Policy, batch: Batch) -> ExpertUsage:
    """How a batch of the policy's training data goes through its experts, at equally likely times."""
    model, generator = policy.model, torch.Generator(policy.device).manual_seed(0)
    process = next(iter(model.processes.values()))
    quantiles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    times = TIMES[process.times](quantiles, **process.times_settings).float().tolist()
    names = list(roles_of(policy.config.acting, model.segments))
    shares: dict[str, list[Tensor]] = {}  # of each kind and time, (layers, E)
    with torch.inference_mode():
        with _ways(model) as seen:
            _, prepared = prepare(model, policy.transforms, *told(policy, batch), generator, whole=True)
        if seen:
            shares[OBSERVED] = [torch.stack(seen).mean(1)] * LEVELS  # a context is encoded once, at time 0
        for t in times:
            with _ways(model) as seen:
                segment_losses(model, prepared, {policy.config.acting: 1}, generator, lesson=_At(t))
            tokens = torch.stack(seen)  # (layers, L, E)
            lengths = [policy.transforms.shapes[name].tokens for name in names]
            lead, *parts = tokens.split([tokens.shape[1] - sum(lengths), *lengths], dim=1)
            for kind, part in zip([OBSERVED, *names], [lead, *parts], strict=True):
                if part.shape[1]:
                    shares.setdefault(kind, []).append(part.mean(1))
    stacked = {kind: torch.stack(values) for kind, values in shares.items()}
    # experts that choose leave some tokens without a way
    return ExpertUsage(
        times, {kind: share / share.sum(-1, keepdim=True).clamp(min=1e-9) for kind, share in stacked.items()}
    )


class _At(Lesson):
    """To denoise, at one time."""

    def __init__(self, t: float):
        self.t = t

    def times(self, process: Process, size: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
        return torch.full(size, self.t, device=device)


@contextlib.contextmanager
def _ways(model: nn.Module) -> Iterator[list[Tensor]]:
    """The share of each token's ways through each expert (L, E), mean over samples, of every layer that runs within."""
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple, _: object) -> None:
        assert isinstance(module, Experts)
        seen.append(module.ways(*inputs[:3]).flatten(0, 1).mean(0))

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, Experts)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _information(shares: Tensor) -> Tensor:
    """Mutual information [bit] of what is along the first axis (equally likely) and the expert, mean over layers."""
    mean = shares.mean(0)
    return (torch.xlogy(shares, shares) - torch.xlogy(shares, mean)).sum(-1).mean() / torch.log(torch.tensor(2.0))
