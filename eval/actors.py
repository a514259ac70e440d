"""Who acts: a learned policy, batched in the main process; or expert and random inside the workers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..envs.errors import UserError, choose
from .policies import Asked, Policy
from .stage import Observation

INSIDE = ("expert", "random")


@dataclass(frozen=True)
class InsideActor:
    """A policy of the simulator's side: 'expert' (scripted, from simulator state) or 'random' (uniform)."""

    kind: str

    def __post_init__(self):
        choose(self.kind, INSIDE, "policy (other than a checkpoint)")

    def describe(self) -> dict[str, Any]:
        """Who acts, for the results; it is also what must be the same to resume."""
        return {"policy": self.kind}

    identity = describe


@dataclass(kw_only=True)
class PolicyActor:
    """A policy with how it is used: solver steps, actions per look, ensembling, and the padded batch shape.

    solver_steps: of the denoising of a chunk; None: the policy's own. n_action_steps: default the policy's own,
    or 1 with ensembling. ensemble: the exponential weight m of
    temporal ensembling (Zhao et al. 2023, ACT: w_i = exp(−m i), i = 0 for the oldest chunk); None: off.
    batch_shape: rows of every inference call. Calls with fewer looks are padded to it, so that the same
    kernels run and a row's result does not depend on its neighbours. Default 4 on a CPU, 32 on a GPU.
    about: more to be said of the policy in the results.
    """

    policy: Policy
    name: str = "policy"
    n_action_steps: int | None = None
    ensemble: float | None = None
    batch_shape: int | None = None
    solver_steps: int | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.solver_steps is not None:
            if not hasattr(self.policy, "in_steps"):
                raise UserError(f"solver_steps={self.solver_steps} would be ignored: {self.name} denoises elsewhere")
            policy: Any = self.policy
            self.policy = policy.in_steps(self.solver_steps)
        own = 1 if self.ensemble is not None else int(self.policy.n_action_steps)
        self.n_action_steps = own if self.n_action_steps is None else int(self.n_action_steps)
        if not 1 <= self.n_action_steps <= self.policy.horizon:
            raise UserError(
                f"n_action_steps is {self.n_action_steps}, but the checkpoint's chunks have "
                f"{self.policy.horizon} actions; choose n_action_steps from 1 to {self.policy.horizon}"
            )
        if self.poses and self.ensemble is not None:
            raise UserError(
                "temporal ensembling averages actions of one step; this checkpoint tells poses: ensemble=null"
            )
        if self.batch_shape is None:
            self.batch_shape = 4 if str(getattr(self.policy, "device", "cpu")).startswith("cpu") else 32
        if self.batch_shape < 1:
            raise UserError(f"the inference batch needs at least one row, got {self.batch_shape}")

    def on(self, robot: str, n_action_steps: int | None = None) -> "PolicyActor":
        """The same on another of the policy's robots; itself where the policy knows but one.

        n_action_steps: those that were asked for, because each robot has a default of its own.
        """
        policy: Any = self.policy
        if len(getattr(policy, "robots", ())) < 2:
            return self
        return replace(self, policy=policy.on(robot), n_action_steps=n_action_steps)

    @property
    def steps(self) -> int:
        """Actions that are executed between two looks."""
        assert self.n_action_steps is not None
        return self.n_action_steps

    @property
    def rows(self) -> int:
        """Rows of every inference call."""
        assert self.batch_shape is not None
        return self.batch_shape

    @property
    def can_imagine(self) -> bool:
        """Does the policy foresee pictures, and say of which steps?"""
        return bool(getattr(self.policy, "can_imagine", False)) and bool(self.future_offsets)

    @property
    def poses(self) -> bool:
        """Do chunks hold poses, for a planner, and not actions?"""
        return bool(getattr(self.policy, "poses", False))

    @property
    def future_offsets(self) -> tuple[int, ...]:
        """How many steps ahead the foreseen pictures are."""
        return tuple(getattr(self.policy, "future_offsets", ()))

    def sight(self) -> dict[str, Any]:
        """When and how far back the policy looks, as fields of `stage.Start`."""
        return {
            "expected": self.policy.embodiment,
            "n_obs_steps": self.policy.n_obs_steps,
            "obs_stride": int(getattr(self.policy, "obs_stride", 1)),
            "look_every": 0 if self.poses else self.steps,
            "poses": self.poses,
        }

    def describe(self) -> dict[str, Any]:
        """The policy and how it is used, for the results."""
        return {"policy": self.name, **self.about, **self.identity()}

    def identity(self) -> dict[str, Any]:
        """What decides the actions, and must be the same to resume; wherever the checkpoint lies."""
        return {
            "fingerprint": self._fingerprint,
            "n_action_steps": self.n_action_steps,
            "ensemble": self.ensemble,
            "batch_shape": self.batch_shape,
            **({} if self.solver_steps is None else {"solver_steps": self.solver_steps}),
            "device": str(getattr(self.policy, "device", "cpu")).split(":")[0],
            **self._runtime,
        }

    @property
    def _runtime(self) -> dict[str, str]:
        runtime = getattr(self.policy, "runtime", "torch")
        return {} if runtime == "torch" else {"runtime": runtime}

    @cached_property
    def _fingerprint(self) -> str | None:
        return weights_of(self.policy)

    def act(self, asked: Sequence[Asked], rows: int | None = None) -> tuple[np.ndarray, float]:
        """Chunks (B, K, A) for at most `batch_shape` looks, and the milliseconds that they took.

        rows: pad to so many in the place of `batch_shape`, which is quicker for few, and equal but for rounding. Raises
        `UserError` on values that are not finite, naming where.
        """
        self._check(asked[0].observation)
        committed = [a.committed for a in asked]
        more = {"committed": committed} if any(first is not None for first in committed) else {}
        before = time.perf_counter()
        chunks = self.policy.act(
            [a.observation for a in asked],
            [a.instruction for a in asked],
            [a.key for a in asked],
            batch_shape=rows or self.batch_shape,
            **more,
        )
        took = 1e3 * (time.perf_counter() - before)
        chunks = np.asarray(chunks, np.float32)
        embodiment = self.policy.embodiment
        size = embodiment.state_dim if self.poses else embodiment.action_dim
        wanted = (len(asked), self.policy.horizon, size)
        if chunks.shape != wanted:
            raise UserError(f"{self.name} returned actions {chunks.shape}, need {wanted} (rows, chunk, action)")
        for row, one in zip(chunks, asked, strict=True):
            if not np.isfinite(row).all():
                seed, episode, step = one.key
                first = int(np.argwhere(~np.isfinite(row))[0, 0])
                raise UserError(
                    f"{self.name} returned actions that are not finite (first in chunk row {first}) in task "
                    f"{one.task}, seed {seed} + {episode}, step {step}; the checkpoint's weights or its "
                    "normaliser are broken: `foreact data doctor` checks a store against a checkpoint"
                )
        return chunks, took

    def imagine(self, asked: Sequence[Asked]) -> dict[str, np.ndarray]:
        """Foreseen pictures {camera: (B, F, H, W, 3) u8}, of the same noise as the actions."""
        observations, instructions = [a.observation for a in asked], [a.instruction for a in asked]
        policy: Any = self.policy
        return policy.imagine(observations, instructions, [a.key for a in asked])

    def _check(self, observation: Observation) -> None:
        for camera in self.policy.embodiment.cameras:
            picture = observation["images"].get(camera.name)
            if picture is None:
                seen = sorted(observation["images"])
                raise UserError(f"{self.name} needs camera {camera.name!r}; the environment has {seen}")
            if picture.shape[-3:-1] != (camera.height, camera.width):
                raise UserError(
                    f"{self.name} takes {camera.height} x {camera.width} pictures from camera "
                    f"{camera.name!r}, the environment gives {picture.shape[-3]} x {picture.shape[-2]}; "
                    "evaluate without `cameras`, so that the checkpoint's own are used"
                )


def weights_of(policy: Any) -> str | None:
    """A short name for a policy's weights, or None where it has no `state_dict`."""
    from ..policy.fingerprint import fingerprint

    network = next((m for m in (policy, getattr(policy, "model", None)) if hasattr(m, "state_dict")), None)
    return None if network is None else fingerprint(network)
