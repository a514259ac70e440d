"""A policy's network as two functions of plain tensors, which exporters take.

`encode`: observation → context, or the tokens that lead the sequence. `denoise`: one evaluation of the query that acts,
with what it takes of the step plan as inputs: rows, the embedded time where it is a token, and who the experts are.
Both take any batch. The solver's loop stays in Python and drives them, so one export serves every solver and number of
steps.
"""

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from .denoiser import Encoding
from .model import Model
from .nn.backbone import Context
from .nn.fused import Route
from .nn.routing import Choice
from .nn.timed import Timed
from .observation import Observation
from .segments import Segment, roles_of
from .wiring import Wiring


class Encode(nn.Module):
    """Observation to the keys of every layer and the values of every layer; or to leading tokens."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, state: Tensor, sentence: Tensor) -> tuple[Tensor, ...]:
        encoding = self.model.encode(Observation(images, state, sentence, {}, {}))
        if encoding.lead is not None:
            return (encoding.lead,)
        context = encoding.context
        return (*(k for k, _ in context.layers), *(v for _, v in context.layers))


class Denoise(nn.Module):
    """One evaluation; inputs as `flat` lays them out, a prediction for each segment."""

    def __init__(self, model: Model, wiring: Wiring):
        super().__init__()
        self.model, self.wiring = model, wiring

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        names, depth, inputs = acting(self.model), _context_layers(self.model), iter(flat)

        def take(count: int) -> list[Tensor]:
            return list(islice(inputs, count))

        values, t = take(len(names)), next(inputs)
        timed = _timed(self.model, take(_timed_inputs(self.model)))
        layers = list(zip(take(depth), take(depth), strict=True))
        lead = next(inputs) if self.model.config.layout == "sequence" else None
        beside = dict(zip(_besides(self.model), inputs, strict=True))
        segments = {
            n: Segment(x, t[i].expand(x.shape[0], 1)) for i, (n, x) in enumerate(zip(names, values, strict=True))
        }
        found = self.model.denoise(
            segments, Encoding(Context(layers), beside, lead=lead), timed=timed, wiring=self.wiring
        )
        return tuple(found[name] for name in names)


def _timed_inputs(model: Model) -> int:
    return 1 + model.noise_token + 2 * (model.backbone.time_router is not None)


def _timed_flat(model: Model, timed: Timed) -> list[Tensor]:
    """What an evaluation takes of its times as tensors; experts and weights (depth, G, k) are one sample's."""
    tensors = [timed.rows]
    if model.noise_token:
        assert timed.embedded is not None
        tensors.append(timed.embedded)
    if timed.routes:
        tensors += [torch.stack([route.choice[i][0, 0] for route in timed.routes]) for i in (0, 1)]
    return tensors


def _timed(model: Model, tensors: list[Tensor]) -> Timed:
    """The inverse of `_timed_flat`."""
    rows, rest = tensors[0], tensors[1:]
    embedded = rest.pop(0) if model.noise_token else None
    ways = zip(*rest, strict=True) if rest else ()
    routes = [Route(Choice(experts[None, None], weights[None, None])) for experts, weights in ways]
    return Timed(rows, embedded, routes)


def acting(model: Model) -> list[str]:
    """Segments of the query that acts, in the order of the graph."""
    return list(roles_of(model.config.acting, model.segments))


def _context_layers(model: Model) -> int:
    return model.config.backbone.depth if model.config.layout == "tokens" else 0


def _besides(model: Model) -> list[str]:
    """Segments of the acting query with clean channels beside them."""
    embedded = {name: layer for name, layer in model.embed.items() if isinstance(layer, nn.Linear)}
    return [name for name in acting(model) if embedded[name].in_features > model.segments[name].width]


def graphs(model: Model) -> list[str]:
    """Names of the functions: a preset that sees the observation beside the noisy values encodes nothing."""
    return ["denoise"] if model.config.layout == "stacked" else ["encode", "denoise"]


def flat(
    model: Model, segments: Mapping[str, Segment], encoding: Encoding, timed: Timed
) -> tuple[list[Tensor], set[int]]:
    """The inputs of `Denoise`, and which of them are shared by all samples of a batch.

    Noisy values, their times, what those give, keys and values of every layer or leading tokens, clean channels.
    """
    layers = encoding.context.layers
    values = [segments[name].x for name in acting(model)]
    t = torch.stack([segments[name].t[0, 0] for name in acting(model)])
    own, routes = _timed_flat(model, timed)[: 1 + model.noise_token], _timed_flat(model, timed)[1 + model.noise_token :]
    shared = {len(values), *range(len(values) + 1 + len(own), len(values) + 1 + len(own) + len(routes))}
    if encoding.condition is None:  # all samples of an evaluation have the same times
        own = [x[:1] for x in own]
        shared |= set(range(len(values) + 1, len(values) + 1 + len(own)))
    lead = [] if encoding.lead is None else [encoding.lead]
    beside = [encoding.beside[name] for name in _besides(model)]
    return [*values, t, *own, *routes, *(k for k, _ in layers), *(v for _, v in layers), *lead, *beside], shared


def traced(model: Model, observation: Observation) -> dict[str, tuple[nn.Module, list[Tensor], set[int]]]:
    """Graph → module, example inputs, and which inputs are shared by all samples of a batch."""
    found: dict[str, tuple[nn.Module, list[Tensor], set[int]]] = {}
    if "encode" in graphs(model):
        assert observation.state is not None
        found["encode"] = (Encode(model), [observation.images, observation.state, observation.sentence], set())
    encoding = model.encode(observation)
    b = len(observation.images)
    segments = {}
    for name in acting(model):
        shape = model.segments[name]
        like = observation.images
        segments[name] = Segment(like.new_zeros(b, 1, shape.tokens, shape.width), like.new_ones(b, 1))
    alone = {name: Segment(s.x[:1], s.t[:1]) for name, s in segments.items()}
    timed = model.timed(model.times(alone), encoding.condition)
    inputs, shared = flat(model, segments, encoding, timed)
    found["denoise"] = (Denoise(model, model.wiring(alone, encoding)), inputs, shared)
    return found
