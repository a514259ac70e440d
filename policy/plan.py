"""The step plan: all that depends on time alone, computed once for a solver's grid and kept by the step's index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..envs.errors import UserError
from .denoiser import Denoiser, Encoding
from .nn.experts import Bank
from .nn.timed import Timed
from .segments import Segment

Times = Sequence[Mapping[str, float]]
"""Times of what is denoised, for every evaluation of the network (`diffusion.solve.Schedule`)."""


@dataclass(frozen=True)
class StepPlan:
    """What every evaluation of one query on one grid takes from its times.

    steps: of each evaluation; rows (B or 1, 1, G, R, D) are one for all samples where no condition joins the time, and
    experts that time chooses are fused · key: what all this was computed from.
    """

    times: Times
    steps: Sequence[Timed]
    key: tuple

    @classmethod
    def make(
        cls,
        model: Denoiser,
        segments: Mapping[str, Segment],
        encoding: Encoding,
        times: Times,
        bank: Bank | None = None,
    ) -> "StepPlan":
        """The plan of a query whose segments are these at the first evaluation. bank: of fused layers made before."""
        # One sample stands for all: within an evaluation each has the same times.
        now = {name: Segment(s.x[:1], s.t[:1], s.clean, s.observed) for name, s in segments.items()}
        steps = []
        for t in times:
            moved = {name: Segment(s.x, torch.full_like(s.t, t[name]), s.clean) for name, s in now.items() if name in t}
            steps.append(model.times(now | moved))
        bank = Bank() if bank is None else bank
        timed = model.timed(torch.stack(steps), encoding.condition)
        planned = [model.fused(timed[i], bank) for i in range(len(steps))]
        return cls(times, planned, plan_key(segments, encoding, times))

    def at(self, step: int, t: Mapping[str, float]) -> Timed:
        """What one evaluation takes. Raises `UserError` where the grid is another."""
        if step >= len(self.times) or self.times[step] != t:
            planned = dict(self.times[step]) if step < len(self.times) else f"{len(self.times)} evaluations in all"
            raise UserError(
                f"this step plan is for another grid: evaluation {step} is at {dict(t)}, planned: {planned}"
            )
        return self.steps[step]

    @property
    def nbytes(self) -> int:
        """Bytes that the plan keeps; a fused layer counts once."""
        fused = {id(layer): layer for timed in self.steps for route in timed.routes for layer, *_ in route.fused}
        return sum(timed.rows.nbytes for timed in self.steps) + sum(layer.nbytes for layer in fused.values())


def plan_key(segments: Mapping[str, Segment], encoding: Encoding, times: Times) -> tuple:
    """What a plan depends on beside the weights, which `Plans` follows: with the same key it is the same plan."""
    kinds = tuple((name, s.observed, s.clean is not None, float(s.t.flatten()[0])) for name, s in segments.items())
    condition = None if encoding.condition is None else encoding.condition.cpu().numpy().tobytes()
    return kinds, tuple(tuple(t.items()) for t in times), condition


class Plans:
    """The last plan of each query, made anew when what it depends on changes: grid, instruction, weights."""

    def __init__(self):
        self._version: tuple = ()
        self._forget()

    def _forget(self) -> None:
        self._kept: dict[tuple, StepPlan] = {}
        self._clean: Timed | None = None
        self._bank = Bank()

    def clean(self, model: Denoiser) -> Timed:
        """What observed tokens take, whose time is always 0."""
        self._follow(model)
        if self._clean is None:
            self._clean = model.fused(model.backbone.clean(), self._bank)
        return self._clean

    def of(self, model: Denoiser, segments: Mapping[str, Segment], encoding: Encoding, times: Times) -> StepPlan:
        """The plan of a query whose segments are these at the first evaluation."""
        self._follow(model)
        which = (*((name, s.observed) for name, s in segments.items()), *times[0])
        key = plan_key(segments, encoding, times)
        if which not in self._kept or self._kept[which].key != key:
            self._kept[which] = StepPlan.make(model, segments, encoding, times, self._bank)
        return self._kept[which]

    def _follow(self, model: Denoiser) -> None:
        """Forget what was made of other weights."""
        version = model.backbone.timed_version()
        if version != self._version:
            self._forget()
            self._version = version
