"""Write a policy's network for other runtimes: ONNX graphs, and libraries that PyTorch compiled ahead of time."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..envs.errors import choose
from .graphs import Denoise, traced
from .model import Model
from .runtimes import EXPORTED, file_of, need
from .transforms import Observation


def export(model: Model, observation: Observation, folder: Path, runtimes: Sequence[str]) -> dict[str, list[Path]]:
    """Write the functions of a model into `folder` for runtimes among `runtimes.EXPORTED`; returns the files of each.

    observation: any that the model takes, two rows at least, on the model's device, which is where `aot` then runs.
    Raises `UserError` where packages of the extra `deploy` are missing.
    """
    for runtime in runtimes:
        choose(runtime, EXPORTED, "exported runtime")
    if any(runtime != "aot" for runtime in runtimes):
        need("onnx", "onnxscript", "onnxruntime")
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, list[Path]] = {runtime: [] for runtime in runtimes}
    with torch.no_grad(), _quiet():
        for name, (graph, inputs, shared) in traced(model, observation).items():
            shapes = _any_batch(graph, len(inputs), shared)
            if "aot" in runtimes:
                written["aot"].append(_compile(graph, inputs, shapes, file_of(folder, name, "aot")))
            if written.keys() - {"aot"}:
                plain = _write(graph, inputs, shapes, file_of(folder, name, "onnx"))
                if "onnx-int8" in runtimes:
                    written["onnx-int8"].append(_quantize(plain, file_of(folder, name, "onnx-int8")))
                written["onnx"].append(plain) if "onnx" in runtimes else plain.unlink()
    return written


def _any_batch(graph: nn.Module, inputs: int, shared: set[int]) -> Any:
    """Dynamic shapes: the first dimension of all that is not shared by the samples of a batch."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    dims = tuple({} if i in shared else {0: batch} for i in range(inputs))
    return (dims,) if isinstance(graph, Denoise) else dims  # of variable arguments: one tuple


def _compile(graph: nn.Module, inputs: list[Tensor], shapes: Any, file: Path) -> Path:
    """A library by AOTInductor: no Python in it, and no compiler where it is loaded."""
    program = torch.export.export(graph.eval(), tuple(inputs), dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(program, package_path=str(file))
    return file


def _write(graph: nn.Module, inputs: list[Tensor], shapes: Any, file: Path) -> Path:
    from onnxscript.optimizer import optimize

    program = torch.onnx.export(graph.eval(), tuple(inputs), dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    # Weights are turned once, here: as constants ONNX Runtime can pack them, and the quantiser sees them.
    limit = 1 << 30
    optimize(program.model, input_size_limit=limit, output_size_limit=limit)
    program.save(str(file))
    return file


def _quantize(file: Path, out: Path) -> Path:
    """Weights in int8, one scale a column; activations are scaled as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kinds = ["MatMul", "Gemm"]
    quantize_dynamic(str(file), str(out), per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=kinds)
    return out


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
