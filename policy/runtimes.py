"""What runs a policy's network when it acts: PyTorch as it is, PyTorch compiled, or what `foreact export` wrote.

All but the observation and the query that acts run in PyTorch whatever the runtime.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from .denoiser import Encoding
from .graphs import acting, flat, graphs
from .model import Model
from .nn.backbone import Context
from .nn.experts import Bank
from .nn.timed import Timed
from .observation import Observation
from .segments import Segment
from .wiring import Wiring

EXPORTED = {"onnx": "fp32.onnx", "onnx-int8": "int8.onnx", "aot": "pt2"}
"""Runtimes that need an export: name → how their files end."""
RUNTIMES = ("torch", "compiled", *EXPORTED)
FOLDER = "exported"
"""The folder of a checkpoint that holds what was exported."""

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def at_work(model: Model, runtime: str, folder: Path, device: str) -> Model:
    """The model as that runtime runs it; folder: of its checkpoint. Raises `UserError` where it was not exported."""
    if runtime == "torch":
        return model
    return Compiled(model, device) if runtime == "compiled" else Exported(model, folder / FOLDER, runtime, device)


def device_of(runtime: str, device: str) -> str:
    """Where a runtime runs. `UserError` for ONNX Runtime on anything but the CPU."""
    if not runtime.startswith("onnx"):
        return device
    if device not in ("auto", "cpu"):
        raise UserError(f"runtime {runtime!r} runs on the CPU, and device={device} was asked for")
    return "cpu"


def file_of(folder: Path, name: str, runtime: str, device: str = "cpu") -> Path:
    """The file of one function. A library is for one kind of device, which its name says."""
    kind = f"{device.partition(':')[0]}." if runtime == "aot" else ""
    return folder / f"{name}.{kind}{EXPORTED[runtime]}"


class Fast(Model):
    """A model whose whole observations and acting query another runtime runs (`_encode`, `_denoise`)."""

    def __init__(self, model: Model):
        self.__dict__.update(model.__dict__)  # the same weights, not a copy

    def encode(self, observation: Observation, clean: Timed | None = None, **training: Any) -> Encoding:
        plain = observation.state is not None and observation.views is None and not training
        return self._encode(observation, clean) if plain else super().encode(observation, clean, **training)

    def fused(self, timed: Timed, bank: Bank) -> Timed:
        """As it is: other runtimes are told who the experts are, and join them themselves."""
        return timed

    def denoise(
        self,
        segments: Mapping[str, Segment],
        encoding: Encoding,
        *,
        timed: Timed | None = None,
        wiring: Wiring | None = None,
        **training: Any,
    ) -> dict[str, Tensor]:
        plain = encoding.views is None and not any(s.observed or s.clean is not None for s in segments.values())
        acts = plain and sorted(segments) == sorted(acting(self))
        run = self._denoise if acts else super().denoise
        return run(segments, encoding, timed=timed, wiring=wiring, **training)

    def _encode(self, observation: Observation, clean: Timed | None) -> Encoding:
        return super().encode(observation, clean)

    def _denoise(self, segments: Mapping[str, Segment], encoding: Encoding, **known: Any) -> dict[str, Tensor]:
        return super().denoise(segments, encoding, **known)


class Compiled(Fast):
    """By `torch.compile`, at the first call for so many rows: a minute or more. On a GPU as CUDA graphs."""

    def __init__(self, model: Model, device: str):
        super().__init__(model)
        self._on_gpu = device.startswith("cuda")
        mode = "reduce-overhead" if self._on_gpu else None
        self._encoder = torch.compile(super()._encode, mode=mode)
        self._denoiser = torch.compile(super()._denoise, mode=mode)

    def _encode(self, observation: Observation, clean: Timed | None) -> Encoding:
        if not self._on_gpu:
            return self._encoder(observation, clean)
        # a CUDA graph writes over what it returned before, and the encoding is read at every solver step
        torch.compiler.cudagraph_mark_step_begin()
        return self._encoder(observation, clean).clone()

    def _denoise(self, segments: Mapping[str, Segment], encoding: Encoding, **known: Any) -> dict[str, Tensor]:
        return self._denoiser(segments, encoding, **known)


class Exported(Fast):
    """By functions that `foreact export` wrote."""

    def __init__(self, model: Model, folder: Path, runtime: str, device: str = "cpu"):
        super().__init__(model)
        files = {name: file_of(folder, name, runtime, device) for name in graphs(model)}
        if missing := [str(file) for file in files.values() if not file.is_file()]:
            asked = f"runtimes=[{runtime}]" + (f" device={device}" if runtime == "aot" else "")
            raise UserError(
                f"{', '.join(missing)}: not there; make it with: foreact export checkpoint={folder.parent} {asked}"
            )
        self.run: dict[str, Run] = {n: (_library if runtime == "aot" else _session)(f) for n, f in files.items()}

    def _encode(self, observation: Observation, clean: Timed | None) -> Encoding:
        if "encode" not in self.run:
            return super()._encode(observation, clean)
        assert observation.state is not None
        found = self.run["encode"]((observation.images, observation.state, observation.sentence))
        if self.config.layout == "sequence":
            return self.led(found[0], observation)
        depth = self.config.backbone.depth  # exports from before gave one tensor more
        context = Context(list(zip(found[:depth], found[depth : 2 * depth], strict=True)))
        return Encoding(context, observation.beside, views=observation.views)

    def _denoise(self, segments: Mapping[str, Segment], encoding: Encoding, **known: Any) -> dict[str, Tensor]:
        timed = known["timed"]
        timed = self.timed(self.times(segments), encoding.condition) if timed is None else timed
        inputs, _ = flat(self, segments, encoding, timed)
        return dict(zip(acting(self), self.run["denoise"](inputs), strict=True))


def _session(file: Path) -> Run:
    """ONNX Runtime, on as many threads as PyTorch has."""
    need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return partial(_feed, onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))


def _feed(session: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    names = [i.name for i in session.get_inputs()]
    feed = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feed)]


def _library(file: Path) -> Run:
    """What AOTInductor compiled, for the device that it was exported on."""
    library = torch._inductor.aoti_load_package(str(file))
    return lambda inputs: library(*(x.contiguous() for x in inputs))


def need(*packages: str) -> None:
    """`UserError` where a package of the extra `deploy` is missing."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install 'foreact[deploy]'")
