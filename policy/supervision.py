"""What a batch teaches: the clean tokens of what is denoised, which of them count, and their scale."""

from dataclasses import replace

from torch import Tensor

from ..data.batch import Batch
from .observation import Maps
from .transforms import Transforms


def present(transforms: Transforms, batch: Batch, seen: Tensor) -> Maps:
    """The maps of a batch's present step. seen (B, V, T, H, W, C): what `Transforms.seen` gives."""
    return transforms.maps(seen[:, :, -1:], {c: v[:, :1] for c, v in batch.latents.items()})


def targets(transforms: Transforms, batch: Batch, now: Maps, offset: Tensor | None = None) -> dict[str, Tensor]:
    """Clean tokens (B, L, C) of the segments that can be denoised: the actions and what is foreseen.

    now: maps of the present · offset (B, 2): pixels by which the frames are moved.
    """
    chunk, _ = _chunks(transforms, batch)
    found = {} if chunk is None else {"action": transforms.action(chunk)}
    if transforms.config.future and (batch.future or batch.latents):
        ahead = _ahead(transforms, batch, offset)
        found |= {name: transforms.ahead(name, ahead[name], now[name]) for name in transforms.foreseen}
    return found


def keep(transforms: Transforms, batch: Batch) -> dict[str, Tensor]:
    """Which entries of `targets` lie inside their episode, and in slots that the robot has: (B, L, 1 or C) bool."""
    chunk, pad = _chunks(transforms, batch)
    foreseen = transforms.foreseen
    padded = {"action": None if chunk is None else pad} | dict.fromkeys(foreseen, batch.future_pad)
    views = {name: sum(c in batch.images for c in transforms.cameras) for name in foreseen} | {"action": 1}
    shapes = {name: replace(transforms.shapes[name], views=n) for name, n in views.items()}
    kept = {name: shapes[name].spread(~pad) for name, pad in padded.items() if pad is not None}
    if transforms.lies and transforms.config.masked and "action" in kept:
        kept["action"] = kept["action"] & transforms.present_slots("action", kept["action"]).bool()
    return kept


def fit_scales(transforms: Transforms, batch: Batch) -> dict[str, float]:
    """Standard deviation of what each foreseen segment holds, over a batch."""
    if not (transforms.config.future and (batch.future or batch.latents)):
        return {}
    plain = replace(transforms, scales={})
    pictures = replace(batch, action=None, future_state=None)
    tokens = targets(plain, pictures, present(plain, batch, plain.seen(batch.images, batch.depth)))
    return {name: max(float(tokens[name].std()), 1e-3) for name in plain.foreseen}


def _chunks(transforms: Transforms, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """What the action segment holds, and where it leaves its episode."""
    if transforms.config.poses:
        return batch.future_state, batch.future_pad
    return batch.action, batch.action_pad


def _ahead(transforms: Transforms, batch: Batch, offset: Tensor | None) -> Maps:
    """The maps of a batch's future steps. Frames whose latents are known are not needed."""
    if not batch.latents:
        return transforms.maps(transforms.seen(batch.future, batch.future_depth, offset))
    found = {"future": transforms.stored({c: v[:, 1:] for c, v in batch.latents.items()})}
    depth = {"depth": transforms.distances(batch.future_depth, offset)} if transforms.config.depth else {}
    return found | depth
