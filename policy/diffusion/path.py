"""Paths from data to noise, and what a network predicts on them.

The convention of the whole package, stated here once:

    t in [0, 1];  t = 0 is clean data, t = 1 is pure noise;  x_t = α(t) x0 + σ(t) ε,  ε ~ N(0, 1).

| path          | α(t)                       | σ(t)         | from                                          |
|---------------|----------------------------|--------------|-----------------------------------------------|
| `flow`        | 1 - t                      | t            | rectified flow (Liu et al. 2022)              |
| `edm`         | 1 - t                      | t            | Karras et al. 2022, for σ_e in [0.002, 80]    |
| `edm_mode`    | 1 - t                      | t            | Reuss et al. 2024 (MoDE), σ_e in [0.001, 80]  |
| `ddpm_linear` | sqrt of Π (1 - β), smooth  | sqrt(1 - α²) | Ho et al. 2020, β = 1e-4 … 0.02 in 1000 steps |
| `ddpm_cosine` | cos((t + s)/(1 + s) π/2)/c | sqrt(1 - α²) | Nichol, Dhariwal 2021, s = 0.008, c: α(0) = 1 |

EDM adds noise of scale σ_e to unscaled data, x_σ = x0 + σ_e ε. With t = σ_e/(1 + σ_e) and x_t = x_σ/(1 + σ_e)
that *is* the linear path, so `edm` and `edm_mode` differ from `flow` only in the range of times of their training.
Step i (from 0) of a 1000-step DDPM table is t = (i + 1)/1000 here, and t = 0 has no noise at all.

A prediction target is a mix a(t) x0 + b(t) ε, and with x_t it determines x0 and ε:

| target     | a         | b        | singular                                                     |
|------------|-----------|----------|--------------------------------------------------------------|
| `velocity` | dα/dt     | dσ/dt    | DDPM paths at t = 0: infinite (the rate at t = 1e-5 is used) |
| `v`        | -σ        | α        | never (Salimans and Ho 2022)                                 |
| `eps`      | 0         | 1        | x0 where α = 0: `flow` and `edm` at t = 1                    |
| `x0`       | 1         | 0        | ε where σ = 0: t = 0                                         |
| `edm`      | σ / (s d) | -α s / d | never; s = 0.5 is the scale of the data, d² = σ² + α² s²     |

On the linear path `velocity` is ε - x0. Where an estimate is singular it cannot be known; it is given as 0
(the mean of normalised data, or of the noise) and never as NaN. The `edm` row is F of Karras et al. 2022,
Table 1, in this convention, where c_skip, c_out and c_in divide by zero at neither end.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...envs.errors import choose

SIGMA_DATA = 0.5
"""Scale of the data that the `edm` target assumes (Karras et al. 2022; MoDE keeps it)."""

EDM_SIGMAS = (0.002, 80.0)
"""Noise scales that EDM is trained on and sampled from."""
MODE_SIGMAS = (0.001, 80.0)
"""Those of MoDE."""

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Path:
    """How data turn into noise: α(t), σ(t) and their derivatives. Functions keep t's shape and precision.

    `t_min` and `t_max` bound the times that a network sees in training; `clamp` brings a time into them, for
    the time embedding. `time_at` inverts `level`, in float64 where it must search.
    """

    name: str
    alpha: Curve
    sigma: Curve
    rates: Callable[[Tensor], tuple[Tensor, Tensor]]
    time_at: Curve
    t_min: float = 0.0
    t_max: float = 1.0

    def clamp(self, t: Tensor) -> Tensor:
        """Times within the range of training."""
        return t.clamp(self.t_min, self.t_max)

    def level(self, t: Tensor) -> Tensor:
        """Share of noise σ/(α + σ), from 0 to 1: t on the linear path, σ_e/(1 + σ_e) on every path."""
        alpha, sigma = self.alpha(t), self.sigma(t)
        return sigma / (alpha + sigma)


def _linear(name: str, t_min: float = 0.0, t_max: float = 1.0) -> Path:
    return Path(
        name=name,
        alpha=lambda t: 1 - t,
        sigma=lambda t: t,
        rates=lambda t: (-torch.ones_like(t), torch.ones_like(t)),
        time_at=lambda level: level,
        t_min=t_min,
        t_max=t_max,
    )


def _variance_preserving(name: str, alpha: Curve, sigma: Curve, alpha_rate: Curve) -> Path:
    """A path with α² + σ² = 1, whose σ grows like sqrt(t): dσ/dt = -α/σ dα/dt is infinite at t = 0."""

    def rates(t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.clamp(min=1e-5)
        return alpha_rate(t), -alpha(t) * alpha_rate(t) / sigma(t)

    def time_at(level: Tensor) -> Tensor:
        return _bisect(lambda t: sigma(t) / (alpha(t) + sigma(t)), level)

    return Path(name=name, alpha=alpha, sigma=sigma, rates=rates, time_at=time_at)


def _bisect(rising: Curve, value: Tensor) -> Tensor:
    """The t in [0, 1] where a rising function takes the value, to the last bit of float64."""
    value = value.double()
    low, high = torch.zeros_like(value), torch.ones_like(value)
    for _ in range(60):
        middle = (low + high) / 2
        below = rising(middle) < value
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(value <= 0, low, high)


def _ddpm_linear() -> Path:
    # log Π(1 - β_j) = Σ -β_j - β_j²/2 - … over the steps j. β_j is linear in j, so the sum of each power is a
    # polynomial in their number, and one of degree 7 meets all 1000 entries of the table.
    steps = np.arange(1, 1001) / 1000
    log_alpha2 = np.log1p(-np.linspace(1e-4, 0.02, 1000)).cumsum()
    fit = np.polynomial.Polynomial.fit(steps, log_alpha2 / steps, 6, domain=[0, 1], window=[0, 1])
    polynomial = np.polynomial.Polynomial([0.0, *fit.coef])
    coefficients, slopes = polynomial.coef.tolist(), polynomial.deriv().coef.tolist()

    def alpha(t: Tensor) -> Tensor:
        return (_horner(coefficients, t) / 2).exp()

    def sigma(t: Tensor) -> Tensor:
        return torch.expm1(_horner(coefficients, t)).abs().sqrt()  # exact for small t, where 1 - α² is not

    return _variance_preserving("ddpm_linear", alpha, sigma, lambda t: alpha(t) * _horner(slopes, t) / 2)


def _horner(coefficients: list[float], t: Tensor) -> Tensor:
    """The polynomial with these coefficients, lowest power first."""
    result = torch.full_like(t, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * t + coefficient
    return result


def _ddpm_cosine(offset: float = 0.008, cap: float = 0.999) -> Path:
    # α's angle is counted from the noise end (1 - t) and σ² is a product of sines: neither end loses digits.
    # The table caps β at 0.999. Only its last entry feels it: there α is sqrt(1 - cap) of the entry before.
    quarter = math.pi / 2 / (1 + offset)
    first = offset * quarter
    floor = math.sqrt(1 - cap) * math.sin(quarter / 1000) / math.cos(first)

    def alpha(t: Tensor) -> Tensor:
        return (torch.sin(quarter * (1 - t)) / math.cos(first)).clamp(floor, 1)

    def sigma(t: Tensor) -> Tensor:
        return (torch.sin(quarter * t) * torch.sin(quarter * t + 2 * first)).sqrt() / math.cos(first)

    def alpha_rate(t: Tensor) -> Tensor:
        return -quarter * torch.cos(quarter * (1 - t)) / math.cos(first)

    return _variance_preserving("ddpm_cosine", alpha, sigma, alpha_rate)


PATHS: dict[str, Path] = {
    path.name: path
    for path in (
        _linear("flow"),
        _linear("edm", *(sigma / (1 + sigma) for sigma in EDM_SIGMAS)),
        _linear("edm_mode", *(sigma / (1 + sigma) for sigma in MODE_SIGMAS)),
        _ddpm_linear(),
        _ddpm_cosine(),
    )
}
"""Every path by name."""


def _edm_width(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Standard deviation of x_t for data of scale `SIGMA_DATA`."""
    return (sigma.square() + (SIGMA_DATA * alpha).square()).sqrt()


