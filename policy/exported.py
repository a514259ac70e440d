"""A policy's network as ONNX graphs, which ONNX Runtime executes on CPUs.

`export` writes two graphs into a checkpoint: `encode`, observation → context, and `denoise`, one evaluation of the
query that acts, with its rows of the step plan as an input. Both take any batch. The solver's loop stays in Python and
drives them, so one export serves every solver and number of steps. Other queries run in PyTorch.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..envs.errors import UserError, choose
from .denoiser import Encoding, Wiring
from .model import Model
from .nn.backbone import Context
from .segments import Segment, roles_of
from .transforms import Observation

PRECISIONS = ("fp32", "int8")
RUNTIMES = {"torch": None, "onnx": "fp32", "onnx-int8": "int8"}
"""What runs the network: name → precision of the exported graphs, None for PyTorch."""
FOLDER = "onnx"
"""The folder of a checkpoint that holds its graphs."""


class Exported(Model):
    """A model whose observation and acting query run as exported graphs, and all else as before."""

    def __init__(self, model: Model, folder: Path, precision: str):
        self.__dict__.update(model.__dict__)  # the same weights, not a copy
        files = {name: _file(folder, name, precision) for name in _graphs(model)}
        if missing := [str(file) for file in files.values() if not file.is_file()]:
            raise UserError(f"{', '.join(missing)}: not there; make it with: foreact export checkpoint={folder.parent}")
        self.sessions = {name: _session(file) for name, file in files.items()}

    def encode(self, observation: Observation, clean: Tensor | None = None) -> Encoding:
        if "encode" not in self.sessions or observation.state is None or observation.views is not None:
            return super().encode(observation, clean)
        inputs = (observation.images, observation.state, observation.sentence)
        *layers, tokens = _run(self.sessions["encode"], inputs)
        depth = len(layers) // 2
        context = Context(list(zip(layers[:depth], layers[depth:], strict=True)), tokens)
        return Encoding(context, observation.beside, views=observation.views)

    def denoise(
        self,
        segments: Mapping[str, Segment],
        encoding: Encoding,
        *,
        rows: Tensor | None = None,
        wiring: Wiring | None = None,
    ) -> dict[str, Tensor]:
        plain = encoding.views is None and not any(s.observed or s.clean is not None for s in segments.values())
        if not plain or sorted(segments) != sorted(_acting(self)):
            return super().denoise(segments, encoding, rows=rows, wiring=wiring)
        rows = self.modulation(self.times(segments), encoding.condition) if rows is None else rows
        if encoding.condition is None:
            rows = rows[:1]  # all samples of an evaluation have the same times
        found = _run(self.sessions["denoise"], _flat(self, segments, encoding, rows))
        return dict(zip(_acting(self), found, strict=True))


def export(
    model: Model, observation: Observation, folder: Path, precisions: Sequence[str] = PRECISIONS
) -> dict[str, Path]:
    """Write the graphs of a model into `folder`; returns the file of each graph and precision.

    observation: any that the model takes, two rows at least. Raises `UserError` where the packages of the extra
    `deploy` are missing.
    """
    for precision in precisions:
        choose(precision, PRECISIONS, "precision")
    _need("onnx", "onnxscript", "onnxruntime")
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    with torch.no_grad(), _quiet():
        for name, (graph, inputs, shared) in _traced(model, observation).items():
            file = _file(folder, name, "fp32")
            _write(graph, inputs, shared, file)
            written[f"{name} fp32"] = file
            if "int8" in precisions:
                written[f"{name} int8"] = _quantize(file, _file(folder, name, "int8"))
            if "fp32" not in precisions:
                written.pop(f"{name} fp32").unlink()
    return written


class _Encode(nn.Module):
    """Observation to the keys of every layer, the values of every layer, and the last tokens."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, state: Tensor, sentence: Tensor) -> tuple[Tensor, ...]:
        context = self.model.encode(Observation(images, state, sentence, {}, {})).context
        return (*(k for k, _ in context.layers), *(v for _, v in context.layers), context.tokens)


