"""A Gaussian mixture, whose x̂0 is known in closed form on every path."""

import warnings
from dataclasses import dataclass

import pytest
import torch
from foreact.policy.diffusion.path import Path
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Equal isotropic modes of width `std` at `means` (M, D)."""

    means: Tensor
    std: float

    def x0(self, path: Path, x: Tensor, t: float) -> Tensor:
        """E[x0 | x_t = x] for x (N, D)."""
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = path.alpha(time).item(), path.sigma(time).item()
        variance = (alpha * self.std) ** 2 + sigma**2
        means = self.means.to(x.dtype)
        away = x[:, None] - alpha * means  # (N, M, D)
        weight = torch.softmax(-away.square().sum(-1) / (2 * variance), dim=-1)
        return (weight[..., None] * (means + alpha * self.std**2 / variance * away)).sum(1)

    def denoiser(self, paths: dict[str, Path]):
        """`denoise` of every segment in `paths`, for `solve`."""
        return lambda x, t, step: {name: self.x0(paths[name], x[name], t[name]) for name in x}

    def cdf(self, path: Path, x: Tensor, t: float) -> Tensor:
        """P(x_t < x) in one dimension, for x (N, 1)."""
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = path.alpha(time).item(), path.sigma(time).item()
        width = ((alpha * self.std) ** 2 + sigma**2) ** 0.5
        return torch.special.ndtr((x - alpha * self.means[:, 0]) / width).mean(-1, keepdim=True)

    def carry(self, path: Path, x: Tensor, t: float, s: float) -> Tensor:
        """Where the exact solver takes x (N, 1) from t to s: in one dimension it keeps every quantile."""
        level = self.cdf(path, x, t)
        low, high = torch.full_like(x, -99), torch.full_like(x, 99)
        for _ in range(70):
            middle = (low + high) / 2
            below = self.cdf(path, middle, s) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low


@pytest.fixture
def line() -> Mixture:
    """One dimension, modes at -1 and 0.7."""
    return Mixture(torch.tensor([[-1.0], [0.7]], dtype=torch.float64), 0.2)


@pytest.fixture
def plane() -> Mixture:
    """Two dimensions, three modes."""
    return Mixture(torch.tensor([[-1.0, 0.3], [0.7, 1.0], [0.2, -0.9]], dtype=torch.float64), 0.25)


@pytest.fixture(scope="session")
def diffusers():
    """The reference schedulers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of packages that are not ours, at import
        warnings.simplefilter("ignore", FutureWarning)
        module = pytest.importorskip("diffusers")
        for name in ("DDPM", "DDIM", "DPMSolverMultistep", "EDMEuler", "EDMDPMSolverMultistep"):
            getattr(module, f"{name}Scheduler")  # each is imported when it is first looked up
        _ = module.FlowMatchEulerDiscreteScheduler
    return module
