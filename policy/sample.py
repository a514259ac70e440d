"""The sampler: carry the denoised segments of a query from noise to data, beside what is observed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from .denoiser import Denoiser, Encoding
from .diffusion.config import SolverConfig
from .diffusion.path import PATHS, Path, x0_weights
from .diffusion.solve import SHARE, Schedule, Values, solve
from .diffusion.times import time_grid
from .diffusion.variance import share_of
from .plan import Plans, StepPlan
from .segments import PARTIAL, Role, Segment
from .wiring import Wiring


@dataclass(frozen=True)
class Start:
    """What sampling begins from.

    roles {segment: role} of those that take part (`segments.roles_of`) · noise {segment: (B, L, C)}: normal, for
    what is denoised or marginal · given {segment: (B, L, C)}: values of what is observed, wholly or in part · shown
    {segment: (B, L) bool}: which tokens of a partly observed segment are; they come back unchanged, bit for bit ·
    fresh: an evaluation → new normal noise {segment: (B, L, C)}, for solvers that add some (`ancestral`).
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
    network: "Network",
    encoding: Encoding | Callable[[], Encoding],
    start: Start,
    *,
    guidance: float = 1.0,
) -> dict[str, Tensor]:
    """Clean tokens (B, L, C) of every segment that is denoised or observed.

    encoding: of the observation, or a function that encodes it anew at every step.
    guidance: s of u + s (c - u), where u predicts a segment with all others as pure noise, which a network whose times
    are independent knows for free (Bao et al. 2023, UniDiffuser, §3.3); 1 for none, which saves the evaluations of u.
    """
    schedule, fixed = network.schedule(start.moving()), start.fixed()

    def denoise(x: Values, t: dict[str, float], step: int) -> Values:
        shown = start.show(x)
        noisy = {name: _at(value, t[name], start.shown.get(name)) for name, value in shown.items()}
        seen = encoding() if callable(encoding) else encoding
        found = network.estimates({**fixed, **noisy}, seen, x, schedule, step)
        if guidance == 1:
            return found
        return found | {name: _guided(name, noisy[name], seen, x, step) + guidance * found[name] for name in noisy}

    def _guided(name: str, segment: Segment, seen: Encoding, x: Values, step: int) -> Tensor:
        segments = {other: _noise(start.noise[other]) for other in start.roles if other != name} | {name: segment}
        return (1 - guidance) * network.estimates(segments, seen, {name: x[name]}, schedule, step)[name]

    first = {name: point.sigma * start.noise[name] for name, point in schedule.legs[0].start.items()}
    found = start.show(solve(denoise, first, schedule, fresh=start.fresh))
    observed = {name: values for name, values in start.given.items() if start.roles[name] == Role.OBSERVE}
    return found | observed


class Network:
    """The denoiser with its solver, for one observation: wired once for each set of segments.

    plans: kept from one observation to the next, so that what depends on time alone is computed once; None computes it
    at every step.
    """

    def __init__(self, model: Denoiser, solver: SolverConfig, plans: Plans | None = None):
        self._model, self._solver, self._plans = model, solver, plans
        self._prepared: dict[tuple, tuple[Wiring, StepPlan | None]] = {}

    def schedule(self, moving: Sequence[str]) -> Schedule:
        """The solver's way for the segments that are denoised."""
        processes = [self._model.processes[name] for name in moving]
        solver = self._solver
        which = tuple((name, process.path, process.least) for name, process in zip(moving, processes, strict=True))
        return _schedule(solver.rule, solver.grid, solver.steps, which)

    def estimates(
        self, segments: dict[str, Segment], encoding: Encoding, x: Values, schedule: Schedule, step: int
    ) -> Values:
        """x̂0 of every segment of x at an evaluation, and where their variances lie if those are learned."""
        wiring, plan = self._prepare(segments, encoding, schedule, x)
        t = {name: schedule.times[step][name] for name in x}
        timed = None if plan is None else plan.at(step, t)
        predictions = self._model.denoise(segments, encoding, timed=timed, wiring=wiring)
        found = {}
        for name, value in x.items():
            process = self._model.processes[name]
            prediction = predictions[name].squeeze(1)
            if process.variance == "learned":
                prediction, raw = prediction.chunk(2, dim=-1)
                found[name + SHARE] = share_of(raw)
            kept, new = x0_weights(process.target, PATHS[process.path], t[name])
            found[name] = new * prediction if kept == 0 else kept * value + new * prediction
        return found

    def _prepare(
        self, segments: dict[str, Segment], encoding: Encoding, schedule: Schedule, moving: Values
    ) -> tuple[Wiring, StepPlan | None]:
        which = (*((name, s.observed) for name, s in segments.items()), *moving)
        if which not in self._prepared:
            times = [{name: t[name] for name in moving} for t in schedule.times]
            plan = None if self._plans is None else self._plans.of(self._model, segments, encoding, times)
            self._prepared[which] = self._model.wiring(segments, encoding), plan
        return self._prepared[which]


@lru_cache(maxsize=64)
def _schedule(rule: str, grid: str, steps: int, segments: tuple[tuple[str, str, float], ...]) -> Schedule:
    paths = {name: PATHS[path] for name, path, _ in segments}
    return Schedule.along(
        {name: solver_grid(grid, steps, paths[name], least) for name, _, least in segments}, paths, rule
    )


def solver_grid(kind: str, steps: int, path: Path, least: float) -> Tensor:
    """The solver's times, drawn together towards noise so that the last step begins above `least`."""
    grid = time_grid(kind, steps, path)
    starts = least + (1 - least / path.t_max) * grid[:-1]
    return torch.cat([starts, grid[-1:]])


def _at(x: Tensor, t: float, shown: Tensor | None) -> Segment:
    time = x.new_full((len(x), 1), t)
    return Segment(x.unsqueeze(1), time, None if shown is None else shown.unsqueeze(1))


def _clean(x: Tensor) -> Segment:
    return Segment(x.unsqueeze(1), x.new_zeros(len(x), 1), observed=True)


def _noise(x: Tensor) -> Segment:
    return Segment(x.unsqueeze(1), x.new_ones(len(x), 1))
