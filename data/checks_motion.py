"""The doctor's checks of cause and effect: does the robot move as its actions say?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..envs.fields import columns
from .demonstrate import LABELLED
from .evidence import Evidence, Problem, Rows, is_gripper

_LAGS = np.arange(-8, 13)  # steps from an action to the motion it is compared to
_SOON = (_LAGS >= 0) & (_LAGS <= 6)
_ENOUGH = 20  # steps
_SETTLED = 25  # steps after which a gripper has followed a constant effort


class _Pair(NamedTuple):
    """An action dimension and the state dimension that it drives."""

    action: int
    state: int
    name: str
    field: str
    absolute: bool  # the action is a target for the state, not a motion


def pairs(e: Evidence) -> list[_Pair]:
    """Matched by name ('hand_delta' drives 'hand_position'): same first word, same size, not a gripper."""
    found = []
    for action, a in columns(e.embodiment.action):
        for state, s in columns(e.embodiment.state):
            same = action.name.split("_")[0] == state.name.split("_")[0] and action.size == state.size
            if same and not is_gripper(action):
                motion = any(word in action.name for word in ("delta", "velocity", "speed"))
                absolute = action.unit == state.unit and not motion
                names = (f"{action.name}[{k}]" for k in range(action.size))
                parts = zip(a, s, names, strict=True)
                found += [_Pair(int(i), int(j), name, action.name, absolute) for i, j, name in parts]
    return found


def disagreement(e: Evidence) -> Iterator[Problem]:
    """Signs, axes and shifts in time show in the correlation of executed actions with the motion after them."""
    if not {"state", "action_executed"} <= e.arrays.keys():
        return
    matched = pairs(e)
    for episode in e.episodes:
        curves = {pair: _curve(e, episode, pair, pair) for pair in matched}
        known = {pair: curve for pair, curve in curves.items() if curve is not None}
        for pair, curve in known.items():
            if found := _disagrees(e, episode, matched, pair, curve):
                yield found
        if len(known) > 1 and not -1 <= (lag := int(_LAGS[np.mean(list(known.values()), axis=0).argmax()])) <= 11:
            when = f"{-lag} steps before" if lag < 0 else f"more than {lag - 1} steps after"
            message = f"the robot moves {when} the action that is to cause it"
            remedy = "row n must hold the action that was taken at the state of row n"
            yield Problem("error", episode.where, message, remedy)
    yield from _unlike_executed(e)


def _disagrees(e: Evidence, episode: Rows, matched: list[_Pair], pair: _Pair, curve: np.ndarray) -> Problem | None:
    with_it, against_it = curve[_SOON].max(), -curve[_SOON].min()
    if against_it > 0.5 and against_it > with_it + 0.4:
        message = f"{pair.name}: the robot moves against action_executed (correlation {-against_it:.2f})"
        return Problem("error", episode.where, message, "turn the sign of this action or state dimension")
    for other in matched:
        cross = _curve(e, episode, pair, other) if other.field == pair.field and other != pair else None
        if cross is not None and cross[_SOON].max() > max(0.5, with_it + 0.6):
            instead = f"correlation {cross[_SOON].max():.2f}, with its own {with_it:.2f}"
            message = f"{pair.name} moves what {other.name} should ({instead})"
            return Problem("error", episode.where, message, "bring the dimensions of action and state into one order")
    if np.abs(curve).max() < 0.1:
        message = f"{pair.name}: the motion has nothing to do with action_executed"
        return Problem("warning", episode.where, message, "check that both come from the same episode and robot")
    return None


def _unlike_executed(e: Evidence) -> Iterator[Problem]:
    """`action` and `action_executed` differ by exploration only, which leaves most of the motion in common, unless the
    expert labelled another's drive."""
    arm = [c for f, c in columns(e.embodiment.action) if not is_gripper(f)]
    if "action" not in e.arrays or not arm:
        return
    arm, ranges = np.concatenate(arm), e.embodiment.action_high - e.embodiment.action_low
    for episode in e.episodes:
        if episode.source.partition("@")[0] == LABELLED:
            continue
        learned, executed = (e.of(episode, name)[:, arm] for name in ("action", "action_executed"))
        apart = np.nan_to_num(np.median(np.abs(learned - executed), axis=0) / ranges[arm])
        inverse = [k for k in range(len(arm)) if _correlation(learned[:, k], executed[:, k]) < -0.3]
        if inverse or apart.max() > 0.15:
            which = arm[inverse[0]] if inverse else arm[apart.argmax()]
            how = "are opposed" if inverse else f"usually differ by {apart.max():.0%} of the range"
            message = f"action[{which}] and action_executed[{which}] {how}"
            remedy = "one of the two has another sign, scale or order: check both"
            yield Problem("error", episode.where, message, remedy)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one of the two hardly varies."""
    if not np.isfinite(a).all() or not np.isfinite(b).all() or a.std() < 1e-3 or b.std() < 1e-3:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def saturated_grippers(e: Evidence) -> Iterator[Problem]:
    """A gripper that does not follow its effort, or stands still where the other episodes of its task use it."""
    state = [c[0] for f, c in columns(e.embodiment.state) if is_gripper(f) and f.size == 1]
    action = [(c[0], f.high[0] - f.low[0]) for f, c in columns(e.embodiment.action) if is_gripper(f) and f.size == 1]
    if not {"state", "action_executed"} <= e.arrays.keys() or len(state) != 1 or len(action) != 1:
        return
    (effort, range_), opening = action[0], int(state[0])
    field = next(f for f in e.embodiment.state if is_gripper(f))
    width = field.high[0] - field.low[0]
    for episodes in e.by_task().values():
        ranges = [float(np.ptp(e.of(x, "state")[:, opening])) / width for x in episodes]
        for episode, used in zip(episodes, ranges, strict=True):
            efforts = e.of(episode, "action_executed")[:, effort]
            others = np.median([r for x, r in zip(episodes, ranges, strict=True) if x is not episode] or [used])
            if np.ptp(efforts) > 0.25 * range_ and used < 0.02:
                message = f"the opening stays at {e.of(episode, 'state')[0, opening]:.2f} while the effort changes"
            elif others > 0.02 and used < 0.1 * others:
                message = f"the opening never changes; it does in the other episodes of {episode.task}"
            elif _ignores_effort(e, episode, efforts, opening, width):
                message = f"the opening does not follow a constant effort of {efforts[0]:.2f}"
            else:
                continue
            remedy = "check the gripper's sign, unit and driver, and leave the episode out"
            yield Problem("error", episode.where, message, remedy)


def _ignores_effort(e: Evidence, episode: Rows, efforts: np.ndarray, opening: int, width: float) -> bool:
    """A constant full effort leaves the gripper moving back and forth, or at the wrong end."""
    settled = (e.of(episode, "state")[_SETTLED:, opening]) / width
    if len(settled) < 5 or np.ptp(efforts) > 0 or abs(efforts[0]) < 0.9:
        return False
    closes = e.embodiment.conventions.get("gripper", "").startswith("effort +1 closes")
    wrong_end = closes and (settled.min() > 0.8 if efforts[0] > 0 else settled.max() < 0.2)
    return bool(np.ptp(settled) > 0.25 or wrong_end)


def _curve(e: Evidence, episode: Rows, cause: _Pair, effect: _Pair) -> np.ndarray | None:
    """Correlation of an executed action with the motion `lag` steps later, per lag; None if too little moves."""
    action = e.of(episode, "action_executed")[:-1, cause.action]
    state = e.of(episode, "state")
    action = action - state[:-1, cause.state] if cause.absolute else action
    motion = np.diff(state[:, effect.state])
    if len(action) < _ENOUGH + len(_LAGS) or not (np.isfinite(action).all() and np.isfinite(motion).all()):
        return None
    values = []
    for lag in _LAGS:
        a, m = (action[: len(action) - lag], motion[lag:]) if lag >= 0 else (action[-lag:], motion[:lag])
        if a.std() < 1e-3 or m.std() < 1e-5:
            return None
        values.append(float(np.corrcoef(a, m)[0, 1]))
    return np.array(values)
