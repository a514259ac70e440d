"""One sampler loop for every path, target and solver.

Each segment of a sample (actions, future frames, …) has its own path and its own times, which step together. The rules
of a step are in rules.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...envs.errors import UserError, choose
from .path import Path
from .rules import RULES, SHARE, Denoise, Evaluator, Fresh, Leg, Point, Points, Values

__all__ = ["RULES", "SHARE", "Schedule", "Values", "evaluations", "solve"]


def _points(times: Mapping[str, Tensor], paths: Mapping[str, Path]) -> list[Points]:
    """Times (n,) per segment → n points per segment."""
    columns = {}
    for name, t in times.items():
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        alpha, sigma = paths[name].alpha(t), paths[name].sigma(t)
        columns[name] = [Point(*row) for row in zip(t.tolist(), alpha.tolist(), sigma.tolist(), strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _halfway(grids: Mapping[str, Tensor], paths: Mapping[str, Path]) -> list[Points]:
    """The points half-way between each two of the grid, in noise level."""
    times = {}
    for name, grid in grids.items():
        level = paths[name].level(torch.as_tensor(grid, dtype=torch.float64, device="cpu"))
        times[name] = paths[name].time_at((level[1:] + level[:-1]) / 2)
    return _points(times, paths)


@dataclass(frozen=True)
class Schedule:
    """A solver's way along a grid, all in numbers: made once, walked with every sample.

    legs: the steps · times: those of every evaluation of the network, in order: row `step` is the `t` of that call.
    """

    rule: str
    legs: tuple[Leg, ...]
    times: tuple[dict[str, float], ...]

    @classmethod
    def along(cls, grids: Mapping[str, Tensor], paths: Mapping[str, Path], rule: str = "euler") -> "Schedule":
        """grids: n + 1 times per segment, equal in number. They fall to sample, rise to invert, or stand still.

        Raises `UserError` for an unknown rule, grids of unequal length, or a grid that leaves t = 0 (x̂0 alone does not
        say which noise to add; begin an inversion at a small time).
        """
        besides = RULES[choose(rule, RULES, "solver")].besides
        points = _checked_points(grids, paths)
        legs = tuple(
            Leg(points[k], middle, points[k + 1], points[k - 1] if k else None)
            for k, middle in enumerate(_halfway(grids, paths))
        )
        evaluated = [at for leg in legs for at in (leg.start, besides(leg)) if at is not None]
        return cls(rule, legs, tuple({name: point.t for name, point in row.items()} for row in evaluated))


def evaluations(rule: str, n: int) -> int:
    """How often n steps call the network."""
    return RULES[choose(rule, RULES, "solver")].evaluations(n)


def solve(
    denoise: Denoise,
    x: Values,
    schedule: Schedule,
    callback: Callable[[int, Values, Values], None] | None = None,
    fresh: Fresh | None = None,
) -> Values:
    """Carry every segment of x along its grid, usually from noise to data.

    Args:
        denoise: the network, as x̂0; called with numbers for times and the index of the evaluation.
        x: values at the first time of each grid; noise starts as σ ε.
        callback: called with (step from 0, new values, x̂0) after each step.
        fresh: noise for `ancestral`, which draws some in every step.
    """
    if x.keys() != schedule.legs[0].start.keys():
        raise ValueError(f"segments differ: x {list(x)}, schedule {list(schedule.legs[0].start)}")
    step = RULES[schedule.rule].step
    evaluate, x0 = Evaluator(denoise, fresh), None
    for k, leg in enumerate(schedule.legs):
        x, x0 = step(evaluate, x, leg, x0)
        if callback is not None:
            callback(k, x, x0)
    return x


def _checked_points(grids: Mapping[str, Tensor], paths: Mapping[str, Path]) -> list[Points]:
    lengths = {name: len(grid) for name, grid in grids.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) < 2:
        raise UserError(f"all segments take the same number of steps, at least one; grid lengths: {lengths}")
    points = _points(grids, paths)
    for here, there in pairwise(points):
        for name in grids:
            if here[name].sigma == 0 < there[name].sigma:
                raise UserError(f"the grid of {name!r} leaves t = 0, where the noise is not known; start it above 0")
    return points
