"""One loss for every query: noise what is denoised, predict, compare where it counts, one number for each segment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..data.batch import Batch
from .denoiser import Denoiser, Encoding
from .diffusion.config import Process
from .diffusion.path import PATHS, estimate, target
from .diffusion.times import sample_times
from .diffusion.variance import bound
from .known import KNOWN, known
from .model import Model
from .nn.backbone import Context
from .nn.balance import expert_losses
from .nn.routing import Usage
from .observation import Observation
from .prepared import Prepared, prepare
from .segments import Role, Segment, assume, learned, role_of
from .transforms import Transforms


@dataclass(frozen=True)
class Drawn:
    """A segment of one forward pass: its clean values and its noise (B, N, L, C), and what the network sees of them."""

    x0: Tensor
    eps: Tensor
    seen: Segment


class Lesson:
    """What is drawn and what should be predicted: data from noise. `distill.Consistency` teaches something else."""

    def times(self, process: Process, size: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
        """Times of noise draws, of that size (B, N)."""
        return sample_times(process.times, size, generator, device, stratified=False, **process.times_settings)

    def wanted(self, model: Denoiser, drawn: Mapping[str, Drawn], names: Sequence[str]) -> dict[str, Tensor]:
        """What the network should predict (B, N, L, C) for these of the segments that are drawn together."""
        found = {}
        for name in names:
            process, one = model.processes[name], drawn[name]
            found[name] = target(process.target, PATHS[process.path], one.x0, one.eps, one.seen.t)
        return found


Teach = Callable[[Observation, Encoding], Lesson]
"""The lesson of a batch, from what is observed and the network's encoding of it."""


@dataclass(frozen=True)
class Losses:
    """Total to minimise, and its unweighted parts by name."""

    total: Tensor
    parts: dict[str, Tensor]


class Alignment(nn.Module):
    """Training only: the last layer's image tokens should tell the simulator's state.

    Each frame's are read as their mean and the last of them (the one that knows the whole frame, if any). A privileged
    target in the place of REPA's frozen features (Yu et al. 2025, eq. 4): it shapes the observation trunk and is not a
    part of the policy, and no privileged value reaches a policy input.
    """

    def __init__(self, width: int, frames: int, privileged: int):
        super().__init__()
        self.frames = frames
        self.norm = nn.LayerNorm(width)
        self.read = nn.Sequential(nn.Linear(2 * frames * width, width), nn.SiLU(), nn.Linear(width, privileged))

    def forward(self, context: Context, image_tokens: int, privileged: Tensor) -> Tensor:
        """Mean squared error to the normalised state (B, P)."""
        assert context.tokens is not None
        tokens = self.norm(context.tokens[:, :image_tokens].float())
        frames = rearrange(tokens, "b (f l) d -> b f l d", f=self.frames)
        told = self.read(torch.cat([frames.mean(dim=2), frames[:, :, -1]], dim=-1).flatten(1))
        return (told.float() - privileged).square().mean()


def objective(
    model: Model,
    transforms: Transforms,
    sources: Sequence[tuple[Batch, Tensor]],
    generator: torch.Generator,
    *,
    alignment: Mapping[str, Alignment] | None = None,
    align_weight: float = 0.0,
    image_shift: int = 0,
    state_noise: float | Sequence[float] = 0.0,
    source_weights: Sequence[float] | None = None,
    step: int = 0,
    teach: Teach | None = None,
) -> Losses:
    """The training loss of a batch. All randomness comes from `generator`, so a step can be repeated exactly.

    sources: batches with their instructions. The samples of one all have the same modalities (robot or video alone), so
    what is absent is left out of the sequence and of the loss. A segment's loss is the mean over the samples that have
    it, so those that lack it change none of its gradient; the total counts those of a source by its weight. Where there
    are several robots the parts also tell each one's, as 'action/ROBOT'. alignment: of each robot that has one.
    state_noise: of all sources, or of each. source_weights: 1 each by default. step: the update, for weights that rise.
    teach: another lesson than to denoise.
    """
    config = model.config
    usage: list[Usage] = []
    plain, weighted = _Means(), _Means()
    noises = [state_noise] * len(sources) if isinstance(state_noise, int | float) else state_noise
    says = source_weights or [1.0] * len(sources)
    for (batch, sentence), noise, say in zip(sources, noises, says, strict=True):
        own = transforms.on(batch.robot or transforms.embodiment.name)
        told = (alignment or {}).get(own.embodiment.name) if batch.privileged is not None else None
        observation, prepared = prepare(
            model, own, batch, sentence, generator, image_shift, noise, usage, told is not None
        )
        lesson = Lesson() if teach is None else teach(observation, prepared.encoding)
        shared = config.times == "shared"
        parts = segment_losses(model, prepared, config.draws, generator, shared_time=shared, lesson=lesson, usage=usage)
        if told is not None and batch.privileged is not None:
            goal = own.normalizers["privileged"].normalise(batch.privileged)
            parts["align"] = told(prepared.encoding.context, model.image_tokens(observation.views), goal)
        apart = {f"{name}/{own.embodiment.name}": value for name, value in parts.items()} if transforms.robots else {}
        plain.add(parts | apart, len(batch))
        weighted.add(parts, len(batch) * say)
    found, counted = plain.values(), weighted.values()
    weights = {n: align_weight if n == "align" else config.process(n).weight_at(step) for n in counted}
    for name, (weight, value) in expert_losses(model.backbone, usage).items() if usage else ():
        found[name] = counted[name] = value
        weights[name] = weight
    total = torch.stack([weight * counted[name] for name, weight in weights.items()]).sum()
    return Losses(total, {name: value.detach() for name, value in found.items()})


