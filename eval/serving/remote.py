"""A policy behind a `foreact serve`, used as if it were here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...envs.errors import UserError
from ...envs.spec import Embodiment
from .client import Client, ServerError


class RemotePolicy:
    """What `policies.Policy` asks for, over a WebSocket. Connects anew after a lost answer.

    Raises `UserError` where the server cannot be reached or is not one of foreact's.
    """

    device, poses, can_imagine, runtime = "remote", False, False, "torch"

    def __init__(self, uri: str, *, token: str | None = None, timeout: float = 10.0):
        self.uri, self._token, self._timeout = uri, token, timeout
        self._client: Client | None = None
        try:
            about = self._connected().metadata
            self.embodiment = Embodiment.from_dict(about["embodiment"])
            self.horizon, self.n_action_steps = int(about["horizon"]), int(about["n_action_steps"])
            self.n_obs_steps, self.obs_stride = int(about["n_obs_steps"]), int(about["obs_stride"])
            self.tasks, self.can_continue = list(about["tasks"]), bool(about["can_continue"])
        except (ServerError, ValueError) as error:
            raise UserError(f"policy={uri}: {error}") from error
        except (KeyError, TypeError) as error:
            lacks = f"policy={uri} does not say what it is (lacks {error})"
            raise UserError(f"{lacks}; is it a `foreact serve`?") from error

    def act(
        self,
        observations: Sequence[dict[str, Any]],
        instructions: Sequence[str],
        keys: Sequence[tuple[int, ...]],
        batch_shape: int | None = None,
        *,
        committed: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """Chunks (B, K, A), one question after another; the server makes the batches."""
        firsts = committed if committed is not None else [None] * len(observations)
        rows = zip(observations, instructions, keys, firsts, strict=True)
        return np.stack([self._ask(*row) for row in rows])

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(
        self, observation: dict[str, Any], instruction: str, key: tuple[int, ...], first: np.ndarray | None
    ) -> np.ndarray:
        message = {**observation, "instruction": instruction, "key": list(key)}
        if first is not None:
            message["committed"] = np.asarray(first, np.float32)
        try:
            return np.asarray(self._connected().infer(message)["actions"])
        except (ServerError, KeyError):
            self.close()  # a late answer must not be taken for the next one's
            raise

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client(self.uri, token=self._token, timeout=self._timeout)
        return self._client
