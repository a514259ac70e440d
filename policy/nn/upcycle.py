"""Dense weights as the beginning of experts (Komatsuzaki et al. 2023, Sparse Upcycling): the same function at first."""

from torch import Tensor, nn

from ...envs.errors import UserError
from .experts import Experts, FeedForward


def upcycled(dense: nn.Module, network: nn.Module) -> dict[str, Tensor]:
    """The weights of `dense` for `network`, which has experts where the other has one layer.

    Each expert is a copy, and weights that sum to 1 mix equal things, so the output is the same; routers begin as
    `network` has them. Where both have the same layers these are simply the weights. Raises `UserError` where experts
    would not begin as the dense layer.
    """
    state, own = dict(dense.state_dict()), network.state_dict()
    layers = dict(dense.named_modules())
    for name, module in network.named_modules():
        if isinstance(module, Experts) and isinstance(layers.get(name), FeedForward):
            _check(name, module, state, own)
            for key in (f"{name}.{part}" for part in ("up.weight", "up.bias", "down.weight", "down.bias")):
                state[key] = state[key].expand_as(own[key])
            if module.router is not None:
                state[f"{name}.router.weight"] = own[f"{name}.router.weight"]
    return state | {key: value for key, value in own.items() if "time_router." in key and key not in state}


def _check(name: str, experts: Experts, state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    config = experts.config
    if config.shared or config.router == "expert_choice" or not (config.renormalise or config.router == "split"):
        raise UserError(
            f"experts that begin from a dense layer need weights that sum to 1 for every token: renormalise=true, "
            f"shared=0 and a router other than 'expert_choice', got {config}"
        )
    there, here = state[f"{name}.up.weight"].shape, own[f"{name}.up.weight"].shape[1:]
    if there != here:
        raise UserError(f"{name}: the dense layer is {tuple(there)}, and an expert {tuple(here)}; set mlp_ratio alike")
