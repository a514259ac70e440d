"""Ask a `foreact serve` for actions. Needs numpy, websockets and msgpack, and nothing else of foreact.

    with Client("ws://127.0.0.1:8000") as client:
        answer = client.infer({"images": {"main": picture}, "state": state, "instruction": "push the puck"})
        answer["actions"]  # (K, A)

This file is the whole of the package `foreact-client`. The wire format is openpi's: binary frames of msgpack, arrays as
maps of raw bytes, type and shape; a text frame is an error. docs/robot.md describes it.
"""

import math
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

MAX_DIMENSIONS = 8
KINDS = "biuf"  # bool, integers, floats: what has no other meaning than its bytes


class ServerError(RuntimeError):
    """What the server said was wrong, or that it cannot be reached."""


def pack(message: Any) -> bytes:
    """A message as bytes: maps, lists, strings, numbers and arrays. Raises `ValueError` for other types of arrays."""
    packed = msgpack.packb(message, default=_pack_array)
    assert packed is not None
    return packed


def unpack(data: bytes) -> Any:
    """The message that `pack` wrote. Raises `ValueError` for whatever is none, and never runs what it reads."""
    try:
        return msgpack.unpackb(data, object_hook=_unpack_array, strict_map_key=True)
    except ValueError:
        raise
    except Exception as error:  # the decoder's own errors have no common base
        raise ValueError(f"not a message: {type(error).__name__}: {error}") from error


def _pack_array(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in KINDS:
        kind = getattr(value, "dtype", type(value).__name__)
        raise ValueError(f"{kind} cannot be sent; arrays of numbers, maps, lists, strings and numbers can")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _unpack_array(entry: dict[Any, Any]) -> Any:
    if b"__ndarray__" in entry:
        dtype, shape, data = _dtype(entry.get(b"dtype")), entry.get(b"shape"), entry.get(b"data")
        if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS or not all(map(_is_size, shape)):
            raise ValueError(f"array of shape {shape!r}")
        if not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):
            size = len(data) if isinstance(data, bytes) else "no"
            raise ValueError(f"array of {dtype} {tuple(shape)} comes with {size} bytes")
        return np.frombuffer(data, dtype).reshape(shape)
    if b"__npgeneric__" in entry:
        value = entry.get(b"data")
        if not isinstance(value, bool | int | float):
            raise ValueError(f"number {value!r}")
        return _dtype(entry.get(b"dtype")).type(value)
    return entry


def _is_size(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**31


def _dtype(name: Any) -> np.dtype:
    try:
        dtype = np.dtype(name) if isinstance(name, str) and len(name) <= 8 else None
    except (TypeError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in KINDS or dtype.itemsize > 8:
        raise ValueError(f"array of type {name!r}")
    return dtype


class Client:
    """A connection to a policy server; not for several threads at once.

    uri: ws://host:port · token: what the server asks for, if it does · timeout: seconds to wait for an answer.
    metadata: what the server says of its policy (`embodiment`, `horizon`, `n_action_steps`, `n_obs_steps`, …). Raises
    `ServerError` where the server cannot be reached, refuses, or sends an error; a new `Client` can try again.
    """

    def __init__(self, uri: str, *, token: str | None = None, timeout: float = 10.0):
        self.uri, self.timeout = uri, timeout
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._open = ExitStack()  # before websockets 17 connect() connects, from then on entering it does
        try:
            connecting = connect(uri, compression=None, max_size=None, additional_headers=headers, open_timeout=timeout)
            self._socket = self._open.enter_context(connecting)
        except (OSError, WebSocketException) as error:
            raise ServerError(f"cannot connect to {uri}: {error}") from error
        try:
            self.metadata: dict[str, Any] = self._receive()
        except BaseException:
            self.close()
            raise

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The answer to an observation: `actions` (K, A) float32, and `server_timing` in milliseconds.

        observation: {"images": {camera: (H, W, 3) or (T, H, W, 3) uint8}, "state": (S,) or (T, S), "instruction": str},
        and where wanted "committed": (d, A), the actions with which the chunk begins, and "key": integers that seed its
        noise.
        """
        try:
            self._socket.send(pack(observation))
        except (OSError, WebSocketException) as error:
            raise ServerError(f"{self.uri}: {error}") from error
        return self._receive()

    def close(self) -> None:
        """Hang up."""
        self._open.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> dict[str, Any]:
        try:
            reply = self._socket.recv(timeout=self.timeout)
        except TimeoutError as error:
            raise ServerError(f"{self.uri}: no answer within {self.timeout:g} s") from error
        except (OSError, WebSocketException) as error:
            raise ServerError(f"{self.uri}: {error}") from error
        if isinstance(reply, str):
            raise ServerError(f"{self.uri}: {reply}")
        message = unpack(reply)
        if not isinstance(message, dict):
            raise ServerError(f"{self.uri} sent {type(message).__name__} and no map")
        return message
