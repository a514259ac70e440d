"""Which action belongs to which control step, when chunks come late: four modes that are rows of one table."""

from dataclasses import dataclass

import numpy as np

from ...envs.errors import UserError
from ..chunks import Chunks


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How chunks become actions.

    waits: the robot rests while the policy thinks, and a chunk begins when it comes; else it belongs to the steps from
    its look on, and what is late in it is skipped, unless the robot has rested since the look · averages: all chunks
    that know a step vote · continues: the next chunk begins with the actions that will be executed until it comes, and
    gives way softly from the old to the new.
    """

    waits: bool = False
    averages: bool = False
    continues: bool = False


MODES = {
    "sync": Mode(waits=True),
    "horizon": Mode(),
    "ensemble": Mode(averages=True),
    "realtime": Mode(continues=True),
}


def overlap_weights(committed: int, overlap: int) -> np.ndarray:
    """What the old chunk weighs in each of the `overlap` steps that both know: Black et al. 2025, eq. 5.

    1 for the committed ones, then c (e^c - 1) / (e - 1) with c falling in a line from just below 1 towards 0.
    """
    free = overlap - committed
    c = np.clip((overlap - np.arange(overlap)) / (free + 1), 0, 1) if free >= 0 else np.ones(overlap)
    return np.where(np.arange(overlap) < committed, 1.0, c * np.expm1(c) / np.expm1(1))


class Timeline:
    """The chunks of one episode by control step: when to look, what is decided already, which action is next.

    horizon: actions in a chunk · n_action_steps: steps from one look to the next · ensemble: the weight of a mode
    that averages (`chunks.Chunks`), None for 0.01.
    """

    def __init__(self, mode: Mode, horizon: int, n_action_steps: int, ensemble: float | None = None):
        self.mode, self.horizon, self.n_action_steps = mode, horizon, n_action_steps
        self.joints: list[int] = []  # steps at which a new chunk took over
        self._chunks = Chunks((0.01 if ensemble is None else ensemble) if mode.averages else None)
        self._asked = self._newest = -horizon  # the steps of the last look, and of the newest chunk's
        self._until = 0  # 'waits': when the actions that are to be executed are used up

    def wants(self, step: int) -> bool:
        """Is it time to look, if nobody is thinking?"""
        if self.mode.waits:
            return step >= self._until
        return step >= self._asked + self.n_action_steps or not self._chunks.covers(step)

    def look(self, step: int, delay: int) -> np.ndarray | None:
        """A look at `step` whose answer takes `delay` steps: the actions (d, A) with which its chunk must begin."""
        self._asked = step
        if not (self.mode.continues and delay and self._chunks.covers(step)):
            return None
        known = sum(1 for i in range(min(delay, self.horizon // 2)) if self._chunks.covers(step + i))
        return self._chunks.actions(step, known)

    def add(self, looked: int, chunk: np.ndarray, step: int, committed: int = 0) -> bool:
        """A chunk (K, A) of the look at `looked` came at `step`. False: it is of no use, being past or overtaken."""
        if self.mode.waits:
            looked, self._until = step, step + self.n_action_steps
        if looked <= self._newest or step >= looked + len(chunk):
            return False
        if not any(self._chunks.covers(s) for s in range(looked, step + 1)):
            looked = step  # the robot still is where it was seen
        if self.mode.continues:
            chunk = self._joined(looked, chunk, max(committed, step - looked))
        if self._chunks.covers(step):
            self.joints.append(step)
        self._newest = looked
        self._chunks.add(looked, chunk)
        return True

    def action(self, step: int) -> np.ndarray | None:
        """The action (A,) of a step; None where no chunk has one."""
        over = self.mode.waits and step >= self._until
        return self._chunks.actions(step, 1)[0] if self._chunks.covers(step) and not over else None

    def _joined(self, looked: int, chunk: np.ndarray, committed: int) -> np.ndarray:
        overlap = sum(1 for i in range(len(chunk)) if self._chunks.covers(looked + i))
        if not overlap:
            return chunk
        weights = overlap_weights(min(committed, overlap), overlap)[:, None]
        old = self._chunks.actions(looked, overlap)
        return np.concatenate([weights * old + (1 - weights) * chunk[:overlap], chunk[overlap:]]).astype(np.float32)


def check_cover(mode: Mode, horizon: int, n_action_steps: int, delay: int, hz: float) -> None:
    """`UserError` where the actions of a chunk run out before the next one comes, saying where.

    delay: control steps from a look to its answer. The next look comes no sooner, and its answer as much later.
    """
    arrives = max(delay, n_action_steps) + delay
    if not mode.waits and arrives > horizon:
        raise UserError(
            f"an answer takes {delay} control steps ({1e3 * delay / hz:.0f} ms) at {hz:g} Hz, so the next chunk comes "
            f"{arrives} steps after the look of the last, whose {horizon} actions run out at step {horizon}: "
            f"{arrives - horizon} steps of each {max(delay, n_action_steps)} would have none. Take a faster policy or "
            "runtime, a lower hz, a smaller n_action_steps, a longer horizon, or uncovered=rest to let the robot rest "
            "there"
        )
