"""The steps that a solver is made of: where each rule takes its estimates, and how a segment moves.

A step from t to s moves a segment by

    x_s = x_t + (α_s - α_t) x̂0 + (σ_s - σ_t) ε̂,    ε̂ = (x - α x̂0) / σ,

which is DDIM (α_s x̂0 + σ_s ε̂) when both estimates are taken at t, and Euler's step on the linear path.

| rule       | estimates                                                    | evaluations | order |
|------------|--------------------------------------------------------------|-------------|-------|
| `euler`    | at t (DDIM)                                                  | n           | 1     |
| `midpoint` | half-way, after half a step                                  | 2 n         | 2     |
| `heun`     | mean of t and s; half-way in a step that ends in data        | 2 n         | 2     |
| `dpmpp_2m` | at t, x̂0 extrapolated from the step before (Lu et al. 2022)  | n           | 2     |
| `ancestral`| at t; fresh noise of the posterior's variance (Ho et al. 2020)| n           | -     |

Half-way is half the noise level σ/(α + σ): that is (t + s)/2 on the linear path, and it keeps the order on
the DDPM paths, where σ grows like sqrt(t). Karras et al. 2022 end `heun` with an Euler step, since ε̂ is not
known at t = 0; on a uniform grid that costs most of the accuracy (10 steps on a mixture of two Gaussians: an
error of 8e-3 in place of 5e-4). The step of `dpmpp_2m` (DPM-Solver++(2M)) into data is of first order: give
it a grid in σ_e, which makes that step small.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .variance import log_variance

Values = dict[str, Tensor]
Denoise = Callable[[Values, dict[str, float], int], Mapping[str, Tensor]]
"""(x, t, step) → x̂0 per segment. `step` counts evaluations, half-steps too: see `solve.Schedule`.