class _Denoise(nn.Module):
    """One evaluation; inputs as `_flat` lays them out, a prediction for each segment."""

    def __init__(self, model: Model, wiring: Wiring):
        super().__init__()
        self.model, self.wiring = model, wiring

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        names, depth = _acting(self.model), _context_layers(self.model)
        values, rows, rest = flat[: len(names)], flat[len(names)], flat[len(names) + 1 :]
        layers = list(zip(rest[:depth], rest[depth : 2 * depth], strict=True))
        beside = dict(zip(_besides(self.model), rest[2 * depth :], strict=True))
        segments = {n: Segment(x, x.new_zeros(x.shape[0], 1)) for n, x in zip(names, values, strict=True)}
        context = Context(layers, values[0].new_zeros(values[0].shape[0], 0, 1))
        found = self.model.denoise(segments, Encoding(context, beside), rows=rows, wiring=self.wiring)
        return tuple(found[name] for name in names)


def _acting(model: Model) -> list[str]:
    """Segments of the query that acts, in the order of the graph."""
    return list(roles_of(model.config.acting, model.segments))


def _context_layers(model: Model) -> int:
    return model.config.backbone.depth if model.config.layout == "tokens" else 0


def _besides(model: Model) -> list[str]:
    """Segments of the acting query with clean channels beside them."""
    embedded = {name: layer for name, layer in model.embed.items() if isinstance(layer, nn.Linear)}
    return [name for name in _acting(model) if embedded[name].in_features > model.segments[name].width]


def _graphs(model: Model) -> list[str]:
    return ["encode", "denoise"] if model.config.layout == "tokens" else ["denoise"]


def _flat(model: Model, segments: Mapping[str, Segment], encoding: Encoding, rows: Tensor) -> list[Tensor]:
    layers = encoding.context.layers
    values = [segments[name].x for name in _acting(model)]
    beside = [encoding.beside[name] for name in _besides(model)]
    return [*values, rows, *(k for k, _ in layers), *(v for _, v in layers), *beside]


def _traced(model: Model, observation: Observation) -> dict[str, tuple[nn.Module, list[Tensor], set[int]]]:
    """Graph → module, example inputs, and which inputs are shared by all samples of a batch."""
    found: dict[str, tuple[nn.Module, list[Tensor], set[int]]] = {}
    if model.config.layout == "tokens":
        assert observation.state is not None
        found["encode"] = (_Encode(model), [observation.images, observation.state, observation.sentence], set())
    encoding = model.encode(observation)
    b = len(observation.images)
    segments = {}
    for name in _acting(model):
        shape = model.segments[name]
        segments[name] = Segment(torch.zeros(b, 1, shape.tokens, shape.width), torch.ones(b, 1))
    rows = model.modulation(model.times(segments), encoding.condition)
    alone = {name: Segment(s.x[:1], s.t[:1]) for name, s in segments.items()}
    wiring = model.wiring(alone, encoding)
    shared = set()
    if encoding.condition is None:
        rows, shared = rows[:1], {len(segments)}
    found["denoise"] = (_Denoise(model, wiring), _flat(model, segments, encoding, rows), shared)
    return found


def _write(graph: nn.Module, inputs: list[Tensor], shared: set[int], file: Path) -> None:
    from onnxscript.optimizer import optimize

    batch = torch.export.Dim("batch", min=1, max=4096)
    dims = tuple({} if i in shared else {0: batch} for i in range(len(inputs)))
    shapes = (dims,) if isinstance(graph, _Denoise) else dims  # of variable arguments: one tuple
    program = torch.onnx.export(graph.eval(), tuple(inputs), dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    # Weights are turned once, here: as constants ONNX Runtime can pack them, and the quantiser sees them.
    limit = 1 << 30
    optimize(program.model, input_size_limit=limit, output_size_limit=limit)
    program.save(str(file))


def _quantize(file: Path, out: Path) -> Path:
    """Weights in int8, one scale a column; activations are scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kinds = ["MatMul", "Gemm"]
    quantize_dynamic(str(file), str(out), per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=kinds)
    return out


def _file(folder: Path, name: str, precision: str) -> Path:
    return folder / f"{name}.{precision}.onnx"


def _session(file: Path) -> Any:
    _need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _run(session: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    names = [i.name for i in session.get_inputs()]
    feed = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feed)]


def _need(*packages: str) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install 'foreact[deploy]'")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about other people's models."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "root")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