def _edm_mix(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = path.alpha(t), path.sigma(t)
    width = _edm_width(alpha, sigma)
    return sigma / (SIGMA_DATA * width), -SIGMA_DATA * alpha / width


TARGETS: dict[str, Callable[[Path, Tensor], tuple[Tensor, Tensor]]] = {
    "velocity": lambda path, t: path.rates(t),
    "v": lambda path, t: (-path.sigma(t), path.alpha(t)),
    "eps": lambda path, t: (torch.zeros_like(t), torch.ones_like(t)),
    "x0": lambda path, t: (torch.ones_like(t), torch.zeros_like(t)),
    "edm": _edm_mix,
}
"""What a network may predict: name → the shares (a, b) of x0 and ε at time t."""


def expand(t: Tensor | float, x: Tensor) -> Tensor:
    """Time shaped to multiply x (B, L, ...): a number, one per sample (B,) or one per token (B, L).

    The result is on x's device and in t's precision, float32 at least (a time in bfloat16 has 3 digits).
    """
    t = t.to(x.device) if isinstance(t, Tensor) else torch.tensor(t, device=x.device, dtype=torch.float64)
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    if t.ndim > x.ndim or any(a not in (1, b) for a, b in zip(t.shape, x.shape, strict=False)):
        raise ValueError(f"times of shape {tuple(t.shape)} do not lead the shape {tuple(x.shape)} of the values")
    return t.reshape(*t.shape, *[1] * (x.ndim - t.ndim))


def noise(path: Path, x0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
    """x_t = α x0 + σ ε, in x0's precision."""
    t = expand(t, x0)
    return path.alpha(t).to(x0.dtype) * x0 + path.sigma(t).to(x0.dtype) * eps


def target(kind: str, path: Path, x0: Tensor, eps: Tensor, t: Tensor | float) -> Tensor:
    """What a network of this kind should predict for x_t."""
    if kind in ("x0", "eps"):  # no arithmetic on large frames
        return x0 if kind == "x0" else eps
    a, b = TARGETS[choose(kind, TARGETS, "prediction target")](path, expand(t, x0))
    return a.to(x0.dtype) * x0 + b.to(x0.dtype) * eps


def estimate(kind: str, path: Path, x_t: Tensor, prediction: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
    """(x̂0, ε̂) from a prediction: the exact inverse of `target`; 0 where singular (see the table above)."""
    t = expand(t, x_t)
    a, b = TARGETS[choose(kind, TARGETS, "prediction target")](path, t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    determinant = alpha * b - sigma * a
    # Each of the four weights is divided in t's precision first; a singular row has the weights 0.
    scale = torch.where(determinant == 0, 0.0, 1 / torch.where(determinant == 0, 1.0, determinant))
    b, sigma, a, alpha = ((scale * weight).to(x_t.dtype) for weight in (b, sigma, a, alpha))
    x0 = prediction if kind == "x0" else b * x_t - sigma * prediction
    eps = prediction if kind == "eps" else alpha * prediction - a * x_t
    return x0, eps


@lru_cache(maxsize=4096)
def x0_weights(kind: str, path: Path, t: float) -> tuple[float, float]:
    """(w, u) of x̂0 = w x_t + u prediction at one time: `estimate` in numbers."""
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return float(estimate(kind, path, one, none, t)[0]), float(estimate(kind, path, none, one, t)[0])


def input_scale(kind: str, path: Path, t: Tensor | float) -> Tensor | float:
    """What the network's input x_t is multiplied with, shaped as t: c_in for `edm` (unit variance), or 1."""
    choose(kind, TARGETS, "prediction target")
    if kind != "edm":
        return torch.ones_like(t) if isinstance(t, Tensor) else 1.0
    t = torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64)
    return 1 / _edm_width(path.alpha(t), path.sigma(t))
