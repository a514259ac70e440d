"""How sure a comparison is: arms of a few networks each (training seeds) that all met the same episodes.

A bootstrap over two or three training seeds claims too much (of two it draws one of them twice half of the time). So
the variance of a mean is taken apart, as in a crossed design of networks x episodes with both drawn at random (Searle,
Casella and McCulloch 1992, Variance Components, ch. 4), and the interval is Student's t:

    Var(mean of S networks on n episodes) = v / S + e / n

v: between networks of one arm, as measured on these episodes, so with each network's luck on them · e: what makes an
episode hard for all networks, or in a difference of arms harder for one arm. v is pooled over the arms of a comparison:
one pair of seeds says little, nine pairs say enough. That takes arms to vary alike: beside ones near 0 or 100 %, which
hardly vary, the interval of an arm in the middle is too narrow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Outcomes:
    """Success (S, E) of an arm's networks on the episodes that all of them met, and each episode's task (E,)."""

    success: np.ndarray
    task: np.ndarray

    @property
    def rates(self) -> np.ndarray:
        """Mean over tasks of the success rate, of each network: (S,)."""
        return np.mean([self.success[:, of].mean(1) for of in _tasks(self.task)], axis=0)


@dataclass(frozen=True)
class Spread:
    """How far networks of one recipe lie apart, pooled over arms.

    networks: variance of their rates · luck: the part of it that is one network's luck with single episodes · degrees:
    of freedom of `networks`, 0 where no arm has two networks: then an interval is of these networks alone.
    """

    networks: float
    luck: float
    degrees: int

    @classmethod
    def of(cls, arms: Sequence[Outcomes]) -> "Spread":
        """Pooled over the arms of one comparison, all of which met the same episodes."""
        several = [arm for arm in arms if len(arm.success) > 1]
        degrees = sum(len(arm.success) - 1 for arm in several)
        if not degrees:
            return cls(0.0, 0.0, 0)
        between = sum(float(np.square(arm.rates - arm.rates.mean()).sum()) for arm in several)
        luck = np.zeros(len(_tasks(several[0].task)))
        for arm in several:
            luck += [_luck(arm.success[:, of]) for of in _tasks(arm.task)]
        return cls(between / degrees, float(luck.sum() / len(luck) ** 2 / degrees), degrees)


def interval(mean: np.ndarray, task: np.ndarray, share: float, spread: Spread, level: float = 0.95) -> list[float]:
    """Interval of a rate, or of a difference of two.

    mean (E,): of each episode, over an arm's networks; or of one arm less that of another · share: 1/S, or the sum of
    both arms' 1/S. Never narrower than the rule of three: where all episodes agree, 3/E stays possible.
    """
    tasks = _tasks(task)
    rate = float(np.mean([mean[of].mean() for of in tasks]))
    episodes = sum(_variance(mean[of]) / of.sum() for of in tasks) / len(tasks) ** 2
    between = share * max(spread.networks, spread.luck)
    main = max(0.0, episodes - share * spread.luck)
    variance = between + main
    degrees = 1e9  # as good as normal
    if spread.degrees and variance:  # Satterthwaite 1946
        degrees = variance**2 / (between**2 / spread.degrees + main**2 / max(1, len(mean) - len(tasks)))
    least = 3 / (len(tasks) * min(int(of.sum()) for of in tasks))
    half = max(float(stdtrit(degrees, 0.5 + level / 2)) * math.sqrt(variance), least)
    return [rate - half, rate + half]


def _tasks(task: np.ndarray) -> list[np.ndarray]:
    """Which episodes are of each task: one (E,) bool for each."""
    return [task == name for name in dict.fromkeys(task.tolist())]


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _luck(success: np.ndarray) -> float:
    """(S - 1) times the variance of a network's rate (S, n) on one task that neither network nor episode explains."""
    n = success.shape[1]
    left = success - success.mean(0) - success.mean(1, keepdims=True) + success.mean()
    return float(np.square(left).sum() / (n - 1) / n) if n > 1 else 0.0
