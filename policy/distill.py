"""Consistency distillation: a student that does in one step what its teacher does in many.

The solver's grid of K steps splits time into K pieces. From any time t inside a piece the student predicts the point at
which the teacher's path leaves the piece, so K evaluations carry noise to data (Song et al. 2023, Consistency Models,
§4, in pieces as in Heek et al. 2024, Multistep Consistency Models, §3). One small DDIM step of the teacher and the
student's own prediction from there give the target:

    x_t' = teacher(x_t, t → t'),   z = student(x_t', t' → s),   student(x_t, t → s) should be z,

where s < t is the piece's end; at t' = s the teacher alone decides.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError, positive
from .config import ModelConfig
from .denoiser import Denoiser, Encoding
from .device import autocast
from .diffusion.config import Process, SolverConfig
from .diffusion.path import PATHS, Path, estimate, expand, target
from .fingerprint import fingerprint
from .fitting import Batches, TrainConfig
from .inputs import unbatched
from .loss import Drawn, Lesson, Losses, objective
from .observation import Observation
from .policy import Policy
from .sample import solver_grid
from .segments import QUERIES
from .trainer import Trainer
from .validate import looking, told


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A student: it acts with `steps` evaluations, and learns from a teacher that takes `substeps` within each."""

    name: str = "distill"
    steps: int = 2
    substeps: int = 16

    def __post_init__(self):
        positive("steps", self.steps)
        positive("substeps", self.substeps)

    def student(self, teacher: ModelConfig) -> ModelConfig:
        """The teacher's preset, which acts in fewer steps and learns what acting needs."""
        acting = {teacher.acting, "continue"} & teacher.draws.keys()
        solver = SolverConfig(rule="euler", steps=self.steps, cache=teacher.solver.cache)
        draws = {query: max(1.0, teacher.draws[query]) for query in teacher.draws if query in acting}
        return dataclasses.replace(teacher, name=f"{teacher.name}/{self.steps}-step", solver=solver, draws=draws)


