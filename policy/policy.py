"""A trained policy at work: `act` on observations, `imagine` what comes."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..envs.errors import UserError
from ..envs.spec import Embodiment
from .model import Model
from .sample import sample
from .segments import Role, role_of
from .sentences import Sentences
from .transforms import Observation, Transforms


class Policy:
    """Weights and the transforms that they were trained with. Runs in fp32, without gradients.

    The noise of a row depends on its key alone, and a batch is padded to one fixed shape, so that an action does not
    depend on who else is in the batch.
    """

    def __init__(self, model: Model, transforms: Transforms, sentences: Sentences, tasks: list[str], device: str):
        self.model = model.to(device).eval()
        self.transforms = transforms
        self.sentences = sentences
        self.tasks = tasks
        self.device = device
        self.config = model.config

    @property
    def embodiment(self) -> Embodiment:
        return self.transforms.embodiment

    @property
    def n_obs_steps(self) -> int:
        return self.config.n_obs_steps

    @property
    def horizon(self) -> int:
        return self.config.horizon

    @property
    def n_action_steps(self) -> int:
        return self.config.n_action_steps

    @property
    def can_imagine(self) -> bool:
        return self.config.can_imagine

    @property
    def future_offsets(self) -> tuple[int, ...]:
        """Steps ahead of the frames that `imagine` returns."""
        return self.config.future

    @torch.inference_mode()
    def act(
        self,
        observations: Sequence[dict[str, Any]],
        instructions: Sequence[str],
        keys: Sequence[tuple[int, ...]],
        batch_shape: int | None = None,
    ) -> np.ndarray:
        """Action chunks (B, K, A) float32 in the robot's units, clipped to its bounds.

        observations: one each, {"images": {camera: (T, H, W, 3) or (H, W, 3) uint8}, "state": (T, S) or (S,)} ·
        keys: integers that seed each row's noise, such as (seed, episode, step) · batch_shape: pad to so many rows.
        """
        rows = len(observations)
        observation = self._observe(observations, instructions, batch_shape)
        samples = self._sample(self.config.acting, observation, keys)
        return self.transforms.commands(samples["action"][:rows])

    @torch.inference_mode()
    def imagine(
        self,
        observations: Sequence[dict[str, Any]],
        instructions: Sequence[str],
        keys: Sequence[tuple[int, ...]],
        batch_shape: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Foreseen frames {camera: (B, F, H, W, 3) uint8}, denoised together with the actions of the same keys."""
        if not self.can_imagine:
            raise UserError(f"policy {self.config.name!r} foresees no frames; train a 'joint' preset for that")
        rows = len(observations)
        observation = self._observe(observations, instructions, batch_shape)
        samples = self._sample("joint", observation, keys)
        frames = self.transforms.unfuture(samples["future"][:rows], observation.now[:rows])
        pixels = ((frames + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        return {name: pixels[:, v] for v, name in enumerate(self.transforms.cameras)}

    def _sample(self, query: str, observation: Observation, keys: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
        names = [name for name in self.model.segments if role_of(query, name) != Role.ABSENT]
        drawn = {name: self._noise(name, keys, len(observation.images)) for name in names}
        return sample(self.model, self.model.encode(observation), query, drawn)

    def _observe(
        self, observations: Sequence[dict[str, Any]], instructions: Sequence[str], batch_shape: int | None
    ) -> Observation:
        if batch_shape is not None and len(observations) > batch_shape:
            raise UserError(f"{len(observations)} observations do not fit the batch shape {batch_shape}")
        pad = (batch_shape or len(observations)) - len(observations)
        images = {c: self._frames(observations, c, pad) for c in self.transforms.cameras}
        states = [np.asarray(o["state"], np.float32) for o in observations]
        for i, values in enumerate(states):
            if not np.isfinite(values).all():
                raise UserError(f"state of observation {i} has NaN or infinite values: {values.tolist()}")
        state = self._stack(states, pad, "state", 1)
        sentence = self.sentences.inputs([*instructions, *[instructions[0]] * pad]).to(self.device)
        return self.transforms.observe(self.transforms.frames(images), state, sentence)

    def _frames(self, observations: Sequence[dict[str, Any]], camera: str, pad: int) -> Tensor:
        missing = [i for i, o in enumerate(observations) if camera not in o["images"]]
        if missing:
            raise UserError(
                f"observation {missing[0]} has cameras {sorted(observations[missing[0]]['images'])}, "
                f"the policy needs {self.transforms.cameras}"
            )
        spec = self.embodiment.camera(camera)
        frames = [np.asarray(o["images"][camera]) for o in observations]
        for frame in frames:
            if frame.shape[-3:] != (spec.height, spec.width, 3) or frame.dtype != np.uint8:
                raise UserError(
                    f"camera {camera!r} gave {frame.dtype} {frame.shape[-3:]}, the policy was trained on "
                    f"uint8 {(spec.height, spec.width, 3)}"
                )
        return self._stack(frames, pad, f"camera {camera!r}", 3)

    def _stack(self, values: list[np.ndarray], pad: int, what: str, trailing: int) -> Tensor:
        """Rows (B, T, ...) with a time axis of n_obs_steps, padded by repeating the first row."""
        timed = [v if v.ndim == trailing + 1 else v[None] for v in values]
        for v in timed:
            if len(v) != self.n_obs_steps:
                raise UserError(
                    f"{what} has {len(v)} observation steps, the policy needs n_obs_steps={self.n_obs_steps}"
                )
        return torch.from_numpy(np.stack([*timed, *[timed[0]] * pad])).to(self.device)

    def _noise(self, segment: str, keys: Sequence[tuple[int, ...]], rows: int) -> Tensor:
        """Standard normal (rows, L, C); row i depends on keys[i] and the segment's name only."""
        shape = (self.model.segments[segment].tokens, self.model.segments[segment].width)
        drawn = [np.random.default_rng(_seed(segment, key)).standard_normal(shape, dtype=np.float32) for key in keys]
        drawn += [np.zeros(shape, np.float32)] * (rows - len(drawn))
        return torch.from_numpy(np.stack(drawn)).to(self.device)


def _seed(segment: str, key: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.sha256(f"{segment}:{key}".encode()).digest()[:8], "little")
