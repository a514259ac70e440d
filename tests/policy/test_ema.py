"""The average of the weights: its law, its resume, and its copy."""

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.ema import EMA
from safetensors.torch import load, save
from torch import nn


class Model(nn.Module):
    """A parameter of each kind: trained, frozen, tied, and buffers of two types."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("scale", torch.ones(2))


def train(model: Model, ema: EMA, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in (model.a.weight, model.a.bias, model.b.bias):
                parameter += torch.randn(parameter.shape, generator=generator)
            model.frozen += 1
            model.count += 1
            model.scale *= 1.5
        ema.update(model)


def test_average_follows_its_law():
    model = Model()
    ema, expected = EMA(model, decay=0.8), model.a.weight.detach().clone()
    for n in range(60):
        train(model, ema, 1, seed=n)
        decay = min(0.8, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * model.a.weight.detach()
        assert torch.allclose(ema.tensors()["a.weight"], expected, atol=1e-5)
    assert torch.equal(ema.tensors()["b.weight"], ema.tensors()["a.weight"])
    for name in ("frozen", "count", "scale"):
        assert torch.equal(ema.tensors()[name], model.state_dict()[name])


def test_averages_do_not_share_memory_with_the_model():
    model = Model()
    ema = EMA(model)
    with torch.no_grad():
        model.a.weight.zero_()
    assert ema.tensors()["a.weight"].abs().sum() > 0


def test_resume_is_exact():
    whole, part = Model(), Model()
    part.load_state_dict(whole.state_dict())
    ema = EMA(whole, 0.99)
    train(whole, ema, 5, 0)
    train(whole, ema, 7, 1)

    first = EMA(part, 0.99)
    train(part, first, 5, 0)
    stored = load(save(first.state_dict()))
    second = EMA(Model(), 0.99)
    second.load_state_dict(stored)
    assert second.updates == 5
    train(part, second, 7, 1)
    assert second.updates == ema.updates
    for name, value in ema.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name


def test_copy():
    model = Model()
    ema = EMA(model, 0.9)
    train(model, ema, 3, 0)
    assert not torch.equal(model.a.weight, ema.tensors()["a.weight"])
    ema.copy_to(model)
    assert all(torch.equal(v, ema.tensors()[name]) for name, v in model.state_dict().items())


def test_errors_name_both_sides():
    with pytest.raises(UserError, match="not 1"):
        EMA(Model(), decay=1)
    ema = EMA(Model())
    with pytest.raises(UserError, match="2 names differ"):
        ema.load_state_dict(
            EMA(nn.Linear(3, 3)).state_dict() | {f"values.{k}": v for k, v in Model().state_dict().items()}
        )
    wrong = ema.state_dict() | {"values.scale": torch.ones(5)}
    with pytest.raises(UserError, match=r"'scale' has the shape \(5,\) saved, \(2,\) here"):
        ema.load_state_dict(wrong)
