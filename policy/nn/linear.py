"""A linear layer that is fast in float32 on CPUs.

For float32 products PyTorch calls MKL, which takes its slow kernels on processors that are not Intel's. oneDNN, which
PyTorch carries as well, was 2.1 to 2.3 times faster on an AMD EPYC with AVX-512 (one thread, 1 to 1024 rows, 256 x 1024
weights). Inference always takes it, with weights packed once; training where it was measured to be faster
(`training_kernels`). Products in bfloat16 are oneDNN's anyway.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...common import machine


class Linear(nn.Linear):
    """`nn.Linear`, with oneDNN's products where that is faster. The same to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        if not _is_plain(input):
            return super().forward(input)
        if not torch.is_grad_enabled():
            return _product(input, _packed(self), self.bias)
        if _KERNELS == "onednn" and input.numel():  # oneDNN has no sums over nothing
            return _Differentiable.apply(input, self.weight, self.bias)  # type: ignore[return-value]
        return super().forward(input)


class _Differentiable(torch.autograd.Function):
    """oneDNN's product with oneDNN's gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2) if grad.ndim > 1 else grad[None]
        inputs = x.flatten(0, -2) if x.ndim > 1 else x[None]
        return (
            _product(grad, weight.t(), None) if of_x else None,
            _product(rows.t(), inputs.t(), None) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., I) times weight (O, I), plain or packed."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def mlp(inputs: int, width: int, outputs: int, depth: int) -> nn.Module:
    """A linear layer, or `depth` of them with GELU between; the last is the module's own or `[-1]`."""
    sizes = [inputs, *[width] * (depth - 1), outputs]
    layers: list[nn.Module] = [Linear(sizes[0], sizes[1])]
    for a, b in pairwise(sizes[1:]):
        layers += [nn.GELU(approximate="tanh"), Linear(a, b)]
    return layers[0] if depth == 1 else nn.Sequential(*layers)


@dataclass(frozen=True)
class _Packed:
    """Weights as oneDNN wants them, and what they were made from."""

    weight: Tensor
    version: tuple[int, int]
    values: Tensor


# Beside the modules and not in them: a copy or a checkpoint of a module should not hold its weights twice.
_PACKED: WeakKeyDictionary[Linear, _Packed] = WeakKeyDictionary()


def _is_plain(x: Tensor) -> bool:
    """Is it a float32 product on a CPU, which nobody traces?"""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # compilers and exporters pack by themselves
        and _HAS_ONEDNN
    )


def _packed(layer: Linear) -> Tensor:
    """The layer's packed weights, packed anew after a change."""
    weight, kept = layer.weight, _PACKED.get(layer)
    version = weight.data_ptr(), 0 if weight.is_inference() else weight._version  # inference tensors never change
    if kept is None or kept.weight is not weight or kept.version != version:
        values = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        kept = _PACKED[layer] = _Packed(weight, version, values)
    return kept.values


_HAS_ONEDNN = machine.has_onednn()
_KERNELS = "torch"


@contextlib.contextmanager
def training_kernels(kernels: str) -> Iterator[None]:
    """Whose float32 products layers take on a CPU where gradients are needed: 'onednn' or 'torch'."""
    global _KERNELS
    before, _KERNELS = _KERNELS, kernels
    try:
        yield
    finally:
        _KERNELS = before


def is_packed(weight: Tensor) -> bool:
    """Does inference with it keep a packed copy?"""
    return _HAS_ONEDNN and weight.device.type == "cpu" and weight.dtype == torch.float32


@contextlib.contextmanager
def unpacked() -> Iterator[None]:
    """Plain products, for who counts them: counters do not know the packed ones."""
    global _HAS_ONEDNN
    before, _HAS_ONEDNN = _HAS_ONEDNN, False
    try:
        yield
    finally:
        _HAS_ONEDNN = before


def working(x: Tensor) -> Tensor:
    """Under autocast the residual stream itself is in the low precision: half the memory traffic, no casts."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
