"""Actions for frames that have none: what a policy's inverse dynamics says was done between them.

A policy that knows the query `inverse_dynamics` from few demonstrations labels many films, which are then learned from
like demonstrations (Baker et al. 2022, VPT, §3). Kept inside the store, and made anew for another policy.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..data.dataset import Dataset
from ..data.derived import derived_array
from ..data.progress import told
from ..data.store import Store
from ..envs.errors import UserError
from .answers import Given
from .fingerprint import fingerprint
from .inputs import unbatched
from .policy import Policy

EVERY = 4  # steps between two looks: each step is told by several of them, and takes their mean
_ROWS = 64


def labels_of(policy: Policy) -> Callable[[Store], Path]:
    """A function of a store: the .npy file (N, A) with the inferred action of each step, made where missing.

    Raises `UserError` where the policy was not trained on `inverse_dynamics`.
    """
    if "inverse_dynamics" not in policy.config.draws or policy.poses:
        raise UserError(
            f"labels= needs a policy of actions that was trained on inverse_dynamics, and {policy.config.name!r} was "
            f"trained on {', '.join(policy.config.draws)}; train with model.draws.inverse_dynamics=1"
        )
    mark = fingerprint(policy.model)
    return lambda store: derived_array(store, "action", "labels", mark, lambda: infer(policy, store))


def infer(policy: Policy, store: Store) -> np.ndarray:
    """The action of every step of a store, in the robot's units: (N, A) float32. The robot's state is not asked for."""
    data = Dataset(store, policy.transforms.windows, actions=False)
    sums = np.zeros((store.n_steps, policy.embodiment.action_dim))
    counts = np.zeros((store.n_steps, 1))
    ends = data.episode_ends[data.episode]
    for samples in told(list(_looks(data)), f"actions of {store.path.name}"):
        batch = data.batch(samples)
        given = Given(
            future={camera: frames.numpy() for camera, frames in batch.future.items()},
            depth={camera: frames.numpy() for camera, frames in batch.future_depth.items()},
        )
        words = [store.instructions[data.tasks[task]] for task in batch.task.tolist()]
        keys = [(0, int(sample)) for sample in samples]
        found = policy.ask("inverse_dynamics", unbatched(batch), words, keys, given).actions
        assert found is not None
        for first, end, chunk in zip(data.rows[samples], ends[samples], found, strict=True):
            inside = min(len(chunk), end - first)
            sums[first : first + inside] += chunk[:inside]
            counts[first : first + inside] += 1
    return (sums / counts).astype(np.float32)


def _looks(data: Dataset) -> Iterator[np.ndarray]:
    """Samples `EVERY` steps apart, a batch at a time."""
    chosen = np.flatnonzero(data.step % EVERY == 0)
    yield from np.array_split(chosen, -(-len(chosen) // _ROWS))
