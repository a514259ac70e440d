"""Write a policy's network for other runtimes: ONNX graphs, and libraries that PyTorch compiled ahead of time."""

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..envs.errors import UserError, choose
from .graphs import Denoise, traced
from .model import Model
from .observation import Observation
from .runtimes import EXPORTED, file_of, need


def export(model: Model, observation: Observation, folder: Path, runtimes: Sequence[str]) -> dict[str, list[Path]]:
    """Write the functions of a model into `folder` for runtimes among `runtimes.EXPORTED`; returns the files of each.

    observation: any that the model takes, two rows at least, on the model's device, which is where `aot` then runs.
    Raises `UserError` where packages of the extra `deploy` are missing.
    """
    for runtime in runtimes:
        choose(runtime, EXPORTED, "exported runtime")
    if model.config.layout == "crossed" or model.config.rate_token:
        raise UserError(
            "layout 'crossed' and a token of the control rate are not exported yet: runtime torch or compiled"
        )
    experts = model.config.backbone.experts
    if experts is not None and not experts.by_time:
        raise UserError(
            f"experts that tokens choose (router {experts.router!r}) cannot be exported: who goes where is not known "
            "before; router time or split can"
        )
    onnx = [runtime for runtime in runtimes if runtime != "aot"]
    if onnx:
        need("onnx", "onnxscript", "onnxruntime")
    if "aot" in runtimes and not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError("runtime 'aot' compiles C++: install g++, or name a compiler in CXX")
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, list[Path]] = {runtime: [] for runtime in runtimes}
    with torch.no_grad(), _quiet(), tempfile.TemporaryDirectory() as drafts:
        for name, (graph, inputs, shared) in traced(model, observation).items():
            shapes = _any_batch(graph, len(inputs), shared)
            if "aot" in runtimes:
                library = file_of(folder, name, "aot", str(inputs[0].device))
                written["aot"].append(_compile(graph, inputs, shapes, library))
            plain = file_of(folder if "onnx" in runtimes else Path(drafts), name, "onnx")
            if onnx:
                _write(graph, inputs, shapes, plain)
            if "onnx" in runtimes:
                written["onnx"].append(plain)
            if "onnx-int8" in runtimes:
                written["onnx-int8"].append(_quantize(plain, file_of(folder, name, "onnx-int8")))
    return written


def _any_batch(graph: nn.Module, inputs: int, shared: set[int]) -> Any:
    """Dynamic shapes: the first dimension of all that is not shared by the samples of a batch."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    dims = tuple({} if i in shared else {0: batch} for i in range(inputs))
    return (dims,) if isinstance(graph, Denoise) else dims  # of variable arguments: one tuple


def _compile(graph: nn.Module, inputs: list[Tensor], shapes: Any, file: Path) -> Path:
    """A library by AOTInductor: no Python in it, and no compiler where it is loaded, on a processor like this one."""
    # a library reads its inputs as they lay here, unchecked: rows after rows, as `runtimes` gives them
    plain = tuple(x.contiguous() for x in inputs)
    program = torch.export.export(graph.eval(), plain, dynamic_shapes=shapes)
    options = {"cpp.dynamic_threads": True}  # as many as PyTorch has where it runs, and not as it has here
    torch._inductor.aoti_compile_and_package(program, package_path=str(file), inductor_configs=options)
    return file


def _write(graph: nn.Module, inputs: list[Tensor], shapes: Any, file: Path) -> None:
    from onnxscript.optimizer import optimize

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
