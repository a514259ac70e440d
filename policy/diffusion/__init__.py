"""Diffusion mathematics: paths and targets (`path`), times (`times`) and the sampler loop (`solve`)."""

from .path import PATHS, TARGETS, Path, estimate, expand, input_scale, noise, target
from .solve import RULES, Schedule, evaluations, solve
from .times import GRIDS, TIMES, sample_times, time_grid

__all__ = [
    "GRIDS",
    "PATHS",
    "RULES",
    "TARGETS",
    "TIMES",
    "Path",
    "Schedule",
    "estimate",
    "evaluations",
    "expand",
    "input_scale",
    "noise",
    "sample_times",
    "solve",
    "target",
    "time_grid",
]
