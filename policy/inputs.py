"""Observations of the world (dictionaries of numpy arrays) → the network's, checked, padded to one batch shape."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..envs.errors import UserError
from .observation import Observation
from .sentences import Sentences
from .transforms import Transforms


def observe(
    transforms: Transforms,
    sentences: Sentences,
    device: str,
    observations: Sequence[dict[str, Any]],
    instructions: Sequence[str],
    batch_shape: int | None = None,
    *,
    foresee: bool = True,
) -> Observation:
    """The observation of max(B, batch_shape) rows; the first row is repeated in those that nobody asked for.

    observations: one each, {"images": {camera: (T, H, W, 3) or (H, W, 3) uint8}, "depth": {camera: (T, H, W) or (H, W)
    float32, m} where the policy sees depth, "state": (T, S) or (S,)}; T may be left out where it is 1. All may lack the
    state: that asks for video without a robot. foresee: False leaves out what only foreseen segments need. Raises
    `UserError` on what does not fit the policy.
    """
    if batch_shape is not None and len(observations) > batch_shape:
        raise UserError(f"{len(observations)} observations do not fit the batch shape {batch_shape}")
    stack = _Stack(transforms.config.n_obs_steps, (batch_shape or len(observations)) - len(observations), device)
    sentence = sentences.inputs([*instructions, *[instructions[0]] * stack.pad]).to(device)
    seen = _seen(transforms, observations, stack)
    now = transforms.maps(seen[:, :, -1:]) if foresee else {}
    observation = transforms.observe(seen, now, _state(observations, stack), sentence)
    return replace(observation, views=transforms.views(transforms.cameras))


def unbatched(batch: Batch) -> list[dict[str, Any]]:
    """A batch's observations, one each, as `observe` takes them."""
    rows = []
    for i in range(len(batch)):
        row: dict[str, Any] = {"state": None if batch.state is None else batch.state[i].numpy()}
        for kind, pictures in (("images", batch.images), ("depth", batch.depth)):
            row[kind] = {camera: values[i].numpy() for camera, values in pictures.items()}
        rows.append(row)
    return rows


class _Stack:
    """Rows (B, T, ...) of what has `trailing` axes of its own, padded by repeating the first row."""

    def __init__(self, steps: int, pad: int, device: str):
        self.steps, self.pad, self.device = steps, pad, device

    def __call__(self, values: list[np.ndarray], what: str, trailing: int) -> Tensor:
        timed = [v if v.ndim == trailing + 1 else v[None] for v in values]
        for v in timed:
            if len(v) != self.steps:
                raise UserError(f"{what} has {len(v)} observation steps, the policy needs n_obs_steps={self.steps}")
        return torch.from_numpy(np.stack([*timed, *[timed[0]] * self.pad])).to(self.device)


def _state(observations: Sequence[dict[str, Any]], stack: _Stack) -> Tensor | None:
    states = [np.asarray(o["state"], np.float32) for o in observations if o.get("state") is not None]
    if not states:
        return None
    if len(states) < len(observations):
        raise UserError(f"{len(states)} of {len(observations)} observations have a state; all must have one, or none")
    for i, values in enumerate(states):
        if not np.isfinite(values).all():
            raise UserError(f"state of observation {i} has NaN or infinite values: {values.tolist()}")
    return stack(states, "state", 1)


def _seen(transforms: Transforms, observations: Sequence[dict[str, Any]], stack: _Stack) -> Tensor:
    images = {c: _pictures(transforms, observations, stack, "images", c) for c in transforms.cameras}
    depth = {}
    if transforms.config.depth:
        depth = {c: _pictures(transforms, observations, stack, "depth", c) for c in transforms.cameras}
    return transforms.seen(images, depth)


def _pictures(
    transforms: Transforms, observations: Sequence[dict[str, Any]], stack: _Stack, kind: str, camera: str
) -> Tensor:
    """Pictures of one camera: 'images' (B, T, H, W, 3) uint8, or 'depth' (B, T, H, W) float32."""
    spec = transforms.embodiment.camera(camera)
    size, dtype = (spec.height, spec.width), np.float32
    if kind == "images":
        size, dtype = (*size, 3), np.uint8
    frames = []
    for observation in observations:
        if camera not in observation.get(kind, {}):
            seen = sorted(observation.get(kind, {}))
            what = "cameras" if kind == "images" else "depth of cameras"
            raise UserError(f"observation {len(frames)} has {what} {seen}, the policy needs {transforms.cameras}")
        frame = np.asarray(observation[kind][camera])
        if frame.shape[-len(size) :] != size or frame.dtype != dtype:
            raise UserError(
                f"camera {camera!r} gave {frame.dtype} {frame.shape[-len(size) :]}, the policy was trained on "
                f"{np.dtype(dtype)} {size}"
            )
        frames.append(frame)
    return stack(frames, f"camera {camera!r}", len(size))
