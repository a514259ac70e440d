"""The sampler: carry the denoised segments of a query from noise to data, beside what is observed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .diffusion.path import PATHS, estimate
from .diffusion.solve import Values, solve
from .diffusion.times import time_grid
from .model import Encoding, Model
from .segments import PARTIAL, Role, Segment, role_of


def sample(
    model: Model,
    encoding: Encoding,
    query: str,
    noise: Mapping[str, Tensor],
    given: Mapping[str, Tensor] | None = None,
    shown: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Every segment that takes part in the query, as clean tokens (B, L, C).

    noise {segment: (B, L, C)}: standard normal, for what is denoised or marginal · given {segment: (B, L, C)}: the
    values of what is observed, wholly or in part · shown {segment: (B, L) bool}: which tokens of a partly observed
    segment are; they come back unchanged, bit for bit.
    """
    given, shown = given or {}, shown or {}
    roles = {name: role for name in model.segments if (role := role_of(query, name)) != Role.ABSENT}
    fixed = {
        name: _fixed(role, noise, given, name) for name, role in roles.items() if role in (Role.OBSERVE, Role.MARGINAL)
    }
    moving = {name: shown[name] if role in PARTIAL else None for name, role in roles.items() if name not in fixed}
    processes = {name: model.config.process(name) for name in moving}
    paths = {name: PATHS[process.path] for name, process in processes.items()}

    def show(x: Values) -> Values:
        """x with what is shown put in its place."""
        masks = {name: mask for name, mask in moving.items() if mask is not None}
        return x | {name: torch.where(mask[..., None], given[name], x[name]) for name, mask in masks.items()}

    def denoise(x: Values, t: dict[str, float], step: int) -> Values:
        segments = dict(fixed)
        for name, value in show(x).items():
            clean = moving[name]
            time = value.new_full((len(value), 1), t[name])
            segments[name] = Segment(value.unsqueeze(1), time, None if clean is None else clean.unsqueeze(1))
        predictions = model.denoise(segments, encoding)
        return {
            name: estimate(processes[name].target, paths[name], x[name], predictions[name].squeeze(1), t[name])[0]
            for name in x
        }

    solver = model.config.solver
    grids = {name: time_grid(solver.grid, solver.steps, path) for name, path in paths.items()}
    start = {name: float(path.sigma(grids[name][0])) * noise[name] for name, path in paths.items()}
    found = show(solve(denoise, start, grids, paths, solver.rule))
    return {name: found[name] if name in found else given[name] for name in roles if name in found or name in given}


def _fixed(role: Role, noise: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> Segment:
    """A segment that stays as it is: observed, or pure noise drawn once."""
    values = given[name] if role == Role.OBSERVE else noise[name]
    time = values.new_full((len(values), 1), 0.0 if role == Role.OBSERVE else 1.0)
    return Segment(values.unsqueeze(1), time, observed=role == Role.OBSERVE)
