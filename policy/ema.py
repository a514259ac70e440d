"""Exponential moving average of a model's weights: what is evaluated and saved for acting."""

import torch
from torch import Tensor, nn

from ..envs.errors import UserError
from .nn.block import present_name


class EMA:
    """Averages of a model's floating-point parameters; buffers and frozen parameters are copied as they are.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, so that early averages forget the
    initialisation.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999):
        if not 0 <= decay < 1:
            raise UserError(f"EMA decay must be at least 0 and below 1, not {decay}")
        self.decay, self.updates = decay, 0
        self._values = {name: value.detach().clone() for name, value in _tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages towards the model's present weights; call after each optimiser step."""
        current = _tensors(model)
        parameters = model.named_parameters(remove_duplicate=False)
        averaged = [name for name, p in parameters if p.requires_grad and p.is_floating_point()]
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        copied = sorted(current.keys() - set(averaged))
        # One fused call over all weights (the same kernels that torch's own optimisers use).
        if averaged:
            torch._foreach_lerp_(*self._pairs(averaged, current), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        if copied:
            torch._foreach_copy_(*self._pairs(copied, current))  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    def _pairs(self, names: list[str], current: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [self._values[name] for name in names], [current[name] for name in names]

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights and buffers with the averages."""
        for name, value in _tensors(model).items():
            value.copy_(self._values[name])

    def tensors(self) -> dict[str, Tensor]:
        """The averages by the model's own names: ready for `safetensors` and `model.load_state_dict`."""
        return dict(self._values)

    def state_dict(self) -> dict[str, Tensor]:
        """Averages and the number of updates, ready for `safetensors`. The decay belongs to the config."""
        return {
            "updates": torch.tensor(self.updates),
            **{f"values.{name}": value.clone() for name, value in self._values.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue exactly from `state_dict`; the names must be those of this model."""
        values = {present_name(key.removeprefix("values.")): value for key, value in state.items() if key != "updates"}
        if values.keys() != self._values.keys():
            differ = sorted(values.keys() ^ self._values.keys())
            raise UserError(f"the saved EMA is of another model: {len(differ)} names differ, such as {differ[0]!r}")
        for name, value in values.items():
            if value.shape != self._values[name].shape:
                shapes = f"{tuple(value.shape)} saved, {tuple(self._values[name].shape)} here"
                raise UserError(f"the saved EMA is of another model: {name!r} has the shape {shapes}")
            self._values[name].copy_(value)
        self.updates = int(state["updates"])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the model's `state_dict`, live (an update in place changes the model)."""
    return {name: value for name, value in model.state_dict(keep_vars=False).items() if isinstance(value, Tensor)}
