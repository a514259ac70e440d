"""A trained policy at work: `act` on observations, `imagine` what comes, or ask it any other query."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.sources import Learned
from ..envs.errors import UserError, choose
from ..envs.spec import Embodiment
from .answers import Answer, Frames, Given
from .committed import Committed, padded
from .inputs import observe
from .model import Model
from .observation import Maps, Observation
from .plan import Plans
from .sample import Network, Start, sample
from .segments import PARTIAL, QUERIES, Role, roles_of
from .sentences import Sentences
from .transforms import Transforms

Key = tuple[int, ...]


class Policy:
    """Weights and the transforms that they were trained with, on one of its robots. Runs in fp32, without gradients.

    learned: the episodes that it was trained on, so that nothing is measured on those by mistake; None: not known.
    The noise of a row depends on its key alone, and a batch is padded to one fixed shape, so that an action does not
    depend on who else is in the batch.
    """

    def __init__(
        self,
        model: Model,
        transforms: Transforms,
        sentences: Sentences,
        tasks: list[str],
        device: str,
        learned: Sequence[Learned] | None = (),
    ):
        self.model = model.to(device).eval()
        self.transforms = transforms
        self.sentences = sentences
        self.tasks = tasks
        self.device = device
        self.learned = None if learned is None else tuple(learned)
        self.config = model.config
        self.runtime = "torch"
        self._plans = Plans()

    @property
    def embodiment(self) -> Embodiment:
        """The robot that it is on."""
        return self.transforms.embodiment

    @property
    def robots(self) -> list[str]:
        """All robots that it was trained on, the main one first."""
        return list(self.transforms.robots) or [self.embodiment.name]

    def on(self, robot: str) -> "Policy":
        """The same weights on another of its robots: it then takes that one's observations and tells its actions.

        Raises `UserError` that names both sides where it was not trained on a robot of that name.
        """
        other = copy.copy(self)
        other.transforms = self.transforms.on(robot)
        return other

    def in_steps(self, steps: int) -> "Policy":
        """The same weights, denoising in so many solver steps."""
        other = copy.copy(self)
        other.config = replace(self.config, solver=replace(self.config.solver, steps=steps))
        return other

    @property
    def n_obs_steps(self) -> int:
        """Observations that a look must hold, the last one now."""
        return self.config.n_obs_steps

    @property
    def horizon(self) -> int:
        """Actions of a chunk on this robot."""
        return self.transforms.windows.horizon

    @property
    def n_action_steps(self) -> int:
        """Actions of a chunk that are to be executed before the next look."""
        return min(self.config.n_action_steps, self.horizon)

    @property
    def poses(self) -> bool:
        """Does `act` return poses (B, F, S) at the foreseen steps, for a planner, and not actions?"""
        return self.config.poses

    @property
    def can_imagine(self) -> bool:
        """Does it foresee frames together with actions?"""
        return self.config.can_imagine

    @property
    def can_continue(self) -> bool:
        """Can a chunk go on from actions that are already decided (`act(…, committed=…)`)?"""
        return "continue" in self.config.draws and not self.poses

    @property
    def future_offsets(self) -> tuple[int, ...]:
        """Steps ahead of the frames that `imagine` returns."""
        return self.config.future

    def act(
        self,
        observations: Sequence[dict[str, Any]],
        instructions: Sequence[str],
        keys: Sequence[Key],
        batch_shape: int | None = None,
        *,
        committed: Committed | None = None,
    ) -> np.ndarray:
        """Action chunks (B, K, A) float32 in the robot's units, clipped to its bounds; or poses, see `poses`.

        observations: see `inputs.observe` · keys: integers that seed each row's noise, such as (seed, episode, step) ·
        batch_shape: pad to so many rows · committed: the actions (d, A) with which each row's chunk begins, unchanged;
        `UserError` where the policy did not learn to continue them.
        """
        if committed is None or not any(first is not None and len(first) for first in committed):
            answer = self.ask(self.config.acting, observations, instructions, keys, batch_shape=batch_shape)
            assert answer.actions is not None
            return answer.actions
        if not self.can_continue:
            raise UserError(
                f"policy {self.config.name!r} did not learn to continue a chunk: train it with draws of 'continue', or "
                "act without committed actions"
            )
        rows = max(len(observations), batch_shape or 0)
        first, shown = padded(committed, rows, self.horizon, self.embodiment.action_dim)
        given = Given(actions=first, shown={"action": shown.to(self.device)})
        answer = self.ask("continue", observations, instructions, keys, given, batch_shape=batch_shape)
        assert answer.actions is not None
        rows = len(observations)
        return np.where(shown[:rows, :, None].numpy(), first[:rows], answer.actions)  # to the bit, not to a rounding

    def imagine(
        self,
        observations: Sequence[dict[str, Any]],
        instructions: Sequence[str],
        keys: Sequence[Key],
        batch_shape: int | None = None,
    ) -> Frames:
        """Foreseen frames {camera: (B, F, H, W, 3) uint8}, denoised together with the actions of the same keys."""
        return self.ask("joint", observations, instructions, keys, batch_shape=batch_shape).frames

    @torch.inference_mode()
    def ask(
        self,
        query: str,
        observations: Sequence[dict[str, Any]],
        instructions: Sequence[str],
        keys: Sequence[Key],
        given: Given | None = None,
        *,
        guidance: float = 1.0,
        batch_shape: int | None = None,
    ) -> Answer:
        """Answer one of `segments.QUERIES`; see `act` for the arguments, `sample.sample` for guidance.

        Raises `UserError` where the policy cannot answer it, or `given` lacks what it observes.
        """
        given, rows = given or Given(), len(observations)
        choose(query, QUERIES, "query")
        if "future" in QUERIES[query] and not self.config.future:
            raise UserError(f"policy {self.config.name!r} foresees no frames; train a 'joint' preset for that")
        if guidance != 1 and self.config.times == "shared":
            raise UserError(
                f"guidance={guidance:g} takes marginals from a network whose segments have times of their own, and "
                f"{self.config.name!r} has one for all: guidance=1"
            )
        roles = roles_of(query, self.model.segments)
        names = self.model.segments if guidance != 1 else roles
        where = (self.transforms, self.sentences, self.device)
        foresee = any(name != "action" for name in names)  # else the present need not be encoded to be foreseen from
        seen = observe(*where, observations, instructions, batch_shape, foresee=foresee)
        if "action" in roles and seen.state is None and query != "inverse_dynamics":
            raise UserError(f"query {query!r} is about actions, and the observations have no state")
        noise = {name: self._noise(name, keys, len(seen.images)) for name in names}

        def fresh(step: int) -> dict[str, Tensor]:
            return {name: self._noise(name, [(*key, step + 1) for key in keys], len(seen.images)) for name in roles}

        start = Start(roles, noise, self._given(roles, given, seen, query), given.shown, fresh)
        solver, plans = self.config.solver, self._plans if self.config.solver.plan else None
        # only an observation that is encoded has tokens of time 0
        clean = plans.clean(self.model) if plans is not None and self.config.layout == "tokens" else None
        encode = partial(self.model.encode, seen, clean=clean)
        encoding = encode if solver.cache is False else encode()
        network = Network(self.model, solver, plans)
        found = sample(network, encoding, start, guidance=guidance)
        return self._answer(
            {name: found[name][:rows] for name in start.moving()}, {k: v[:rows] for k, v in seen.now.items()}
        )

    def _given(self, roles: Mapping[str, Role], given: Given, seen: Observation, query: str) -> dict[str, Tensor]:
        """Tokens of what is observed, wholly or in part."""
        wanted = {name for name, role in roles.items() if role == Role.OBSERVE or role in PARTIAL}
        has = {"action": given.actions is not None, "future": bool(given.future), "depth": bool(given.depth)}
        if lacking := sorted(name for name in wanted if not has[name]):
            raise UserError(f"query {query!r} observes {lacking}; give their values")
        tokens = {}
        if "action" in wanted:
            tokens["action"] = self.transforms.action(self._tensor(given.actions))
        if wanted - {"action"}:
            future, depth = ({k: self._tensor(v) for k, v in d.items()} for d in (given.future, given.depth))
            ahead = self.transforms.maps(self.transforms.seen(future, depth))
            tokens |= {k: self.transforms.ahead(k, ahead[k], seen.now[k]) for k in wanted - {"action"}}
        return tokens

    def _answer(self, tokens: Mapping[str, Tensor], now: Maps) -> Answer:
        transforms = self.transforms
        pictures = {k: transforms.pictures(k, v, now[k]) for k, v in tokens.items() if k != "action"}
        found: dict[str, Any] = {}
        if "action" in tokens:
            found["actions"] = transforms.commands(tokens["action"])
        if "future" in pictures:
            pixels = ((pictures["future"] + 1) * 127.5).round().to(torch.uint8)
            found["frames"] = {c: pixels[:, v].cpu().numpy() for v, c in enumerate(transforms.cameras)}
        if "depth" in pictures:
            metres = transforms.metres(pictures["depth"])
            found["depth"] = {c: metres[:, v].cpu().numpy() for v, c in enumerate(transforms.cameras)}
        return Answer(**found)

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def _noise(self, segment: str, keys: Sequence[Key], rows: int) -> Tensor:
        """Standard normal (rows, L, C); row i depends on keys[i] and the segment's name only."""
        shape = (self.transforms.shapes[segment].tokens, self.transforms.shapes[segment].width)
        drawn = [np.random.default_rng(_seed(segment, key)).standard_normal(shape, dtype=np.float32) for key in keys]
        drawn += [np.zeros(shape, np.float32)] * (rows - len(drawn))
        return torch.from_numpy(np.stack(drawn)).to(self.device)


def _seed(segment: str, key: Key) -> int:
    return int.from_bytes(hashlib.sha256(f"{segment}:{key}".encode()).digest()[:8], "little")
