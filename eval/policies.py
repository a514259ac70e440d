"""What a rollout needs of a policy, and what it asks it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..envs.spec import Embodiment
from .stage import Observation

Key = tuple[int, ...]  # (seed, episode, step)


@runtime_checkable
class Policy(Protocol):
    """What a rollout needs of a policy; `foreact.policy.load_policy` returns one.

    It may have more: `obs_stride` (default 1), `device`, `in_steps(n)` → the same in n solver steps, where
    `can_continue` the argument `committed` of `act`, a list of the actions (d, A) or None with which each chunk begins,
    and where `can_imagine`: `future_offsets` and `imagine(observations, instructions, keys)` → {camera: (B, F, H, W, 3)
    u8}.
    """

    @property
    def embodiment(self) -> Embodiment:
        """The robot that it is for."""
        ...

    @property
    def tasks(self) -> Sequence[str]:
        """Ids of the tasks that it was trained on."""
        ...

    @property
    def n_obs_steps(self) -> int:
        """Observations in a look, the last one now."""
        ...

    @property
    def horizon(self) -> int:
        """Actions in a chunk, K."""
        ...

    @property
    def n_action_steps(self) -> int:
        """How many of them are executed before the next look."""
        ...

    def act(
        self,
        observations: list[Observation],
        instructions: list[str],
        keys: list[Key],
        batch_shape: int | None = None,
    ) -> np.ndarray:
        """Chunks (B, K, A) in the environment's units; each row's noise depends on its key alone."""
        ...


def every_on(policy: Any, robot: Embodiment) -> int:
    """How many steps of a robot's own a policy's control step has, the fewest where it knows several rates; 1 where it
    does not know the robot."""
    names = getattr(policy, "robots", ())
    known = [policy.on(name).embodiment for name in names] if len(names) > 1 else [policy.embodiment]
    return min((one.every for one in known if one.own_name == robot.own_name), default=1)


@dataclass(kw_only=True)
class Asked:
    """A look that waits for its actions: who asks, what it sees, and with which actions (d, A) its chunk must begin."""

    observation: Observation
    instruction: str
    key: Key
    task: str
    committed: np.ndarray | None = None