class _Means:
    """Weighted means of numbers by name."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor], weight: float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + weight * value
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def values(self) -> dict[str, Tensor]:
        return {name: value / self._weights[name] for name, value in self._sums.items()}


def segment_losses(
    model: Denoiser,
    prepared: Prepared,
    draws: Mapping[str, float],
    generator: torch.Generator,
    *,
    shared_time: bool = False,
    lesson: Lesson | None = None,
    usage: list[Usage] | None = None,
) -> dict[str, Tensor]:
    """The loss of each segment that is there, a mean over all noise draws of the queries {query: draws} that learn it.

    shared_time: one time for all segments of a draw · lesson: to denoise, by default · usage: gets how experts were
    used.
    """
    sums: dict[str, list[Tensor]] = {}
    for query, count in draws.items():
        if any(learned(query, name) for name in prepared.targets):
            part = prepared.part(count)
            drawn = _draw(model, query, max(1, int(count)), part, generator, lesson or Lesson(), shared_time)
            how = _query_loss(model, query, drawn, part, lesson or Lesson(), generator, usage)
            for name, value in how.items():
                sums.setdefault(name, []).append(value * count)
    trained = {name: sum(n for query, n in draws.items() if learned(query, name)) for name in sums}
    return {name: torch.stack(values).sum() / trained[name] for name, values in sums.items()}


def _draw(
    model: Denoiser,
    query: str,
    draws: int,
    prepared: Prepared,
    generator: torch.Generator,
    lesson: Lesson,
    shared_time: bool,
) -> dict[str, Drawn]:
    """The segments that take part in a query, in their roles, with `draws` noise draws each."""
    drawn: dict[str, Drawn] = {}
    shared = None
    for name, values in prepared.values(query).items():
        role = role_of(query, name)
        if role == Role.ABSENT:
            continue
        process, shape = model.processes[name], model.segments[name]
        x0 = values.unsqueeze(1).expand(-1, draws, -1, -1)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        t = lesson.times(process, x0.shape[:2], generator, x0.device) if shared is None else shared
        shared = t if shared_time else None
        clean = known(role, shape.holding(x0.shape[2]), x0.shape[:2], generator) if role in KNOWN else None
        drawn[name] = Drawn(x0, eps, assume(role, x0, eps, t, PATHS[process.path], clean))
    return drawn


def _query_loss(
    model: Denoiser,
    query: str,
    drawn: Mapping[str, Drawn],
    prepared: Prepared,
    lesson: Lesson,
    generator: torch.Generator,
    usage: list[Usage] | None,
) -> dict[str, Tensor]:
    """Mean squared error of each denoised segment of one query."""
    wanted = lesson.wanted(model, drawn, [name for name in drawn if learned(query, name)])
    segments = {name: one.seen for name, one in drawn.items()}
    draws = generator if model.training else None  # else the most likely experts
    predictions = model.denoise(segments, prepared.encoding, generator=draws, usage=usage)
    losses = {}
    for name, value in wanted.items():
        one = drawn[name]
        error = _error(model.processes[name], predictions[name].float(), one.x0, value, one.seen)
        losses[name] = _masked_mean(error, prepared.keep[name], one.seen)
    return losses


def _error(process: Process, prediction: Tensor, x0: Tensor, wanted: Tensor, segment: Segment) -> Tensor:
    """Squared error of every number (B, N, L, C), and where the variance is learned the bound that teaches it."""
    if process.variance == "fixed":
        return F.mse_loss(prediction, wanted, reduction="none")
    path, (prediction, raw) = PATHS[process.path], prediction.chunk(2, dim=-1)
    found, _ = estimate(process.target, path, segment.x, prediction, segment.t)
    return F.mse_loss(prediction, wanted, reduction="none") + bound(path, x0, found, raw, segment.t)


def _masked_mean(error: Tensor, keep: Tensor, segment: Segment) -> Tensor:
    """Mean over what is neither padding (keep (B, L, 1 or C)) nor observed."""
    mask = keep.unsqueeze(1)
    if segment.clean is not None:
        mask = mask & ~segment.clean[..., None]
    if mask.shape[-1] == 1:  # first the mean over channels, which a mask on all of them would only slow
        error = error.mean(dim=-1, keepdim=True)
    mask = mask.expand(error.shape)
    return (error * mask).sum() / mask.sum().clamp(min=1)
