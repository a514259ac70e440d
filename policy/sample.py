"""The sampler: carry the denoised segments of a query from noise to data, beside what is observed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .config import SolverConfig
from .denoiser import Denoiser, Encoding, Wiring
from .diffusion.path import PATHS, Path, estimate
from .diffusion.solve import SHARE, Values, evaluation_times, solve
from .diffusion.times import time_grid
from .diffusion.variance import share_of
from .plan import Plans, StepPlan
from .segments import PARTIAL, Role, Segment


@dataclass(frozen=True)
class Start:
    """What sampling begins from.

    roles {segment: role} of those that take part (`segments.roles_of`) · noise {segment: (B, L, C)}: normal, for
    what is denoised or marginal · given {segment: (B, L, C)}: values of what is observed, wholly or in part · shown
    {segment: (B, L) bool}: which tokens of a partly observed segment are; they come back unchanged, bit for bit.
    """

    roles: Mapping[str, Role]
    noise: Mapping[str, Tensor]
    given: Mapping[str, Tensor] = field(default_factory=dict)
    shown: Mapping[str, Tensor] = field(default_factory=dict)
    fresh: Callable[[int], Values] | None = None

    def moving(self) -> list[str]:
        """Segments that are denoised, wholly or in part."""
        return [name for name, role in self.roles.items() if role == Role.DENOISE or role in PARTIAL]

    def fixed(self) -> dict[str, Segment]:
        """Segments that stay as they are: observed, or pure noise drawn once."""
        segments = {}
        for name, role in self.roles.items():
            if role in (Role.OBSERVE, Role.MARGINAL):
                segments[name] = _clean(self.given[name]) if role == Role.OBSERVE else _noise(self.noise[name])
        return segments

    def show(self, x: Values) -> Values:
        """x with what is shown put in its place."""
        shown = {name: mask for name, mask in self.shown.items() if self.roles[name] in PARTIAL}
        return x | {name: torch.where(mask[..., None], self.given[name], x[name]) for name, mask in shown.items()}


def sample(
    model: Denoiser,
    encoding: Encoding | Callable[[], Encoding],
    start: Start,
    solver: SolverConfig,
    *,
    guidance: float = 1.0,
    plans: Plans | None = None,
) -> dict[str, Tensor]:
    """Clean tokens (B, L, C) of every segment that is denoised or observed.

    encoding: of the observation, or a function that encodes it anew at every step.
    guidance: s of u + s (c - u), where u predicts a segment with all others as pure noise, which a network whose times
    are independent knows for free (Bao et al. 2023, UniDiffuser, §3.3); 1 for none, which saves the evaluations of u.
    plans: kept from call to call, so that what depends on time alone is computed once; None computes it at every step.
    """
    paths = {name: PATHS[model.processes[name].path] for name in start.moving()}
    fixed = start.fixed()
    grids = {name: _grid(solver, path, model.processes[name].least) for name, path in paths.items()}
    network = _Network(model, evaluation_times(solver.rule, grids, paths), plans)

    def denoise(x: Values, t: dict[str, float], step: int) -> Values:
        shown = start.show(x)
        noisy = {name: _at(value, t[name], start.shown.get(name)) for name, value in shown.items()}
        seen = encoding() if callable(encoding) else encoding
        found = network.estimates({**fixed, **noisy}, seen, x, step)
        if guidance == 1:
            return found
        return found | {name: _guided(name, noisy[name], seen, x, step) + guidance * found[name] for name in noisy}

    def _guided(name: str, segment: Segment, seen: Encoding, x: Values, step: int) -> Tensor:
        others = {other: _noise(start.noise[other]) for other in start.roles if other != name}
        return (1 - guidance) * network.estimates({**others, name: segment}, seen, {name: x[name]}, step)[name]

    first = {name: float(path.sigma(grids[name][0])) * start.noise[name] for name, path in paths.items()}
    found = start.show(solve(denoise, first, grids, paths, solver.rule, fresh=start.fresh))
    observed = {name: values for name, values in start.given.items() if start.roles[name] == Role.OBSERVE}
    return found | observed


def _grid(solver: SolverConfig, path: Path, least: float) -> Tensor:
    """The solver's times, drawn together towards noise so that the last step begins above `least`."""
    grid = time_grid(solver.grid, solver.steps, path)
    starts = least + (1 - least / path.t_max) * grid[:-1]
    return torch.cat([starts, grid[-1:]])


class _Network:
    """The denoiser on one grid: wired once for each set of segments, modulated by a plan where there is one."""

    def __init__(self, model: Denoiser, times: Sequence[Mapping[str, float]], plans: Plans | None):
        self._model, self._times, self._plans = model, times, plans
        self._prepared: dict[tuple, tuple[Wiring, StepPlan | None]] = {}

    def estimates(self, segments: dict[str, Segment], encoding: Encoding, x: Values, step: int) -> Values:
        """x̂0 of every segment of x, and where their variances lie if those are learned."""
        wiring, plan = self._prepare(segments, encoding, x)
        t = {name: self._times[step][name] for name in x}
        rows = None if plan is None else plan.at(step, t)
        predictions = self._model.denoise(segments, encoding, rows=rows, wiring=wiring)
        found = {}
        for name, value in x.items():
            process = self._model.processes[name]
            prediction = predictions[name].squeeze(1)
            if process.variance == "learned":
                prediction, raw = prediction.chunk(2, dim=-1)
                found[name + SHARE] = share_of(raw)
            found[name] = estimate(process.target, PATHS[process.path], value, prediction, t[name])[0]
        return found

    def _prepare(
        self, segments: dict[str, Segment], encoding: Encoding, moving: Values
    ) -> tuple[Wiring, StepPlan | None]:
        which = (*((name, s.observed) for name, s in segments.items()), *moving)
        if which not in self._prepared:
            times = [{name: t[name] for name in moving} for t in self._times]
            plan = None if self._plans is None else self._plans.of(self._model, segments, encoding, times)
            self._prepared[which] = self._model.wiring(segments, encoding), plan
        return self._prepared[which]


def _at(x: Tensor, t: float, shown: Tensor | None) -> Segment:
    time = x.new_full((len(x), 1), t)
    return Segment(x.unsqueeze(1), time, None if shown is None else shown.unsqueeze(1))


def _clean(x: Tensor) -> Segment:
    return Segment(x.unsqueeze(1), x.new_zeros(len(x), 1), observed=True)


def _noise(x: Tensor) -> Segment:
    return Segment(x.unsqueeze(1), x.new_ones(len(x), 1))
