"""From the actions of a robot's own steps to those that, repeated in every step of a longer one, do the same.

A change is repeated, so that the mean of a group moves as far as the group; of targets, and of efforts, the last holds.
Which a field is the embodiment says itself: by the kind of its limit, by the unit of its place in the slots, or by how
far its target is followed in a step.
"""

import numpy as np

from .errors import UserError
from .slot_tables import TABLES, with_slots
from .spec import Embodiment, Field

_CHANGES = ("/step", "/s")


def changes(embodiment: Embodiment) -> np.ndarray:
    """Which numbers of an action are changes, and not what is to be reached: (A,) bool.

    Raises `UserError` for a field of which nothing tells.
    """
    told = with_slots(embodiment) if embodiment.own_name in TABLES else embodiment
    kinds = {limit.field: limit.kind for limit in told.limits}
    of_fields = [np.full(field.size, _is_change(field, kinds.get(field.name), told.name)) for field in told.action]
    return np.concatenate([np.zeros(0, bool), *of_fields])


def _is_change(field: Field, kind: str | None, robot: str) -> bool:
    if kind in ("delta", "target"):
        return kind == "delta"
    unit = (field.place.unit if field.place else "") or field.unit
    if unit.endswith(_CHANGES):
        return True
    if kind or field.place or field.per_step:
        return False
    raise UserError(
        f"action field {field.name!r} of {robot!r} cannot be told at another rate: nothing says if it is a change or "
        "what is to be reached; give its data source slots=FILE.yaml (docs/embodiments.md), or its robot limits"
    )


def first_steps(episode_ends: np.ndarray, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (M,) with which each group of `every` steps begins, and where the episodes (E,) end among these groups.

    episode_ends: (E,) rising. No group goes beyond its episode; its last one may be shorter.
    """
    starts = np.concatenate([[0], episode_ends])[: len(episode_ends)]
    parts = [np.arange(start, end, every) for start, end in zip(starts, episode_ends, strict=True)]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return np.concatenate([np.zeros(0, np.int64), *parts]), ends


def repeated(actions: np.ndarray, first: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The action (M, A) of each group of steps: the mean where it is a change, the last elsewhere.

    actions: (N, A) · first: (M,) rows with which the groups begin, each at the end of the one before · change: (A,)
    """
    if not len(first):
        return actions
    ends = np.append(first[1:], len(actions))
    means = np.add.reduceat(actions, first, axis=0, dtype=np.float64) / (ends - first)[:, None]
    return np.where(change, means, actions[ends - 1]).astype(actions.dtype)