Under the name of a segment and `SHARE` it may return where the variance lies, for `ancestral` (see `variance`).
"""

SHARE = "/share"
Fresh = Callable[[int], Values]
"""Step → standard normal noise per segment."""


@dataclass(frozen=True)
class Point:
    """One segment's time, α and σ, as float64 numbers."""

    t: float
    alpha: float
    sigma: float

    @property
    def half_log_snr(self) -> float:
        """log(α/σ), infinite at both ends."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


Points = dict[str, Point]


@dataclass(frozen=True)
class Estimate:
    """x̂0 and ε̂ of every segment."""

    x0: Values
    eps: Values


class Evaluator:
    """Calls the network, counts, and turns x̂0 into (x̂0, ε̂)."""

    def __init__(self, denoise: Denoise, fresh: Fresh | None):
        self._denoise, self._fresh, self._count = denoise, fresh, 0
        self.shares: Values = {}

    def noise(self) -> Values:
        """Fresh noise, another after each evaluation."""
        if self._fresh is None:
            raise ValueError("this rule draws noise in every step: pass fresh=")
        return self._fresh(self._count)

    def __call__(self, x: Values, at: Points) -> Estimate:
        t = {name: point.t for name, point in at.items()}
        x0 = dict(self._denoise(x, t, self._count))
        self._count += 1
        self.shares = {name: x0[name + SHARE] for name in x if name + SHARE in x0}
        return estimate_at(x, {name: x0[name] for name in x}, at)


def estimate_at(x: Values, x0: Values, at: Points) -> Estimate:
    """ε̂ = (x - α x̂0)/σ; 0 where σ = 0, which leaves a clean segment where it is."""
    eps = {
        name: (x[name] - p.alpha * x0[name]) / p.sigma if p.sigma > 0 else torch.zeros_like(x[name])
        for name, p in at.items()
    }
    return Estimate(x0, eps)


def move(x: Values, estimate: Estimate, here: Points, there: Points) -> Values:
    """The step rule. A segment whose time stands still keeps its values, bit for bit."""
    return {
        name: value
        if here[name] == there[name]
        else value
        + (there[name].alpha - here[name].alpha) * estimate.x0[name]
        + (there[name].sigma - here[name].sigma) * estimate.eps[name]
        for name, value in x.items()
    }


@dataclass(frozen=True)
class Leg:
    """One step: where it starts and ends, half-way, and the step before it."""

    start: Points
    middle: Points
    end: Points
    before: Points | None


Step = tuple[Values, Values]
"""New values, and the x̂0 that led to them."""


def _euler(evaluate: Evaluator, x: Values, leg: Leg, _: Values | None) -> Step:
    now = evaluate(x, leg.start)
    return move(x, now, leg.start, leg.end), now.x0


def _midpoint(evaluate: Evaluator, x: Values, leg: Leg, _: Values | None) -> Step:
    now = evaluate(x, leg.start)
    half = evaluate(move(x, now, leg.start, leg.middle), leg.middle)
    return move(x, half, leg.start, leg.end), half.x0


def _ends_clean(leg: Leg) -> bool:
    """A segment moves to σ = 0, where ε̂ is not known."""
    return any(p.sigma == 0 < leg.start[name].sigma for name, p in leg.end.items())


def _heun(evaluate: Evaluator, x: Values, leg: Leg, last: Values | None) -> Step:
    if _ends_clean(leg):
        return _midpoint(evaluate, x, leg, last)
    now = evaluate(x, leg.start)
    then = evaluate(move(x, now, leg.start, leg.end), leg.end)
    mean = Estimate(
        {name: (now.x0[name] + then.x0[name]) / 2 for name in x},
        {name: (now.eps[name] + then.eps[name]) / 2 for name in x},
    )
    return move(x, mean, leg.start, leg.end), mean.x0


def _dpmpp_2m(evaluate: Evaluator, x: Values, leg: Leg, last: Values | None) -> Step:
    now = evaluate(x, leg.start)
    if leg.before is None or last is None:
        return move(x, now, leg.start, leg.end), now.x0
    x0 = dict(now.x0)
    for name, value in now.x0.items():
        weight = _extrapolation(leg.before[name], leg.start[name], leg.end[name])
        if weight:
            x0[name] = value + weight * (value - last[name])
    # The exponential integrator with x̂0 extrapolated is DDIM with it: σ_s/σ_t x + (α_s - σ_s α_t/σ_t) x̂0.
    return move(x, estimate_at(x, x0, leg.start), leg.start, leg.end), now.x0


def _ancestral(evaluate: Evaluator, x: Values, leg: Leg, _: Values | None) -> Step:
    now, noise = evaluate(x, leg.start), evaluate.noise()
    moved = {}
    for name, here in leg.start.items():
        there, x0, eps = leg.end[name], now.x0[name], now.eps[name]
        if here == there:
            moved[name] = x[name]
            continue
        beta = max(here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2, 0.0)
        least = beta * (there.sigma / here.sigma) ** 2 if here.sigma else 0.0
        spread: float | Tensor = math.sqrt(least)
        if least and name in evaluate.shares:
            logs = [x0.new_tensor(value) for value in (beta, least)]
            spread = (0.5 * log_variance(evaluate.shares[name], *logs)).exp()
        mean = there.alpha * x0 + math.sqrt(max(there.sigma**2 - least, 0.0)) * eps
        moved[name] = mean + spread * noise[name] if least else mean
    return moved, now.x0


def _extrapolation(before: Point, start: Point, end: Point) -> float:
    """h / (2 h_before) in half the log-SNR; 0 for a step that ends in data or a first one from pure noise."""
    here = start.half_log_snr
    step, step_before = end.half_log_snr - here, here - before.half_log_snr
    finite = math.isfinite(step) and math.isfinite(step_before) and step_before != 0
    return step / (2 * step_before) if finite else 0.0


@dataclass(frozen=True)
class Rule:
    """A solver.

    step: (evaluate, x, leg, x̂0 of the step before) → new values and x̂0 · besides: where it evaluates apart
    from a step's start · evaluations: of n steps.
    """

    step: Callable[[Evaluator, Values, Leg, Values | None], Step]
    besides: Callable[[Leg], Points | None]
    evaluations: Callable[[int], int]


RULES: dict[str, Rule] = {
    "euler": Rule(_euler, lambda leg: None, lambda n: n),
    "midpoint": Rule(_midpoint, lambda leg: leg.middle, lambda n: 2 * n),
    "heun": Rule(_heun, lambda leg: leg.middle if _ends_clean(leg) else leg.end, lambda n: 2 * n),
    "dpmpp_2m": Rule(_dpmpp_2m, lambda leg: None, lambda n: n),
    "ancestral": Rule(_ancestral, lambda leg: None, lambda n: n),
}
"""Every solver by name."""
