"""An independent count of limit violations, from nothing but what a robot was sent and where it was.

It shares no code with `limiter.py`: two people who read the same table must come to the same result.
"""

from collections import Counter

import numpy as np

from ...envs.spec import Embodiment

TOLERANCE = 2e-6  # of an action's size: it is float32, and an acceleration is the difference of three of them


class Referee:
    """Looks at every action that reaches a robot; `violations` counts those of the episode by rule."""

    def __init__(self, embodiment: Embodiment, hz: float):
        self.embodiment, self.hz = embodiment, hz
        self.begin()

    def begin(self) -> None:
        """An episode begins, with the robot at rest and no violations."""
        self.violations: Counter[str] = Counter()
        self._before: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # field → (last place sent to, last move)

    def see(self, action: np.ndarray, state: np.ndarray) -> None:
        """An action (A,) that is about to move the robot from the measured state (S,)."""
        if action.shape != (self.embodiment.action_dim,) or not np.isfinite(action).all():
            self.violations["finite"] += 1
            return
        start, rows = 0, {limit.field: limit for limit in self.embodiment.limits}
        for field in self.embodiment.action:
            sent = action[start : start + field.size].astype(np.float64)
            start += field.size
            self._count("bounds", sent - np.array(field.high), sent)
            self._count("bounds", np.array(field.low) - sent, sent)
            limit = rows[field.name]
            if limit.kind == "effort":
                self._count("force", np.abs(sent) - (np.inf if limit.force is None else limit.force), sent)
                continue
            measured = self._measured(limit.drives, state) if limit.drives else np.zeros(field.size)
            here, moved = self._before.get(field.name, (measured, np.zeros(field.size)))
            move = limit.scale * sent if limit.kind == "delta" else limit.scale * sent - here
            place = measured + move if limit.kind == "delta" else limit.scale * sent
            size = np.maximum(np.abs(place), limit.scale * np.abs(sent))
            if limit.velocity is not None:
                self._count("velocity", np.abs(move) - limit.velocity / self.hz, size)
            if limit.acceleration is not None:
                self._count("acceleration", np.abs(move - moved) - limit.acceleration / self.hz**2, size)
            if limit.low:
                # outside already, pushed there by someone: only a move farther out is a fault
                self._count("workspace", np.minimum(place - np.array(limit.high), move), size)
                self._count("workspace", np.minimum(np.array(limit.low) - place, -move), size)
            self._before[field.name] = place, move

    def _measured(self, name: str, state: np.ndarray) -> np.ndarray:
        start = 0
        for field in self.embodiment.state:
            if field.name == name:
                return np.asarray(state[start : start + field.size], np.float64)
            start += field.size
        raise KeyError(name)

    def _count(self, rule: str, beyond: np.ndarray, size: np.ndarray) -> None:
        self.violations[rule] += int((beyond > TOLERANCE * np.maximum(1.0, size)).any())
