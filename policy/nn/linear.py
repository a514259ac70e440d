"""A linear layer that infers fast on CPUs.

For float32 products PyTorch calls MKL, which takes its slow kernels on processors that are not Intel's. oneDNN, which
PyTorch carries as well, takes weights packed once, and was 2.1 to 2.3 times faster on an AMD EPYC with AVX-512 (one
thread, 1 to 1024 rows, 256 x 1024 weights). Training multiplies in bfloat16, where PyTorch calls oneDNN by itself.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear`, with packed weights wherever a float32 CPU product needs no gradient. The same to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        if not _is_plain_inference(input):
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, _packed(self), self.bias, "none", [], "")


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


def _is_plain_inference(x: Tensor) -> bool:
    return (
        not torch.is_grad_enabled()
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # compilers and exporters pack by themselves
        and _HAS_PACKED
    )


def _packed(layer: Linear) -> Tensor:
    """The layer's packed weights, packed anew after a change."""
    weight, kept = layer.weight, _PACKED.get(layer)
    version = weight.data_ptr(), 0 if weight.is_inference() else weight._version  # inference tensors never change
    if kept is None or kept.weight is not weight or kept.version != version:
        values = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        kept = _PACKED[layer] = _Packed(weight, version, values)
    return kept.values


def _has_packed() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))


_HAS_PACKED = _has_packed()


def is_packed(weight: Tensor) -> bool:
    """Does inference with it keep a packed copy?"""
    return _HAS_PACKED and weight.device.type == "cpu" and weight.dtype == torch.float32


@contextlib.contextmanager
def unpacked() -> Iterator[None]:
    """Plain products, for who counts them: counters do not know the packed ones."""
    global _HAS_PACKED
    before, _HAS_PACKED = _HAS_PACKED, False
    try:
        yield
    finally:
        _HAS_PACKED = before


def working(x: Tensor) -> Tensor:
    """Under autocast the residual stream itself is in the low precision: half the memory traffic, no casts."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
