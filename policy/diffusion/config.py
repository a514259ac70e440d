"""Settings of a diffusion process and of its sampler. What is built from them: `path`, `times`, `solve`."""

from dataclasses import dataclass, field

from ...envs.errors import UserError, choose, positive
from .path import PATHS, TARGETS
from .solve import RULES
from .times import GRIDS, TIMES


@dataclass(frozen=True, kw_only=True)
class Process:
    """How one segment is noised, what is predicted, and how much its loss weighs.

    least: sampling ends with one step to data from about this time: where hardly a time below is drawn in training, the
    network has not learned to refine · ramp: updates over which the weight rises from 0 · variance: 'learned' adds the
    variational bound of the reverse step's variance (Nichol and Dhariwal 2021), which solver `ancestral` then takes;
    'fixed' takes the posterior's.
    """

    path: str = "flow"
    target: str = "velocity"
    times: str = "uniform"
    times_settings: dict[str, float] = field(default_factory=dict)
    least: float = 0.0
    weight: float = 1.0
    ramp: int = 0
    variance: str = "fixed"

    def __post_init__(self):
        choose(self.path, PATHS, "path")
        choose(self.target, TARGETS, "prediction target")
        choose(self.times, TIMES, "time distribution")
        if not 0 <= self.least < 1:
            raise UserError(f"least is a time from 0 to below 1, got {self.least}")
        choose(self.variance, ("fixed", "learned"), "variance")

    def weight_at(self, step: int) -> float:
        """The weight after so many updates."""
        return self.weight * min(1.0, step / self.ramp if self.ramp else 1.0)


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """The sampler when acting: rule, number of steps and time grid.

    cache: encode the observation once for all steps. null: where the preset allows it; false: at every step, which is
    slower and the same. plan: compute what depends on time alone once for all control steps (`plan.StepPlan`); false:
    at every step, likewise.
    """

    rule: str = "euler"
    steps: int = 10
    grid: str = "uniform"
    cache: bool | None = None
    plan: bool = True

    def __post_init__(self):
        choose(self.rule, RULES, "solver")
        choose(self.grid, GRIDS, "time grid")
        positive("solver steps", self.steps)
