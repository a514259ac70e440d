"""Numbers on held-out episodes: the loss of each segment, and whether the policy looks.

Only the first tenth of an episode rewards looking: later the arm's own motion tells what comes. So the mean loss can be
low while the arm sets off to the wrong place. `looking` measures the first frames alone.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.dataset import Dataset
from .device import autocast
from .inputs import unbatched
from .loss import Alignment, objective
from .policy import Policy


def validation_loss(
    policy: Policy,
    dataset: Dataset,
    *,
    batch_size: int,
    batches: int,
    precision: str,
    alignment: Mapping[str, Alignment] | None = None,
) -> dict[str, float]:
    """Loss parts over up to `batches` batches spread evenly over the held-out steps, with the same noise each time."""
    rows = np.linspace(0, len(dataset) - 1, min(len(dataset), batch_size * batches)).astype(np.int64)
    return _losses(policy, dataset, rows, batch_size, precision, alignment)


def loss_of_tasks(policy: Policy, dataset: Dataset, *, most: int, precision: str) -> dict[str, float]:
    """Loss of actions of each task by its bare name, over up to `most` of its held-out steps, spread evenly."""
    found = {}
    for task in np.unique(dataset.task):
        own = np.flatnonzero(dataset.task == task)
        rows = own[np.linspace(0, len(own) - 1, min(len(own), most)).astype(np.int64)]
        found[dataset.tasks[task].split("/")[-1]] = _losses(policy, dataset, rows, most, precision)
    return {task: losses["action"] for task, losses in found.items() if "action" in losses}


def _losses(
    policy: Policy,
    dataset: Dataset,
    rows: np.ndarray,
    batch_size: int,
    precision: str,
    alignment: Mapping[str, Alignment] | None = None,
) -> dict[str, float]:
    """Mean loss parts of these samples."""
    device = policy.device
    totals: dict[str, float] = {}
    with torch.inference_mode():
        for i, batch in enumerate(_chunks(dataset, rows, batch_size)):
            generator = torch.Generator(device).manual_seed(i)
            with autocast(precision, device):
                losses = objective(
                    policy.model, policy.transforms, [told(policy, batch)], generator, alignment=alignment
                )
            for name, value in losses.parts.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(batch) / len(rows)
    return totals


def looking(policy: Policy, dataset: Dataset, *, most: int = 64) -> dict[str, float]:
    """Does the policy go where the object is, from the first held-out frames on?

    The mean of the first `n_action_steps` actions is compared with the expert's, over episodes: first_corr is their
    correlation and first_error their root mean squared difference in units of the expert's spread, both pooled over
    action dimensions (one that hardly varies counts little). Empty where there are fewer than three episodes, or where
    the expert begins all of them alike, so that nothing is to be seen, or where the policy tells poses or does not act.
    """
    if policy.poses or not {"policy", "joint"} & policy.config.draws.keys():
        return {}
    rows = np.flatnonzero(dataset.step == 0)[:most]
    n = policy.n_action_steps
    predicted, wanted = [], []
    for batch in _chunks(dataset, rows, 16):
        assert batch.action is not None
        sentences = [policy.sentences.known[policy.tasks.index(dataset.tasks[t])] for t in batch.task.tolist()]
        chunk = policy.act(unbatched(batch), sentences, [(0, int(t), 0) for t in range(len(batch))])
        predicted.append(chunk[:, :n].mean(1))
        wanted.append(batch.action[:, :n].mean(1).numpy())
    return agreement(np.concatenate(predicted), np.concatenate(wanted)) if len(rows) >= 3 else {}


def agreement(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Pooled correlation and relative error of predictions x (E, A) to the expert's y (E, A); {} if y is constant."""
    dx, dy = x - x.mean(0), y - y.mean(0)
    spread = np.sqrt((dy**2).sum())
    if spread <= 0.02 * np.sqrt((y**2).sum()):
        return {}
    corr = (dx * dy).sum() / (max(np.sqrt((dx**2).sum()), 1e-9) * spread)
    return {"first_corr": float(corr), "first_error": float(np.sqrt(((x - y) ** 2).sum()) / spread)}


def told(policy: Policy, batch: Batch) -> tuple[Batch, Tensor]:
    """A batch of the policy's training data, and its instructions as the network takes them, on the device."""
    sentences = policy.sentences.inputs([policy.sentences.known[i] for i in batch.task.tolist()])
    return batch.to(policy.device), sentences.to(policy.device)


def _chunks(dataset: Dataset, rows: np.ndarray, size: int) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        yield dataset.batch(rows[start : start + size])
