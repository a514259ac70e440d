"""Where a model runs and how precisely it multiplies there."""

import contextlib
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from ..envs.errors import UserError, choose


def resolve_device(device: str) -> str:
    """'auto' to 'cuda' where there is one, else 'cpu'. Raises `UserError` where 'cuda' is asked for and is missing."""
    choose(device.split(":")[0], ("auto", "cpu", "cuda"), "device")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device} asked for, but torch {torch.__version__} sees no CUDA device; use device=cpu")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """'auto' to 'bf16' where the device multiplies bfloat16 in hardware, else 'fp32'."""
    choose(precision, ("auto", "bf16", "fp32"), "precision")
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device.startswith("cuda") else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if fast else "fp32"


def autocast(precision: str, device: str) -> AbstractContextManager:
    """Matrix products in bfloat16, or nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.split(":")[0], dtype=torch.bfloat16)


@contextlib.contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """So many threads for PyTorch, and for the ONNX Runtime sessions that are loaded meanwhile; None: as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_machine() -> dict[str, str | int]:
    """What a measured number depends on."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
