"""From chunks of predicted actions to the action of each step."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Chunks:
    """The chunks of one episode and the actions that they decide: receding horizon or temporal ensemble."""

    ensemble: float | None
    held: list[tuple[int, np.ndarray]] = field(default_factory=list)  # (step of the look, (K, A))

    def add(self, step: int, chunk: np.ndarray) -> None:
        """A chunk (K, A) of the look at `step`. Without an ensemble it takes the place of the one before."""
        self.held = [(s, c) for s, c in self.held if s + len(c) > step] if self.ensemble is not None else []
        self.held.append((step, chunk))

    def covers(self, step: int) -> bool:
        """Is there an action for that step?"""
        return any(0 <= step - s < len(c) for s, c in self.held)

    def actions(self, step: int, n: int) -> np.ndarray:
        """The next actions (n, A) from `step` on."""
        return np.stack([self._action(s) for s in range(step, step + n)])

    def _action(self, step: int) -> np.ndarray:
        votes = np.stack([c[step - s] for s, c in self.held if 0 <= step - s < len(c)])  # oldest first
        if self.ensemble is None or len(votes) == 1:
            return votes[-1]
        weights = np.exp(-self.ensemble * np.arange(len(votes)))
        return ((weights / weights.sum()) @ votes.astype(np.float64)).astype(np.float32)
