"""The step plan: all that depends on time alone, computed once for a solver's grid and kept by the step's index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..envs.errors import UserError
from .denoiser import Denoiser, Encoding
from .segments import Segment

Times = Sequence[Mapping[str, float]]
"""Times of what is denoised, for every evaluation of the network (`diffusion.solve.Schedule`)."""


@dataclass(frozen=True)
class StepPlan:
    """Modulation rows of every evaluation of one query on one grid.

    rows (S, B or 1, 1, G, R, D): evaluation, sample (one for all where no condition joins the time), draw, distinct
    times, rows of the backbone, width · key: what the rows were computed from.
    """

    times: Times
    rows: Tensor
    key: tuple

    @classmethod
    def make(cls, model: Denoiser, segments: Mapping[str, Segment], encoding: Encoding, times: Times) -> "StepPlan":
        """The plan of a query whose segments are these at the first evaluation."""
        # One sample stands for all: within an evaluation each has the same times.
        now = {name: Segment(s.x[:1], s.t[:1], s.clean, s.observed) for name, s in segments.items()}
        steps = []
        for t in times:
            moved = {name: Segment(s.x, torch.full_like(s.t, t[name]), s.clean) for name, s in now.items() if name in t}
            steps.append(model.times(now | moved))
        rows = model.modulation(torch.stack(steps), encoding.condition)
        return cls(times, rows, plan_key(model, segments, encoding, times))

    def at(self, step: int, t: Mapping[str, float]) -> Tensor:
        """The rows (B or 1, 1, G, R, D) of one evaluation. Raises `UserError` where the grid is another."""
        if step >= len(self.times) or self.times[step] != t:
            planned = dict(self.times[step]) if step < len(self.times) else f"{len(self.times)} evaluations in all"
            raise UserError(
                f"this step plan is for another grid: evaluation {step} is at {dict(t)}, planned: {planned}"
            )
        return self.rows[step]

    @property
    def nbytes(self) -> int:
        """Bytes that the plan keeps."""
        return self.rows.nbytes


def plan_key(model: Denoiser, segments: Mapping[str, Segment], encoding: Encoding, times: Times) -> tuple:
    """What a plan depends on, weights included: a plan with the same key is the same plan."""
    kinds = tuple((name, s.observed, s.clean is not None, float(s.t.flatten()[0])) for name, s in segments.items())
    condition = None if encoding.condition is None else encoding.condition.cpu().numpy().tobytes()
    return kinds, tuple(tuple(t.items()) for t in times), condition, model.backbone.modulation_version()


class Plans:
    """The last plan of each query, made anew when what it depends on changes: grid, instruction, weights."""

    def __init__(self):
        self._kept: dict[tuple, StepPlan] = {}
        self._clean: tuple[tuple, Tensor] | None = None

    def clean(self, model: Denoiser) -> Tensor:
        """Modulation rows of observed tokens, whose time is always 0."""
        version = model.backbone.modulation_version()
        if self._clean is None or self._clean[0] != version:
            self._clean = version, model.backbone.clean_modulation()
        return self._clean[1]

    def of(self, model: Denoiser, segments: Mapping[str, Segment], encoding: Encoding, times: Times) -> StepPlan:
        """The plan of a query whose segments are these at the first evaluation."""
        which = (*((name, s.observed) for name, s in segments.items()), *times[0])
        key = plan_key(model, segments, encoding, times)
        if which not in self._kept or self._kept[which].key != key:
            self._kept[which] = StepPlan.make(model, segments, encoding, times)
        return self._kept[which]
