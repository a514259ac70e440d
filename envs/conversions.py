"""From a robot's own numbers to those of the shared slots and back: rotations, grippers, units.

Rotations in slots are 6D: the first two columns of the rotation matrix, one after the other (Zhou et al. 2019, §B; the
order of RDT's data). Forward functions take numpy arrays and torch tensors alike, because training converts on the
device; backward ones take numpy.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Conversion(NamedTuple):
    """A rotation (..., size) of a robot: into (..., 6), and back from any six numbers, orthonormal or not."""

    size: int
    unit: str
    into: Callable[[Any], Any]
    back: Callable[[np.ndarray], np.ndarray]


def _library(x: Any) -> Any:
    """numpy, or torch, which is never imported here: the names used below are the same in both."""
    return sys.modules[type(x).__module__.partition(".")[0]]


def _stack(parts: list[Any]) -> Any:
    return _library(parts[0]).stack(parts, -1)


def from_quaternion(q: Any) -> Any:
    """Quaternions (..., 4), real part first, of any length but 0, to 6D."""
    w, x, y, z = (q[..., i] / (q * q).sum(-1) ** 0.5 for i in range(4))
    return _stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
            2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
        ]
    )  # fmt: skip


def to_quaternion(six: np.ndarray) -> np.ndarray:
    """6D to unit quaternions (..., 4) whose real part is first and not negative: q and -q are one rotation."""
    m = to_matrix(six)
    d = np.stack([m[..., i, i] for i in range(3)], -1)
    x, y, z = d[..., 0], d[..., 1], d[..., 2]
    # Four times the squares of w, x, y, z: divided by the largest, no quotient is ill-conditioned (Shepperd 1978).
    squares = np.stack([1 + x + y + z, 1 + x - y - z, 1 - x + y - z, 1 - x - y + z], -1)
    wx, wy, wz = (m[..., j, i] - m[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1)))
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    w2, x2, y2, z2 = (squares[..., i] for i in range(4))
    rows = [(w2, wx, wy, wz), (wx, x2, xy, xz), (wy, xy, y2, yz), (wz, xz, yz, z2)]
    products = np.stack([np.stack(row, -1) for row in rows], -2)  # (..., 4, 4): 4 q qᵀ
    q = np.take_along_axis(products, squares.argmax(-1)[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def to_matrix(six: np.ndarray) -> np.ndarray:
    """6D to the nearest-in-order rotation matrices (..., 3, 3): Gram and Schmidt's (Zhou et al. 2019, eq. 15)."""
    a, b = six[..., :3], six[..., 3:]
    a = a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-8)
    b = b - (a * b).sum(-1, keepdims=True) * a
    b = b / np.maximum(np.linalg.norm(b, axis=-1, keepdims=True), 1e-8)
    return np.stack([a, b, np.cross(a, b)], -1)


def _from_axis_angle(v: Any) -> Any:
    """Axis times angle [rad] (..., 3)."""
    xp = _library(v)
    angle = (v * v).sum(-1)[..., None] ** 0.5
    half_sine = xp.sinc(angle / (2 * np.pi)) / 2  # sin(angle / 2) / angle, at 0 too
    return from_quaternion(xp.concatenate([xp.cos(angle / 2), v * half_sine], -1))


def _to_axis_angle(six: np.ndarray) -> np.ndarray:
    q = to_quaternion(six)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    return q[..., 1:] * np.where(sine < 1e-8, 2, angle / np.maximum(sine, 1e-8))


def _from_euler(v: Any) -> Any:
    """Roll, pitch, yaw [rad] (..., 3) about fixed axes: R = Rz Ry Rx."""
    xp = _library(v)
    (cx, cy, cz), (sx, sy, sz) = ([f(v[..., i]) for i in range(3)] for f in (xp.cos, xp.sin))
    return _stack([cz * cy, sz * cy, -sy, cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx])


def _to_euler(six: np.ndarray) -> np.ndarray:
    m = to_matrix(six)
    level = np.hypot(m[..., 0, 0], m[..., 1, 0])
    locked = level < 1e-6  # roll and yaw turn about the same axis: give all to yaw
    roll = np.where(locked, 0, np.arctan2(m[..., 2, 1], m[..., 2, 2]))
    yaw = np.where(locked, np.arctan2(-m[..., 0, 1], m[..., 1, 1]), np.arctan2(m[..., 1, 0], m[..., 0, 0]))
    return np.stack([roll, np.arctan2(-m[..., 2, 0], level), yaw], -1)


def _last_first(q: Any) -> Any:
    return from_quaternion(q[..., [3, 0, 1, 2]])


def _from_heading(h: Any) -> Any:
    """Cosine and sine (..., 2) of a turn about the vertical."""
    cosine, sine = h[..., 0], h[..., 1]
    zero = cosine * 0
    return _stack([cosine, sine, zero, -sine, cosine, zero])


def _to_heading(six: np.ndarray) -> np.ndarray:
    m = to_matrix(six)[..., :2, 0]
    return m / np.maximum(np.linalg.norm(m, axis=-1, keepdims=True), 1e-8)


ROTATIONS: dict[str, Conversion] = {
    "heading": Conversion(2, "1", _from_heading, _to_heading),
    "quaternion_wxyz": Conversion(4, "quaternion", from_quaternion, to_quaternion),
    "quaternion_xyzw": Conversion(4, "quaternion", _last_first, lambda six: to_quaternion(six)[..., [1, 2, 3, 0]]),
    "axis_angle": Conversion(3, "rad", _from_axis_angle, _to_axis_angle),
    "euler_xyz": Conversion(3, "rad", _from_euler, _to_euler),
    "matrix": Conversion(
        9,
        "1",
        lambda m: m[..., [0, 3, 6, 1, 4, 7]],
        lambda six: to_matrix(six).reshape(*six.shape[:-1], 9),
    ),
}
"""Ways to write a rotation: matrices (3, 3) lie row by row, a heading is a turn about the vertical alone."""

CONVERSIONS = ("linear", "gripper", *ROTATIONS)
"""How a field's numbers become those of slots: by units alone, by a gripper's range, as rotations."""

UNITS: dict[str, tuple[str, float]] = {
    "m": ("m", 1.0), "cm": ("m", 1e-2), "mm": ("m", 1e-3),
    "rad": ("rad", 1.0), "deg": ("rad", np.pi / 180),
    "m/s": ("m/s", 1.0), "cm/s": ("m/s", 1e-2), "mm/s": ("m/s", 1e-3),
    "rad/s": ("rad/s", 1.0), "deg/s": ("rad/s", np.pi / 180),
    "open": ("open", 1.0), "open/s": ("open/s", 1.0), "1": ("1", 1.0),
}  # fmt: skip
"""Unit → the SI unit of slots, and how many of it: 'open' is 0 for a shut gripper and 1 for an open one."""


def in_slots(unit: str, hz: float) -> tuple[str, float] | None:
    """The slots' unit of a field's unit and how many of it; a change per control step is a velocity at `hz` steps a
    second. None for an unknown one."""
    plain, _, step = unit.partition("/step")
    if step or plain not in UNITS:
        return None
    of, factor = UNITS[plain]
    return (of, factor) if plain == unit else (f"{of}/s", factor * hz)
