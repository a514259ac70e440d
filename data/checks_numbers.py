"""The doctor's checks of states and actions.

Limits come from the embodiment's bounds and from the store itself. They are loose enough that clean
demonstrations of all 50 Metaworld tasks pass: experts there hold an action at its bound for whole episodes, keep the
gripper's effort constant, and push against things that do not move.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ..envs.fields import columns
from .evidence import Evidence, Problem, Rows, is_gripper, span

_ACTIONS = ("action", "action_executed")


def not_finite(e: Evidence) -> Iterator[Problem]:
    for name, values in e.arrays.items():
        for episode in e.episodes:
            bad = np.argwhere(~np.isfinite(values[episode.rows]))
            if len(bad):
                first = f"step {bad[0, 0]}, dimension {bad[0, 1]}"
                message = f"{name} has {len(bad)} NaN or infinite values, the first at {first}"
                yield Problem("error", episode.where, message, "leave the episode out")


def out_of_bounds(e: Evidence) -> Iterator[Problem]:
    """Actions must keep to their bounds exactly; states may go beyond by their own range (bounds are nominal)."""
    kinds = dict.fromkeys(_ACTIONS, (e.embodiment.action, 0.0001)) | {"state": (e.embodiment.state, 1.0)}
    for name, (fields, slack) in kinds.items():
        if name not in e.arrays:
            continue
        for field, where in columns(fields):
            low, high = np.array(field.low), np.array(field.high)
            slack_ = slack * (high - low)
            for episode in e.episodes:
                values = e.of(episode, name)[:, where]
                share = np.mean((values < low - slack_) | (values > high + slack_))
                if share > 0:
                    message = (
                        f"{name}: {share:.1%} of {field.name} is outside its bounds {field.low} … {field.high} "
                        f"(it goes from {np.nanmin(values):.3g} to {np.nanmax(values):.3g})"
                    )
                    remedy = f"check the unit ({field.unit}), or clip before storing"
                    yield Problem("error", episode.where, message, remedy)


def clipped_inside(e: Evidence) -> Iterator[Problem]:
    """Cut off at ±m, inside the bounds: several edges with many values at exactly the same distance from zero."""
    for name in _ACTIONS:
        for episode in e.episodes if name in e.arrays else ():
            edges = sorted(_edges(e, episode, name))
            for a, b in pairwise(edges):
                if b - a <= 1e-5 * b:
                    message = f"{name} is cut off at ±{a:.3g}, inside its bounds"
                    remedy = "find where it is clipped before it is scaled, and collect again"
                    yield Problem("error", episode.where, message, remedy)
                    break


def _edges(e: Evidence, episode: Rows, name: str) -> Iterator[float]:
    for field, where in columns(e.embodiment.action):
        for k, low, high in zip(where, field.low, field.high, strict=True):
            values = e.of(episode, name)[:, k]
            for sign, bound in ((1, high), (-1, -low)):
                top = float(np.max(sign * values))
                many = np.mean(sign * values >= top - 1e-6 * abs(top)) >= 0.05
                if 0.01 * bound < top < 0.97 * bound and many and len(np.unique(values)) > 10 and not is_gripper(field):
                    yield top


def constant_actions(e: Evidence) -> Iterator[Problem]:
    """An arm whose action never changes; one dimension alone may rest only at a bound, where an expert pushes."""
    for name in _ACTIONS:
        for episode in e.episodes if name in e.arrays else ():
            values = e.of(episode, name)
            arm = [
                (k, f.low[i], f.high[i])
                for f, c in columns(e.embodiment.action)
                if not is_gripper(f)
                for i, k in enumerate(c)
            ]
            still = [(k, low, high) for k, low, high in arm if len(values) > 1 and np.ptp(values[:, k]) == 0]
            inside = [k for k, low, high in still if low < values[0, k] < high]
            if arm and (len(still) == len(arm) or inside):
                which = "all dimensions" if len(still) == len(arm) else f"dimension {inside[0]}"
                message = f"{name} is constant in {which} ({values[0, [k for k, *_ in still]]})"
                yield Problem("error", episode.where, message, "leave the episode out, and look at the recorder")


def time_gaps(e: Evidence) -> Iterator[Problem]:
    """One step much longer than those around it: rows are missing there. A body with mass gains speed over several."""
    for field, where in columns(e.embodiment.state) if "state" in e.arrays else ():
        if is_gripper(field):  # fingers snap
            continue
        steps = [np.linalg.norm(np.diff(e.of(x, "state")[:, where], axis=0), axis=1) for x in e.episodes]
        usual = max(0.01 * span(field), np.nanpercentile(np.concatenate(steps), 90)) if steps else 0.0
        for episode, jump in zip(e.episodes, steps, strict=True):
            around = np.pad(jump, 2)
            near = np.max([around[:-4], around[1:-3], around[3:-1], around[4:]], axis=0)
            for step in np.flatnonzero((jump > usual) & (jump > 2.5 * near + 0.002 * span(field)))[:1]:
                message = (
                    f"{field.name} jumps by {jump[step]:.3g} from step {step} to {step + 1}, {near[step]:.3g} around it"
                )
                remedy = "steps were lost: leave the episode out, or cut it there"
                yield Problem("error", episode.where, message, remedy)
