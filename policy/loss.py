"""One loss for every query: noise what is denoised, predict, compare where it counts, one number for each segment."""

import math
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn

from ..data.batch import Batch
from .config import ModelConfig
from .diffusion.path import PATHS, target
from .diffusion.times import sample_times
from .model import Model
from .nn.backbone import Context
from .segments import QUERIES, Role, Segment, assume, learned
from .transforms import Transforms


@dataclass(frozen=True)
class Encoded:
    """A batch after the observation trunk, ready for any number of noise draws.

    now (B, V, H, W, 3): the present frames · targets {segment: (B, L, C)}: clean values · keep {segment: (B, L)}:
    tokens that lie inside their episode.
    """

    context: Context
    now: Tensor
    targets: dict[str, Tensor]
    keep: dict[str, Tensor]

    def part(self, share: float) -> "Encoded":
        """The first rows that make up that share of the batch, all of it from 1 on."""
        if share >= 1:
            return self
        rows = slice(math.ceil(len(self.now) * share))
        targets, keep = ({k: v[rows] for k, v in d.items()} for d in (self.targets, self.keep))
        return Encoded(self.context[rows], self.now[rows], targets, keep)


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
        tokens = self.norm(context.tokens[:, :image_tokens].float())
        frames = rearrange(tokens, "b (f l) d -> b f l d", f=self.frames)
        told = self.read(torch.cat([frames.mean(dim=2), frames[:, :, -1]], dim=-1).flatten(1))
        return (told.float() - privileged).square().mean()


def objective(
    model: Model,
    transforms: Transforms,
    batch: Batch,
    sentence: Tensor,
    generator: torch.Generator,
    *,
    alignment: Alignment | None = None,
    align_weight: float = 0.0,
    image_shift: int = 0,
    state_noise: float = 0.0,
) -> Losses:
    """The training loss of one batch. All randomness comes from `generator`, so a step can be repeated exactly."""
    config = model.config
    offset = _offsets(len(batch), image_shift, generator, batch.state.device)
    observation = transforms.observation(batch, sentence, offset)
    if state_noise:
        noise = torch.randn(observation.state.shape, generator=generator, device=observation.state.device)
        observation = replace(observation, state=observation.state + state_noise * noise)
    now = observation.images[:, :, -1]
    targets = transforms.targets(batch, now, offset)
    encoded = Encoded(model.encode(observation), now, targets, _kept(batch, targets, config))
    sums: dict[str, list[Tensor]] = {}
    for query, draws in config.draws.items():
        found = _query_loss(model, transforms, query, max(1, int(draws)), encoded.part(draws), generator)
        for name, value in found.items():
            sums.setdefault(name, []).append(value * draws)
    parts = {name: torch.stack(values).sum() / _draws_of(name, config) for name, values in sums.items()}
    total = torch.stack([config.process(name).weight * value for name, value in parts.items()]).sum()
    if alignment is not None and batch.privileged is not None:
        goal = transforms.normalizers["privileged"].normalise(batch.privileged)
        parts["align"] = alignment(encoded.context, model.image_tokens(), goal)
        total = total + align_weight * parts["align"]
    return Losses(total, {name: value.detach() for name, value in parts.items()})


def _query_loss(
    model: Model, transforms: Transforms, query: str, draws: int, encoded: Encoded, generator: torch.Generator
) -> dict[str, Tensor]:
    """Mean squared error of each denoised segment of one query, over `draws` noise draws."""
    config = model.config
    segments, wanted = {}, {}
    for name, role in QUERIES[query].items():
        if role == Role.ABSENT or name not in encoded.targets:
            continue
        process = config.process(name)
        x0 = encoded.targets[name].unsqueeze(1).expand(-1, draws, -1, -1)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        t = sample_times(process.times, x0.shape[:2], generator, x0.device, stratified=False, **process.times_settings)
        clean = _prefix(x0.shape[:3], generator, x0.device) if role == Role.CONTINUE else None
        path = PATHS[process.path]
        segments[name] = assume(role, x0, eps, t, path, clean)
        if learned(query, name):
            wanted[name] = target(process.target, path, x0, eps, t)
    stacked = transforms.beside_future(encoded.now) if "future" in segments and config.stack_now else None
    predictions = model.denoise(segments, encoded.context, stacked)
    return {
        name: _masked_mse(predictions[name].float(), value, encoded.keep[name], segments[name])
        for name, value in wanted.items()
    }


def _masked_mse(prediction: Tensor, wanted: Tensor, keep: Tensor, segment: Segment) -> Tensor:
    """Mean over tokens that are neither padding (keep (B, L)) nor observed."""
    mask = keep.unsqueeze(1).expand(prediction.shape[:3])
    if segment.clean is not None:
        mask = mask & ~segment.clean
    error = (prediction - wanted).square().mean(dim=-1)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def _prefix(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """The first 1 to L/2 tokens of each draw: (B, N, L) bool."""
    b, n, k = shape
    length = torch.randint(1, max(1, k // 2) + 1, (b, n, 1), generator=generator, device=device)
    return torch.arange(k, device=device) < length


def _kept(batch: Batch, targets: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Tokens (B, L) that lie inside their episode."""
    keep = {"action": ~batch.action_pad}
    if "future" in targets:
        assert batch.future_pad is not None
        per_frame = targets["future"].shape[1] // len(config.future)
        keep["future"] = ~batch.future_pad.repeat_interleave(per_frame, dim=1)
    return keep


def _offsets(size: int, most: int, generator: torch.Generator, device: torch.device) -> Tensor | None:
    """One random shift of up to `most` pixels for each sample; its present and future frames move together."""
    if most == 0:
        return None
    return torch.randint(-most, most + 1, (size, 2), generator=generator, device=device)


def _draws_of(segment: str, config: ModelConfig) -> float:
    return sum(n for query, n in config.draws.items() if learned(query, segment))
