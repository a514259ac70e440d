"""A scripted pusher for PushT that plans on the simulator's state.

The T slides without friction and stops at once where nothing presses, so a pusher at contact r (from the centre of
mass) that presses along f turns it, per unit of translation along f, by ``r x f / i2``, where i2 is the squared radius
of gyration. The distance to the goal is measured by the same inertia, ``|dp|^2 + i2 dtheta^2``;
of all contacts that one is chosen whose push brings it down most for the time that it takes, and pushed until it brings
no more.
"""

from typing import NamedTuple

import numpy as np

RADIUS = 15.0  # of the pusher
# The T in its own frame, counter-clockwise: its bar lies along x, its stem points along y.
OUTLINE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
CENTRE = np.array([0.0, 45.0])  # of mass
_SPACING = 7.5  # between contacts on an edge
_GAP = 8.0  # between T and pusher where a push begins
_CLEAR = RADIUS + 3.0  # between T and the middle of a pusher that passes by
_CORNER = RADIUS + 9.0  # of a way around a corner, from both its edges
_LEAD = 60.0  # how far ahead of the pusher its target is at most: decides its speed
_SPEED = 15.0  # a step, when choosing what is quick
_OVERHEAD = 4.0  # steps that any push takes
_NEAR = 3.0  # from where a push begins
_DONE = 0.4  # a push that brings the T less far is at its end


class Pose(NamedTuple):
    """Where the T is: its frame's origin (2,) and its angle [rad]."""

    position: np.ndarray
    angle: float


class Contact(NamedTuple):
    """An edge of the T by its index, and a point on it, in units of length from the edge's beginning."""

    edge: int
    along: float


def _edges() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Direction (8, 2), length (8,) and outward normal (8, 2) of the outline's edges."""
    spans = np.roll(OUTLINE, -1, 0) - OUTLINE
    lengths = np.linalg.norm(spans, axis=1)
    directions = spans / lengths[:, None]
    return directions, lengths, np.stack([directions[:, 1], -directions[:, 0]], 1)


_DIRECTIONS, _LENGTHS, _NORMALS = _edges()


def distance(points: np.ndarray) -> np.ndarray:
    """From points (..., 2) in the T's frame to its outline (...)."""
    offsets = points[..., None, :] - OUTLINE
    along = np.clip((offsets * _DIRECTIONS).sum(-1), 0, _LENGTHS)
    return np.linalg.norm(offsets - along[..., None] * _DIRECTIONS, axis=-1).min(-1)


def _contacts() -> list[Contact]:
    """All contacts that a pusher can reach; some beside the stem are too narrow for it."""
    found = []
    for edge, length in enumerate(_LENGTHS):
        for along in np.arange(_SPACING, length, _SPACING):
            point = OUTLINE[edge] + along * _DIRECTIONS[edge]
            if (distance(point + np.array([[RADIUS], [RADIUS + _GAP]]) * _NORMALS[edge]) > RADIUS - 0.1).all():
                found.append(Contact(edge, float(along)))
    return found


_CONTACTS = _contacts()
_EDGE = np.array([c.edge for c in _CONTACTS])
_POINTS = OUTLINE[_EDGE] + np.array([[c.along] for c in _CONTACTS]) * _DIRECTIONS[_EDGE]
_BEGINNINGS = _POINTS + (RADIUS + _GAP) * _NORMALS[_EDGE]
_WAY = OUTLINE + _CORNER * (_NORMALS + np.roll(_NORMALS, 1, 0))  # stops on the way around the T


