"""No action gets past a limit: what is sent to a robot, from what a policy asked for.

Every component moves something by so much in a control step: a delta moves the driven state from where it is measured,
a target from where the last one was. That move is held to acceleration, velocity, the action's bounds and the
workspace, in this order, so that where a disturbed robot leaves no move that keeps all four, the workspace is kept.
Before a wall a move is only as long as can still be braked: with w ≤ `longest`, w + (w − A) + (w − 2A) + … ≤ the room
that is left. Then "brake as hard as allowed" is always among the allowed moves, and the four never contradict each
other on a robot that does not overshoot.
"""

from collections.abc import Sequence

import numpy as np

from ...envs.errors import UserError
from ...envs.fields import columns
from ...envs.spec import Embodiment

LIMITS = ("acceleration", "velocity", "bounds", "workspace", "force")
"""In the order in which they are applied; a force is an effort's."""


def longest(room: np.ndarray, brake: np.ndarray) -> np.ndarray:
    """The longest move (A,) of a step towards a wall at distance `room` that can still be braked by `brake` a step."""
    n = np.maximum(np.ceil((np.sqrt(1 + 8 * np.minimum(room / brake, 1e30)) - 1) / 2), 1)
    return (room + brake * n * (n - 1) / 2) / n


class Limiter:
    """Holds the actions of one robot to its table of limits, one control step after another.

    without: limits that are not held; other names are ignored. Raises `UserError` for a robot with an action field that
    has no row.
    """

    def __init__(self, embodiment: Embodiment, hz: float, without: Sequence[str] = ()):
        self.embodiment, self.without = embodiment, set(without)
        rows = {limit.field: limit for limit in embodiment.limits}
        if lacking := [f.name for f in embodiment.action if f.name not in rows]:
            raise UserError(
                f"robot {embodiment.name!r} has no limits for its action {', '.join(lacking)}: give limits=FILE, a "
                "JSON list with a row for each field of the action (docs/robot.md)"
            )
        limits = [rows[f.name] for f in embodiment.action]
        sizes = [f.size for f in embodiment.action]

        def column(values: Sequence[float | None]) -> np.ndarray:
            return np.repeat([np.inf if v is None else float(v) for v in values], sizes)

        def kinds(kind: str) -> np.ndarray:
            return np.repeat([limit.kind == kind for limit in limits], sizes)

        def held(name: str, values: np.ndarray) -> np.ndarray:
            return np.full_like(values, np.inf) if name in self.without else values

        self.names = [f.name for f in embodiment.action for _ in range(f.size)]
        self.delta, self.target, self.effort = kinds("delta"), kinds("target"), kinds("effort")
        self.scale = column([limit.scale for limit in limits])
        self.velocity = held("velocity", column([limit.velocity for limit in limits]) / hz)
        self.acceleration = held("acceleration", column([limit.acceleration for limit in limits]) / hz**2)
        self.force = held("force", column([limit.force for limit in limits]))
        low, high = embodiment.action_low * self.scale, embodiment.action_high * self.scale
        self.low, self.high = -held("bounds", -low), held("bounds", high)
        box_low, box_high = _box([limit.low for limit in limits], sizes, -1), _box([x.high for x in limits], sizes, 1)
        self.box_low, self.box_high = -held("workspace", -box_low), held("workspace", box_high)
        self._driven = _driven(embodiment, [limit.drives for limit in limits], sizes)
        self._move = self._held = np.zeros(len(self.scale))  # the last move; the last target or effort

    def begin(self, state: np.ndarray) -> None:
        """A robot at rest in `state` (S,). Raises `UserError` where that is outside the workspace."""
        place = self._place(state)
        reach = 1e-3 * np.where(np.isfinite(self.box_high - self.box_low), self.box_high - self.box_low, 0)
        out = ~self.effort & ((place < self.box_low - reach) | (place > self.box_high + reach))
        if out.any():
            i = int(np.argmax(out))
            raise UserError(
                f"{self.names[i]} begins outside its workspace: {place[i]:g} is not in {self.box_low[i]:g} to "
                f"{self.box_high[i]:g}; move the robot inside, or say safety.without=[workspace]"
            )
        self._move, self._held = np.zeros_like(place), np.where(self.target, np.clip(place, *self._walls()), 0.0)

    def rest(self) -> np.ndarray:
        """The action (A,) to ask for when there is none: targets and efforts held, deltas 0."""
        return np.where(self.delta, 0.0, self._held / self.scale)

    def limit(self, action: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, list[tuple[str, str, float, float]]]:
        """What may be sent for a finite action (A,) in a measured state (S,): (A,) float32, and what had to be changed
        as (limit, field, asked, allowed), the worst component of each limit, in the action's units.
        """
        asked = np.clip(np.asarray(action, np.float64), -1e30, 1e30) * self.scale
        place = np.where(self.target, self._held, self._place(state))
        move = np.where(self.delta, asked, asked - place)
        changes: list[tuple[str, str, float, float]] = []
        for name, low, high in self._steps(place):
            allowed = np.where(self.effort, move, np.clip(move, low, high))
            changes += self._changed(name, move, allowed)
            move = allowed
        effort = asked / self.scale
        for name, low, high in self._efforts():
            allowed = np.where(self.effort, np.clip(effort, low, high), effort)
            changes += self._changed(name, effort * self.scale, allowed * self.scale)
            effort = allowed
        self._move = move
        self._held = np.where(self.effort, effort * self.scale, place + move)
        sent = np.where(self.effort, effort, np.where(self.delta, move, place + move) / self.scale).astype(np.float32)
        if "bounds" not in self.without:  # a rounding may stand out by a bit
            sent = np.clip(sent, self.embodiment.action_low, self.embodiment.action_high)
        return sent, changes

    def _walls(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the driven state may be sent; of a target the action's own bounds are walls as well."""
        low = np.where(self.target, np.maximum(self.box_low, self.low), self.box_low)
        return low, np.where(self.target, np.minimum(self.box_high, self.high), self.box_high)

    def _steps(self, place: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """The limits of a move from `place`, in the order in which they are applied."""
        free = np.full_like(place, np.inf)
        below, above = (np.maximum(room, 0) for room in (place - self.box_low, self.box_high - place))
        near, far = (np.maximum(room, 0) for room in (place - self.low, self.high - place))
        brake = self.acceleration
        return [
            ("acceleration", self._move - brake, self._move + brake),
            ("velocity", -self.velocity, self.velocity),
            (
                "bounds",
                np.where(self.delta, self.low, np.where(self.target, -_stop(near, brake), -free)),
                np.where(self.delta, self.high, np.where(self.target, _stop(far, brake), free)),
            ),
            ("workspace", -_stop(below, brake), _stop(above, brake)),
        ]

    def _efforts(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        return [("bounds", self.low / self.scale, self.high / self.scale), ("force", -self.force, self.force)]

    def _changed(self, name: str, asked: np.ndarray, allowed: np.ndarray) -> list[tuple[str, str, float, float]]:
        by = np.abs(asked - allowed) / self.scale
        i = int(by.argmax())
        changed = by[i] > 1e-6 * max(1.0, abs(float(allowed[i]) / self.scale[i]))
        ends = (float(values[i] / self.scale[i]) for values in (asked, allowed))
        return [(name, self.names[i], *ends)] if changed else []  # type: ignore[list-item]

    def _place(self, state: np.ndarray) -> np.ndarray:
        """The driven state of each component (A,); 0 for efforts, which drive none."""
        return np.where(self._driven >= 0, np.asarray(state, np.float64)[self._driven], 0.0)


def _stop(room: np.ndarray, brake: np.ndarray) -> np.ndarray:
    """`longest`, also where there is no wall or no limit of the acceleration."""
    braked = longest(np.where(np.isfinite(room), room, 0.0), np.where(np.isfinite(brake), brake, 1.0))
    return np.where(np.isfinite(room) & np.isfinite(brake), braked, room)


def _box(walls: Sequence[tuple[float, ...]], sizes: Sequence[int], side: int) -> np.ndarray:
    """One wall of the workspace (A,), endlessly far away where there is none."""
    return np.concatenate([np.array(wall or (side * np.inf,) * n, float) for wall, n in zip(walls, sizes, strict=True)])


def _driven(embodiment: Embodiment, drives: Sequence[str], sizes: Sequence[int]) -> np.ndarray:
    """Which component of the state each component of the action drives (A,); -1: none."""
    places = {field.name: where for field, where in columns(embodiment.state)}
    return np.concatenate([places[d] if d else np.full(n, -1) for d, n in zip(drives, sizes, strict=True)])
