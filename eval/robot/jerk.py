"""How smoothly a robot was driven: the jerk of what was sent to it, above all where one chunk gives way to the next."""

from collections.abc import Mapping

import numpy as np

from ...envs.fields import columns
from ...envs.spec import Embodiment

SPAN = 3
"""Control steps that a third difference spans beyond the one where a jump is: the jump shows in these."""


def jerk(sent: np.ndarray, embodiment: Embodiment) -> np.ndarray:
    """The size of the third difference of where each step sent the robot (N,), NaN for the first three.

    In the driven state's unit per step³; of efforts, which send it nowhere, there is none.
    """
    rows = {limit.field: limit for limit in embodiment.limits}
    thirds = []
    for field, places in columns(embodiment.action):
        limit, part = rows.get(field.name), sent[:, places].astype(np.float64)
        if limit is not None and limit.kind != "effort":
            place = limit.scale * (part.cumsum(axis=0) if limit.kind == "delta" else part)
            thirds.append(np.diff(place, 3, axis=0))
    third = np.concatenate(thirds, axis=1) if thirds and len(sent) > 3 else np.zeros((max(0, len(sent) - 3), 0))
    return np.concatenate([np.full(min(3, len(sent)), np.nan), np.linalg.norm(third, axis=1)])


def jerk_at_joints(traces: Mapping[int, Mapping[str, np.ndarray]], embodiment: Embodiment) -> tuple[float, float]:
    """Root mean square of the jerk at the steps where a new chunk took over (and the two after), and elsewhere."""
    at, elsewhere = [np.zeros(0)], [np.zeros(0)]
    for trace in traces.values():
        size = jerk(trace["sent"], embodiment)
        joint = np.isin(trace["step"], np.add.outer(trace["joints"], np.arange(SPAN)))
        at.append(size[joint & np.isfinite(size)])
        elsewhere.append(size[~joint & np.isfinite(size)])
    a, b = (float(np.sqrt(np.mean(np.concatenate(x) ** 2))) if sum(map(len, x)) else np.nan for x in (at, elsewhere))
    return a, b


def seams(trace: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of a trace (`logbook.write_trace`) at which the source of the actions changed: a chunk gave way to the next,
    ran out, or came after a rest. The first action of all is none.
    """
    told = np.isfinite(trace["asked"].sum(axis=1))  # where there was no action it is NaN
    changed = np.flatnonzero(told[1:] != told[:-1]) + 1
    found = np.union1d(changed, np.flatnonzero(np.isin(trace["step"], trace["joints"])))
    return found[found > np.argmax(told)] if told.any() else found[:0]


def peaks(trace: Mapping[str, np.ndarray], embodiment: Embodiment, hz: float) -> np.ndarray:
    """The largest jerk around each seam of a trace, in the driven state's unit per s³: (seams,)."""
    size = np.append(jerk(trace["sent"], embodiment), np.full(SPAN, np.nan)) * hz**3
    around = size[np.add.outer(seams(trace), np.arange(SPAN))]
    return np.nanmax(around[np.isfinite(around).any(axis=1)], axis=1, initial=0.0)