class Expert:
    """The pusher's next target from the state, one control step at a time; remembers the push that it is at.

    inertia: the T's squared radius of gyration. board: the side of the square that the pusher's middle may not leave.
    """

    def __init__(self, goal: Pose, inertia: float, board: float):
        self._goal, self._inertia, self._board = goal, inertia, board
        self._contact: int | None = None  # which of _CONTACTS
        self._pushing = False

    def reset(self) -> None:
        """Begin another episode."""
        self._contact, self._pushing = None, False

    def act(self, pusher: np.ndarray, block: Pose) -> np.ndarray:
        """Where the pusher (2,) should go next (2,), given the T."""
        here = _into(block, pusher)
        if self._contact is None or self._is_over(here, block):
            self._contact, self._pushing = self._choose(here, block), False
        begin = _BEGINNINGS[self._contact]
        self._pushing = self._pushing or bool(np.linalg.norm(here - begin) < _NEAR)
        ahead = self._push(here, block) if self._pushing else self._walk(here, begin[None], block)[1] - here
        lead = min(1.0, _LEAD / max(float(np.linalg.norm(ahead)), 1e-9))
        return pusher + _rotation(block.angle) @ ahead * lead

    def _error(self, block: Pose) -> tuple[np.ndarray, float]:
        """How far the centre of mass has to go (2,), in the T's frame, and how far the T has to turn."""
        turn = (self._goal.angle - block.angle + np.pi) % (2 * np.pi) - np.pi
        to = self._goal.position + _rotation(self._goal.angle) @ CENTRE
        return _into(block, to) - CENTRE, float(turn)

    def _gain(self, points: np.ndarray, forces: np.ndarray, block: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Of the best pushes at `points` (M, 2) along `forces`: how far (M,), and what they take off the square."""
        move, turn = self._error(block)
        lever = points - CENTRE
        torque = lever[:, 0] * forces[..., 1] - lever[:, 1] * forces[..., 0]
        pull = (move * forces).sum(-1) + turn * torque
        return pull, np.maximum(pull, 0) ** 2 / (1 + torque**2 / self._inertia)

    def _choose(self, here: np.ndarray, block: Pose) -> int:
        move, turn = self._error(block)
        square = float(move @ move) + self._inertia * turn**2
        push, less = self._gain(_POINTS, -_NORMALS[_EDGE], block)
        walk, _ = self._walk(here, _BEGINNINGS, block)
        steps = _OVERHEAD + (walk + _GAP + np.maximum(push, 0)) / _SPEED
        worth = (np.sqrt(square) - np.sqrt(np.maximum(square - less, 0))) / steps
        return int(np.argmax(np.where(self._inside(_BEGINNINGS, block), worth, -1.0)))

    def _at(self, here: np.ndarray, block: Pose) -> tuple[float, float, float]:
        """Where along its edge the pusher is, its distance to it, and how far it has to push there."""
        edge = _EDGE[self._contact]
        offset = here - OUTLINE[edge]
        along, away = float(offset @ _DIRECTIONS[edge]), float(offset @ _NORMALS[edge])
        pull, _ = self._gain(OUTLINE[edge] + along * _DIRECTIONS[edge][None], -_NORMALS[edge], block)
        return along, away - RADIUS, float(pull[0])

    def _is_over(self, here: np.ndarray, block: Pose) -> bool:
        """A push that brings no more, or has slipped off its edge."""
        if not self._pushing:
            return False
        along, _, push = self._at(here, block)
        return not 0 < along < _LENGTHS[_EDGE[self._contact]] or push < _DONE

    def _push(self, here: np.ndarray, block: Pose) -> np.ndarray:
        """From the pusher to the end of its push (2,), in the T's frame."""
        _, gap, push = self._at(here, block)
        return -_NORMALS[_EDGE[self._contact]] * max(gap + push, 0.0)

    def _walk(self, here: np.ndarray, to: np.ndarray, block: Pose) -> tuple[np.ndarray, np.ndarray]:
        """The length (M,) of the shortest ways around the T to points (M, 2) of its frame, and the first leg's end (2,)
        on the way to the first of them. Where nothing is free, a long straight line."""
        stops = np.vstack([here, _WAY[self._inside(_WAY, block) & (distance(_WAY) > _CLEAR)]])
        legs = _leg(stops[:, None], stops[None])
        for middle in range(len(stops)):  # Floyd and Warshall: there are at most nine
            legs = np.minimum(legs, legs[:, middle, None] + legs[None, middle])
        last = _leg(stops[:, None], to[None])
        ways = legs[0][:, None] + last
        best = int(np.argmin(ways[:, 0]))
        if not np.isfinite(ways[best, 0]) or best == 0:
            first = to[0]
        else:
            through = _leg(here, stops[1:]) + legs[1:, best]
            first = stops[1 + int(np.argmin(through))]
        straight = 3 * np.linalg.norm(to - here, axis=-1) + 200
        shortest = ways.min(0)
        return np.where(np.isfinite(shortest), shortest, straight), first

    def _inside(self, points: np.ndarray, block: Pose) -> np.ndarray:
        world = points @ _rotation(block.angle).T + block.position
        return np.all((world > 0) & (world < self._board), axis=-1)


def _leg(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Lengths of straight ways between points (..., 2) of the T's frame; infinite where the T is in the way."""
    start, end = np.broadcast_arrays(start, end)
    points = start[..., None, :] + np.linspace(0, 1, 32)[:, None] * (end - start)[..., None, :]
    away = distance(points)
    least = np.minimum(_CLEAR, np.minimum(away[..., 0], away[..., -1]) - 0.5)
    return np.where(away.min(-1) >= least, np.linalg.norm(end - start, axis=-1), np.inf)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _into(block: Pose, point: np.ndarray) -> np.ndarray:
    """A point of the board in the T's frame."""
    return _rotation(block.angle).T @ (point - block.position)
