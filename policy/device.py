"""Where a model runs, on how many threads, and how precisely it multiplies there."""

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ..common import machine
from ..envs.errors import UserError, choose

PRECISIONS = ("auto", "bf16", "fp32")
KERNELS = ("auto", "onednn", "torch")

# PyTorch counts processors, a container may use fewer, and threads beyond those wait for each other.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(min(torch.get_num_threads(), machine.usable_threads()))


@dataclass(frozen=True)
class Placement:
    """Where and how a run computes, with nothing left to choose: what a run folder records, and goes on with."""

    device: str
    precision: str  # of matrix products: 'bf16' or 'fp32'
    kernels: str  # of float32 products on a CPU: 'onednn' or 'torch'
    threads: int  # of PyTorch


def resolve(device: str, precision: str, kernels: str, threads: int) -> Placement:
    """Choose what is 'auto', or 0 threads, for this machine; see `resolve_device` and so on.

    threads: 0 for those that PyTorch has. Raises `UserError` for what this machine does not have.
    """
    device = resolve_device(device)
    with on_threads(threads or None):
        count = torch.get_num_threads()
        return Placement(device, resolve_precision(precision, device), resolve_kernels(kernels, device), count)


def resolve_device(device: str) -> str:
    """'auto' to 'cuda' where there is one, else 'cpu'. Raises `UserError` where 'cuda' is asked for and is missing."""
    choose(device.split(":")[0], ("auto", "cpu", "cuda"), "device")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device} asked for, but torch {torch.__version__} sees no CUDA device; use device=cpu")
    if device.startswith("cuda:") and device[5:] not in map(str, range(torch.cuda.device_count())):
        raise UserError(f"device={device} asked for, but torch numbers its {torch.cuda.device_count()} GPU(s) from 0")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """'auto' to 'bf16' where a processor multiplies bfloat16 much faster than float32 (measured) or a GPU has it in
    hardware, else 'fp32'."""
    choose(precision, PRECISIONS, "precision")
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return machine.products(device).precision


def resolve_kernels(kernels: str, device: str) -> str:
    """'auto' to who multiplies faster in float32 on the device (measured): 'onednn', or 'torch'.

    Raises `UserError` where 'onednn' is asked for and this PyTorch or the device has none.
    """
    choose(kernels, KERNELS, "kernels")
    if kernels == "onednn" and not (device == "cpu" and machine.has_onednn()):
        raise UserError(f"kernels=onednn: on device {device!r} PyTorch {torch.__version__} has none; use kernels=torch")
    if kernels != "auto":
        return kernels
    return "torch" if device.startswith("cuda") else machine.products(device).kernels


def resolve_threads() -> int:
    """The threads that PyTorch has now."""
    return torch.get_num_threads()


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
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else machine.processor_name(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