class Consistency(Lesson):
    """The lesson of one batch, which both networks have encoded."""

    def __init__(self, about: DistillConfig, teacher: Denoiser, seen: Encoding, own: Encoding):
        self.about, self.teacher, self.seen, self.own = about, teacher, seen, own

    def grid(self, process: Process) -> Tensor:
        """Falling times (K n + 1,): the solver's grid, each of its steps in n equal parts."""
        ends = solver_grid("uniform", self.about.steps, PATHS[process.path], process.least)
        parts = torch.arange(self.about.substeps) / self.about.substeps
        inside = ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * parts
        return torch.cat([inside.flatten(), ends[-1:]]).float()

    def times(self, process: Process, size: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
        grid = self.grid(process).to(device)
        return grid[torch.randint(len(grid) - 1, size, generator=generator, device=device)]

    @torch.no_grad()
    def wanted(self, model: Denoiser, drawn: Mapping[str, Drawn], names: Sequence[str]) -> dict[str, Tensor]:
        rows = slice(len(next(iter(drawn.values())).x0))
        segments = {name: one.seen for name, one in drawn.items()}
        taught = self._x0(self.teacher, segments, self.seen[rows], names)
        after, ends = {}, {}
        for name in names:
            path, seen = PATHS[model.processes[name].path], segments[name]
            grid = self.grid(model.processes[name]).to(seen.t.device)
            at = (grid - seen.t[..., None]).abs().argmin(-1)  # the grid falls
            ends[name] = grid[(at // self.about.substeps + 1) * self.about.substeps]
            moved = jump(path, seen.x, taught[name], seen.t, grid[at + 1])
            after[name] = dataclasses.replace(seen, x=_keep(seen.clean, seen.x, moved), t=grid[at + 1])
        training = model.training
        model.eval()  # what teaches has no dropout
        own = self._x0(model, segments | after, self.own[rows], names)
        model.train(training)
        found = {}
        for name in names:
            process, seen, next_ = model.processes[name], segments[name], after[name]
            path, s = PATHS[process.path], ends[name]
            there = (next_.t == s)[..., None, None]
            z = torch.where(there, next_.x, jump(path, next_.x, own[name], next_.t, s))
            x0 = landing(path, seen.x, z, seen.t, s)
            alpha, sigma = path.alpha(expand(seen.t, x0)), path.sigma(expand(seen.t, x0))
            found[name] = target(process.target, path, x0, (seen.x - alpha * x0) / sigma, seen.t)
        return found

    @staticmethod
    def _x0(
        model: Denoiser, segments: Mapping[str, Any], encoding: Encoding, names: Sequence[str]
    ) -> dict[str, Tensor]:
        predictions, found = model.denoise(segments, encoding), {}
        for name in names:
            process, seen = model.processes[name], segments[name]
            path, prediction = PATHS[process.path], predictions[name].float()
            found[name] = estimate(process.target, path, seen.x, prediction, seen.t)[0]
        return found


def jump(path: Path, x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """DDIM from t to s < t: x_s = α_s x̂0 + σ_s ε̂."""
    t, s = expand(t, x), expand(s, x)
    return path.alpha(s) * x0 + path.sigma(s) * (x - path.alpha(t) * x0) / path.sigma(t)


def landing(path: Path, x: Tensor, z: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The x̂0 with which DDIM from x at t lands on z at s: the inverse of `jump` (Salimans and Ho 2022, app. G)."""
    t, s = expand(t, x), expand(s, x)
    ratio = path.sigma(s) / path.sigma(t)
    return (z - ratio * x) / (path.alpha(s) - ratio * path.alpha(t))


def _keep(clean: Tensor | None, x: Tensor, moved: Tensor) -> Tensor:
    return moved if clean is None else torch.where(clean[..., None], x, moved)


class Distiller(Trainer):
    """Training of a student, which begins as a copy of its teacher, normalisers included."""

    def __init__(self, data: Any, about: DistillConfig, config: TrainConfig, teacher: Policy):
        if any(teacher.model.processes[n].variance == "learned" for n in QUERIES[teacher.config.acting]):
            raise UserError(
                f"teacher {teacher.config.name!r} learned variances, which few deterministic steps do not use: "
                "distil one with variance: fixed"
            )
        if config.align:
            raise UserError(f"align={config.align} is a loss that a student does not have; align=0")
        super().__init__(data, about.student(teacher.config), config, start=teacher)
        self.about, self.teacher = about, teacher
        self.origin = {**self.origin, "teacher": fingerprint(teacher.model)}

    def losses(self, sources: Batches, generator: torch.Generator) -> Losses:
        def teach(observation: Observation, own: Encoding) -> Lesson:
            with torch.no_grad():
                return Consistency(self.about, self.teacher.model, self.teacher.model.encode(observation), own)

        with autocast(self.precision, self.device):
            return objective(
                self.model, self.policy.transforms, [told(self.policy, batch) for batch in sources], generator,
                image_shift=self.config.image_shift, state_noise=self.state_noise, source_weights=self.source_weights,
                step=self.step, teach=teach,
            )  # fmt: skip

    def validate(self) -> dict[str, float]:
        """How far chunks are from the teacher's of the same noise, in units of their spread; the looking metrics."""
        policy, held_out = self.averaged(), self.held_out
        batch = held_out.batch(np.linspace(0, len(held_out) - 1, min(len(held_out), 64)).astype(int))
        words = [self.teacher.sentences.known[i] for i in batch.task.tolist()]
        seen, keys = unbatched(batch), [(0, i) for i in range(len(batch))]
        wanted, found = (p.act(seen, words, keys) for p in (self.teacher, policy))
        error = np.sqrt(np.mean((found - wanted) ** 2)) / max(float(wanted.std()), 1e-9)
        return {"val/teacher": float(error)} | {f"look/{k}": v for k, v in looking(policy, held_out).items()}
