"""What clients of a policy server say and are told: one message checked whole before any of it reaches a policy."""

from typing import Any

import numpy as np

from ...envs.errors import UserError
from ..actors import PolicyActor
from ..policies import Asked

KEYS = ("images", "depth", "state", "instruction", "prompt", "key", "committed", "seq")
LONGEST = 1000  # characters of an instruction


def metadata(actor: PolicyActor) -> dict[str, Any]:
    """What a server says of its policy to whoever connects."""
    policy = actor.policy
    return {
        "server": "foreact",
        "policy": actor.name,
        "fingerprint": actor.identity()["fingerprint"],
        "embodiment": policy.embodiment.to_dict(),
        "tasks": list(policy.tasks),
        "horizon": policy.horizon,
        "n_action_steps": actor.steps,
        "n_obs_steps": policy.n_obs_steps,
        "obs_stride": int(getattr(policy, "obs_stride", 1)),
        "can_continue": bool(getattr(policy, "can_continue", False)),
    }


def question(message: Any, actor: PolicyActor, default_key: tuple[int, ...]) -> Asked:
    """The question in a message. Raises `UserError` that says what is wrong with it.

    message: {"images": {camera: (H, W, 3) or (T, H, W, 3) uint8}, "state": (S,) or (T, S), "instruction" or "prompt":
    str} and where wanted "depth", "key" (integers), "committed" (d, A) and "seq", which comes back with the answer.
    """
    if not isinstance(message, dict):
        raise UserError(f"a message is a map, got {type(message).__name__}")
    if unknown := sorted(repr(key)[:40] for key in message if key not in KEYS):
        raise UserError(f"unknown {', '.join(unknown[:5])} in the message; it may have {', '.join(KEYS)}")
    policy = actor.policy
    steps, size = policy.n_obs_steps, policy.embodiment.state_dim
    observation: dict[str, Any] = {"images": {}}
    for camera in policy.embodiment.cameras:
        shape = (camera.height, camera.width, 3)
        picture = _entry(message, "images", camera.name)
        observation["images"][camera.name] = _array(f"camera {camera.name!r}", picture, (steps, *shape), "uint8")
        if camera.depth:
            depth = _entry(message, "depth", camera.name)
            observation.setdefault("depth", {})[camera.name] = _array(
                f"depth of {camera.name!r}", depth, (steps, *shape[:2]), "float32"
            )
    observation["state"] = _array("state", message.get("state"), (steps, size), "float32")
    return Asked(
        observation=observation,
        instruction=_instruction(message),
        key=_key(message.get("key", default_key)),
        task="",
        committed=_committed(message.get("committed"), actor),
    )


def _entry(message: dict[str, Any], kind: str, camera: str) -> Any:
    views = message.get(kind)
    if not isinstance(views, dict) or camera not in views:
        there = sorted(map(repr, views)) if isinstance(views, dict) else type(views).__name__
        raise UserError(f"{kind} must have camera {camera!r}, the message has {str(there)[:200]}")
    return views[camera]


def _array(what: str, value: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array with its leading axis of observation steps, which may be left out where there is one."""
    if isinstance(value, list):
        value = _listed(what, value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        raise UserError(f"{what} must be an array of numbers, got {getattr(value, 'dtype', type(value).__name__)}")
    if shape[0] == 1 and value.ndim == len(shape) - 1:
        value = value[None]
    if value.shape != shape:
        raise UserError(f"{what} has shape {value.shape}, the policy needs {shape}")
    if dtype == "uint8" and value.dtype != np.uint8:
        raise UserError(f"{what} is {value.dtype}, pictures are uint8")
    with np.errstate(over="ignore"):
        value = value.astype(dtype)
    if dtype == "float32" and not np.isfinite(value).all():
        raise UserError(f"{what} has NaN or infinite values")
    return value


def _listed(what: str, value: list[Any]) -> np.ndarray:
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{what} is a list of something other than numbers") from error


def _instruction(message: dict[str, Any]) -> str:
    text = message.get("instruction", message.get("prompt"))
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
        raise UserError(f"instruction (or prompt) must be a sentence of 1 to {LONGEST} characters, got {text!r:.60}")
    return text


def _key(key: Any) -> tuple[int, ...]:
    plain = isinstance(key, list | tuple) and 0 < len(key) <= 8
    if not plain or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in key):
        raise UserError(f"key must be 1 to 8 whole numbers from 0, got {key!r:.60}")
    return tuple(key)


def _committed(first: Any, actor: PolicyActor) -> np.ndarray | None:
    if first is None:
        return None
    if not getattr(actor.policy, "can_continue", False):
        raise UserError(f"{actor.name} did not learn to continue a chunk: send no committed actions")
    size, most = actor.policy.embodiment.action_dim, actor.policy.horizon - 1
    if not isinstance(first, np.ndarray) or first.ndim != 2 or not 1 <= len(first) <= most:
        shape = getattr(first, "shape", type(first).__name__)
        raise UserError(f"committed must be (d, {size}) actions with d from 1 to {most}, got {shape}")
    return _array("committed", first[None], (1, len(first), size), "float32")[0]
