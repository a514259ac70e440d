"""The robots of the known slot tables with small cameras, and parts of others: their simulators are not needed."""

from dataclasses import replace

from .. import SUITES
from ..spec import Camera, Embodiment, Field
from . import with_slots

_CAMERAS = {"ogbench-ur5e": ("front", "side"), "fetch": ("front",)}


def field(name: str, size: int, unit: str = "m", low: float = -1.0, high: float = 1.0) -> Field:
    return Field(name=name, unit=unit, low=(low,) * size, high=(high,) * size)


def camera(name: str, pixels: int = 32) -> Camera:
    return Camera(name=name, mount=name, height=pixels, width=pixels)


def _small(robot: Embodiment) -> Embodiment:
    return replace(robot, cameras=tuple(camera(name) for name in _CAMERAS.get(robot.name, ("top",))))


ROBOTS: dict[str, Embodiment] = {suite.embodiment.name: _small(suite.embodiment) for suite in SUITES.values()}
"""A robot of each of `slot_tables.TABLES`, without places as its stores may be."""


def placed(name: str) -> Embodiment:
    return with_slots(ROBOTS[name])
