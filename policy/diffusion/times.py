"""Which times a network is trained on, and which it is asked at when it samples.

Training laws are quantile functions u → t of a uniform u, so that one line makes any of them stratified. σ_e
is EDM's noise scale, σ/α on every path; see `path` for the convention of t.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...envs.errors import UserError, choose
from .path import EDM_SIGMAS, SIGMA_DATA, Path


def _uniform(u: Tensor) -> Tensor:
    return u


def _logit_normal(u: Tensor, *, loc: float = 0.0, scale: float = 1.0) -> Tensor:
    """Most weight in the middle (Esser et al. 2024); a positive `loc` favours noise."""
    return torch.sigmoid(loc + scale * torch.special.ndtri(u))


def _beta(u: Tensor, *, a: float = 1.5, t_min: float = 0.001) -> Tensor:
    """Beta(a, 1) on [t_min, 1], which favours noise for a > 1 (π0, Black et al. 2024): P(z < x) = x^a."""
    return t_min + (1 - t_min) * u ** (1 / a)


def _log_logistic(
    u: Tensor,
    *,
    loc: float = math.log(SIGMA_DATA),
    scale: float = 0.5,
    sigma_min: float = 0.001,
    sigma_max: float = 80.0,
) -> Tensor:
    """log σ_e is logistic, truncated to [sigma_min, sigma_max] (MoDE, Reuss et al. 2024)."""
    low, high = ((math.log(sigma) - loc) / scale for sigma in (sigma_min, sigma_max))
    low, high = 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high))
    return torch.sigmoid(loc + scale * torch.logit(low + (high - low) * u))


def _edm_lognormal(
    u: Tensor,
    *,
    loc: float = -1.2,
    scale: float = 1.2,
    sigma_min: float = EDM_SIGMAS[0],
    sigma_max: float = EDM_SIGMAS[1],
) -> Tensor:
    """log σ_e is normal, truncated to [sigma_min, sigma_max] (Karras et al. 2022, Table 1)."""
    low, high = ((math.log(sigma) - loc) / scale for sigma in (sigma_min, sigma_max))
    low, high = 0.5 * math.erfc(-low / math.sqrt(2)), 0.5 * math.erfc(-high / math.sqrt(2))
    return torch.sigmoid(loc + scale * torch.special.ndtri(low + (high - low) * u))


TIMES: dict[str, Callable[..., Tensor]] = {
    "uniform": _uniform,
    "logit_normal": _logit_normal,
    "beta": _beta,
    "log_logistic": _log_logistic,
    "edm_lognormal": _edm_lognormal,
}
"""Training laws by name: quantile function (u, **settings) → t.

The two laws of σ_e give t = σ_e/(1 + σ_e), the time of that noise on `flow` and `edm`.
"""


def sample_times(
    kind: str,
    shape: Sequence[int],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    *,
    stratified: bool = False,
    **settings: float,
) -> Tensor:
    """Draw training times in [0, 1], float32, from the generator alone (on its own device, then moved).

    Args:
        stratified: one draw in each of `numel` equal slices of probability, in random order. Each entry keeps
            the law; their mean varies less.
        settings: of the law, e.g. `loc` and `scale`; see the functions above.
    """
    law = TIMES[choose(kind, TIMES, "time law")]
    count, home = math.prod(shape), generator.device
    u = torch.rand(count, generator=generator, device=home, dtype=torch.float64)
    if stratified:
        u = (torch.randperm(count, generator=generator, device=home) + u) / count
    t = law(u.clamp(1e-9, 1 - 1e-9), **settings)
    return t.clamp(0, 1).float().reshape(tuple(shape)).to(device)


def _linear(n: int, path: Path, *, t_max: float | None = None) -> Tensor:
    start = path.t_max if t_max is None else t_max
    return torch.linspace(start, 0, n + 1, dtype=torch.float64)[:-1]


def _sigma_range(path: Path, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """The scales of the path's ends: the least is EDM's 0.002 where the path reaches 0, and the largest at most EDM's
    80, where x_t is noise (linear path: α = 1/81)."""
    ends = torch.tensor([path.t_min, path.t_max], dtype=torch.float64)
    least, largest = (path.sigma(ends) / path.alpha(ends)).tolist()
    least, largest = least if path.t_min > 0 else EDM_SIGMAS[0], min(EDM_SIGMAS[1], largest)
    return least if sigma_min is None else sigma_min, largest if sigma_max is None else sigma_max


def _times_at(path: Path, sigmas: Tensor) -> Tensor:
    return path.time_at(sigmas / (1 + sigmas))


def _karras(
    n: int, path: Path, *, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> Tensor:
    """Uniform in σ_e^(1/ρ) (Karras et al. 2022, eq. 5)."""
    low, high = (sigma ** (1 / rho) for sigma in _sigma_range(path, sigma_min, sigma_max))
    return _times_at(path, torch.linspace(high, low, n, dtype=torch.float64) ** rho)


def _exponential(n: int, path: Path, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Tensor:
    """Uniform in log σ_e from sigma_max to sigma_min, then one step to 0 (k-diffusion, MoDE)."""
    low, high = (math.log(sigma) for sigma in _sigma_range(path, sigma_min, sigma_max))
    return _times_at(path, torch.linspace(high, low, n, dtype=torch.float64).exp())


def _log_snr(n: int, path: Path, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Tensor:
    """Uniform in log-SNR over n whole steps; the last goes on to 0 in place of sigma_min (Lu et al. 2022)."""
    low, high = (math.log(sigma) for sigma in _sigma_range(path, sigma_min, sigma_max))
    return _times_at(path, torch.linspace(high, low, n + 1, dtype=torch.float64)[:-1].exp())


GRIDS: dict[str, Callable[..., Tensor]] = {
    "uniform": _linear,
    "karras": _karras,
    "exponential": _exponential,
    "log_snr": _log_snr,
}
"""Acting grids by name: (n, path, **settings) → the n times from which a step starts."""


def time_grid(kind: str, n: int, path: Path, **settings: float) -> Tensor:
    """The n + 1 falling times of n steps, float64: the last is 0.

    The first is `path.t_max` for `uniform`; the grids in σ_e start at `sigma_max`, 80 where the path reaches
    beyond it (t = 80/81 on the linear path). Sampling starts there from x = σ ε.
    """
    if n < 1:
        raise UserError(f"a time grid needs at least 1 step, not {n}: raise the number of solver steps")
    starts = GRIDS[choose(kind, GRIDS, "time grid")](n, path, **settings)
    return torch.cat([starts, starts.new_zeros(1)])
