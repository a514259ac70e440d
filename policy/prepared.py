"""A batch on its way into the network: augmented, normalised and encoded, ready for any number of noise draws."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.batch import Batch
from . import supervision
from .denoiser import Encoding
from .model import Model
from .nn.routing import Usage
from .observation import Observation
from .segments import DYNAMICS
from .transforms import Transforms


@dataclass(frozen=True)
class Prepared:
    """A batch after the observation trunk, ready for any number of noise draws.

    targets {segment: (B, L, C)}: clean values · keep {segment: (B, L, 1 or C)}: what lies inside its episode · executed
    (B, L, C): what takes the place of the actions in queries about dynamics.
    """

    encoding: Encoding
    targets: dict[str, Tensor]
    keep: dict[str, Tensor]
    executed: Tensor | None = None

    def values(self, query: str) -> dict[str, Tensor]:
        """Clean values of each segment in a query."""
        told = {"action": self.executed} if query in DYNAMICS and self.executed is not None else {}
        return self.targets | told

    def part(self, share: float) -> "Prepared":
        """The first rows that make up that share of the batch, all of it from 1 on."""
        if share >= 1:
            return self
        rows = slice(math.ceil(len(next(iter(self.targets.values()))) * share))
        targets, keep = ({k: v[rows] for k, v in d.items()} for d in (self.targets, self.keep))
        executed = None if self.executed is None else self.executed[rows]
        return Prepared(self.encoding[rows], targets, keep, executed)


def prepare(
    model: Model,
    transforms: Transforms,
    batch: Batch,
    sentence: Tensor,
    generator: torch.Generator,
    image_shift: int = 0,
    state_noise: float = 0.0,
    usage: list[Usage] | None = None,
    whole: bool = False,
) -> tuple[Observation, Prepared]:
    """Augment, normalise and encode one batch. All randomness comes from `generator`.

    sentence (B,) or (B, 384): its instructions, as `Observation` has them · image_shift: pixels by which a sample's
    frames move together at the most · state_noise: standard deviation of what is added to the normalised state · usage:
    gets how experts were used · whole: as `Backbone.encode` takes it.
    """
    offset = _offsets(len(batch), image_shift, generator, batch.task.device)
    noise = None
    if state_noise and batch.state is not None:
        size = (*batch.state.shape[:-1], transforms.normalizers["state"].size)
        noise = state_noise * torch.randn(size, generator=generator, device=batch.state.device)
    seen = transforms.seen(batch.images, batch.depth, offset)
    observation = transforms.observe(seen, supervision.present(transforms, batch, seen), batch.state, sentence, noise)
    told = None
    if model.training and model.config.goal_dropout:
        told = torch.rand(len(batch), generator=generator, device=batch.task.device) >= model.config.goal_dropout
    observation = replace(observation, views=transforms.views(batch.images), told=told)
    if model.training and model.config.modality_dropout:
        observation = _forget(observation, model.config.modality_dropout, generator, shared=bool(transforms.lies))
    targets = supervision.targets(transforms, batch, observation.now, offset)
    done = None if transforms.config.poses else batch.action_executed  # poses are what came of it
    executed = None if done is None else transforms.action(done)
    encoding = model.encode(observation, usage=usage, whole=whole)
    return observation, Prepared(encoding, targets, supervision.keep(transforms, batch), executed)


def _forget(observation: Observation, share: float, generator: torch.Generator, *, shared: bool) -> Observation:
    """Some samples without their state (its mean stands there), the word of which of it is there, the rate, and some
    of their frames (grey), each drawn apart: RDT's, whose instruction is `goal_dropout`. shared: is the state in slots?
    """
    images, state, rate = observation.images, observation.state, observation.rate

    def kept(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=images.device) >= share

    images = images * kept(*images.shape[:3])[..., None, None, None]
    if state is not None:
        parts = state.chunk(2, dim=-1) if shared else (state,)
        state = torch.cat([part * kept(len(part))[:, None, None] for part in parts], dim=-1)
    rate = None if rate is None else rate * kept(len(rate))
    return replace(observation, images=images, state=state, rate=rate)


def _offsets(size: int, most: int, generator: torch.Generator, device: torch.device) -> Tensor | None:
    """One random shift of up to `most` pixels for each sample; its present and future frames move together."""
    if most == 0:
        return None
    return torch.randint(-most, most + 1, (size, 2), generator=generator, device=device)
