"""A policy's network as two functions of plain tensors, which exporters take.

`encode`: observation → context. `denoise`: one evaluation of the query that acts, with its rows of the step plan as an
input. Both take any batch. The solver's loop stays in Python and drives them, so one export serves every solver and
number of steps.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from .denoiser import Encoding, Wiring
from .model import Model
from .nn.backbone import Context, Timed
from .segments import Segment, roles_of
from .transforms import Observation


class Encode(nn.Module):
    """Observation to the keys of every layer, the values of every layer, and the last tokens."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, state: Tensor, sentence: Tensor) -> tuple[Tensor, ...]:
        context = self.model.encode(Observation(images, state, sentence, {}, {})).context
        return (*(k for k, _ in context.layers), *(v for _, v in context.layers), context.tokens)


class Denoise(nn.Module):
    """One evaluation; inputs as `flat` lays them out, a prediction for each segment."""

    def __init__(self, model: Model, wiring: Wiring):
        super().__init__()
        self.model, self.wiring = model, wiring

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        names, depth = acting(self.model), _context_layers(self.model)
        values, rows, rest = flat[: len(names)], flat[len(names)], flat[len(names) + 1 :]
        layers = list(zip(rest[:depth], rest[depth : 2 * depth], strict=True))
        beside = dict(zip(_besides(self.model), rest[2 * depth :], strict=True))
        segments = {n: Segment(x, x.new_zeros(x.shape[0], 1)) for n, x in zip(names, values, strict=True)}
        context = Context(layers, values[0].new_zeros(values[0].shape[0], 0, 1))
        found = self.model.denoise(segments, Encoding(context, beside), timed=Timed(rows), wiring=self.wiring)
        return tuple(found[name] for name in names)


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
    return ["encode", "denoise"] if model.config.layout == "tokens" else ["denoise"]


def flat(model: Model, segments: Mapping[str, Segment], encoding: Encoding, rows: Tensor) -> list[Tensor]:
    """The inputs of `Denoise`: noisy values, rows of the plan, keys and values of every layer, clean channels."""
    layers = encoding.context.layers
    values = [segments[name].x for name in acting(model)]
    beside = [encoding.beside[name] for name in _besides(model)]
    return [*values, rows, *(k for k, _ in layers), *(v for _, v in layers), *beside]


def traced(model: Model, observation: Observation) -> dict[str, tuple[nn.Module, list[Tensor], set[int]]]:
    """Graph → module, example inputs, and which inputs are shared by all samples of a batch."""
    found: dict[str, tuple[nn.Module, list[Tensor], set[int]]] = {}
    if model.config.layout == "tokens":
        assert observation.state is not None
        found["encode"] = (Encode(model), [observation.images, observation.state, observation.sentence], set())
    encoding = model.encode(observation)
    b = len(observation.images)
    segments = {}
    for name in acting(model):
        shape = model.segments[name]
        like = observation.images
        segments[name] = Segment(like.new_zeros(b, 1, shape.tokens, shape.width), like.new_ones(b, 1))
    rows = model.timed(model.times(segments), encoding.condition).rows
    alone = {name: Segment(s.x[:1], s.t[:1]) for name, s in segments.items()}
    wiring = model.wiring(alone, encoding)
    shared = set()
    if encoding.condition is None:
        rows, shared = rows[:1], {len(segments)}
    found["denoise"] = (Denoise(model, wiring), flat(model, segments, encoding, rows), shared)
    return found
