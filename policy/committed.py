"""Chunks that go on from actions that are already decided: what query 'continue' is given (real-time chunking).

Black et al. 2025, Real-Time Execution of Action Chunking Flow Policies, freeze the actions that will be executed while
the next chunk is computed. Here they are clean tokens of a network that was trained to continue them.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..envs.errors import UserError

Committed = Sequence[np.ndarray | None]
"""The first actions (d, A) of each row's chunk, None or empty for none."""


def padded(committed: Committed, rows: int, horizon: int, size: int) -> tuple[np.ndarray, torch.Tensor]:
    """Actions (rows, K, A) float32 and which of them are decided (rows, K) bool.

    Rows beyond `committed` have none. Raises `UserError` on a prefix that leaves no action to denoise, has another
    number of components, or is not finite.
    """
    actions = np.zeros((rows, horizon, size), np.float32)
    shown = torch.zeros(rows, horizon, dtype=torch.bool)
    for i, first in enumerate(committed):
        if first is None or len(first) == 0:
            continue
        if np.ndim(first) != 2 or np.shape(first)[1] != size or len(first) >= horizon:
            raise UserError(
                f"committed actions of row {i} have shape {np.shape(first)}; they are the first of a chunk "
                f"({horizon}, {size}) and leave at least one"
            )
        if not np.isfinite(first).all():
            raise UserError(f"committed actions of row {i} have NaN or infinite values")
        actions[i, : len(first)] = first
        shown[i, : len(first)] = True
    return actions, shown
