"""Low-rank patches: a frozen weight learns by a change of few numbers (Hu et al. 2022, LoRA).

A patch is a parametrization of `weight`, so whoever reads the weight (products, dispatch to experts, fusing them) reads
the changed one, and what acts gets it merged: a finished policy is like any other.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .experts import Stacked

_WHOLE, _UP, _DOWN = (f".parametrizations.weight.{part}" for part in ("original", "0.up", "0.down"))


class LowRank(nn.Module):
    """W + up · down of a weight W (..., out, in) and a rank; `up` begins at zero, so W is unchanged at first (§4.1)."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        *stack, outputs, inputs = weight.shape
        self.up = nn.Parameter(weight.new_zeros(*stack, outputs, rank))
        self.down = nn.Parameter(torch.empty_like(weight[..., :1, :]).expand(*stack, rank, inputs).clone())
        nn.init.uniform_(self.down, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # exactly what is merged for acting
            return weight + self.up @ self.down


def patch(network: nn.Module, rank: int) -> None:
    """Freeze all of a network and give each of its linear layers, those of experts too, a patch that learns.

    Patches of a layer no wider than the rank would have more numbers than it: such a layer learns whole.
    """
    network.requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | Stacked):
            if min(module.weight.shape[-2:]) > rank:
                parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))
            else:
                module.requires_grad_(True)


@torch.no_grad()
def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The `state_dict` of a patched network as that of a plain one, whose weights are the changed ones."""
    found = {}
    for key, value in state.items():
        if key.endswith(_WHOLE):
            name = key.removesuffix(_WHOLE)
            found[f"{name}.weight"] = value + state[name + _UP] @ state[name + _DOWN]
        elif not key.endswith((_UP, _DOWN)):
            found[key] = value
    return found
