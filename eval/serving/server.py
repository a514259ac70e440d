"""`foreact serve`: a policy over WebSocket, for several clients at once. No pickle, nothing that runs what it reads.

A client connects and gets the policy's metadata, then sends observations and gets chunks. `/healthz` says OK,
`/metrics` counts in Prometheus' text format. SIGHUP loads the checkpoint again: batches under way end with the old
weights. SIGINT and SIGTERM end it.
"""

import asyncio
import contextlib
import hmac
import http
import logging
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from ...envs.errors import UserError
from ..actors import PolicyActor
from . import metrics
from .batcher import Answered, Batcher
from .client import pack, unpack
from .messages import metadata, question

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """host, port: where to listen (port 0: any that is free) · token: what clients must send as `Authorization: Api-Key
    TOKEN`; None: nothing · max_mb: of a message · rate: messages a second of one client, more of which are refused;
    None: any · clients: how many at once.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    max_mb: float = 32.0
    rate: float | None = None
    clients: int = 64

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise UserError(f"port must be from 0 to 65535, got {self.port}")
        for name in ("max_mb", "rate", "clients"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be above 0, got {value}")


class Server:
    """Serves an actor's policy. load: makes a fresh actor of the checkpoint when it is to be loaded again."""

    def __init__(
        self,
        actor: PolicyActor,
        settings: ServeSettings | None = None,
        load: Callable[[], PolicyActor] | None = None,
    ):
        self.settings, self.load = settings or ServeSettings(), load
        self.batcher: Batcher | None = None
        self.actor = actor
        self.counts: Counter[str] = Counter()
        self.latencies: deque[float] = deque(maxlen=metrics.RECENT)  # [ms]
        self.port = self.settings.port
        self._clients: set[int] = set()
        self._numbers = count()
        self._reload: asyncio.Task[None] | None = None

    async def run(self, ready: Callable[["Server"], None] = lambda server: None) -> None:
        """Serve until cancelled, by SIGINT or SIGTERM too. ready: called once it listens, when `port` is known."""
        self.batcher = Batcher(self.actor)
        metadata(self.actor)  # the fingerprint of the weights takes a while, for which no client should wait
        settings = self.settings
        answering = asyncio.create_task(self.batcher.run())
        try:
            async with serve(
                self._client,
                settings.host,
                settings.port,
                process_request=self._request,
                compression=None,  # pictures that change at every step: it costs more than the wire
                max_size=int(settings.max_mb * 1e6),
            ) as server:
                self.port = next(iter(server.sockets)).getsockname()[1]
                stop = answering.cancel
                with _on_signals({signal.SIGHUP: self.reload, signal.SIGINT: stop, signal.SIGTERM: stop}):
                    ready(self)
                    await asyncio.shield(answering)
        finally:
            answering.cancel()

    def reload(self) -> None:
        """Load the checkpoint again beside the work; a failure is logged and the old one stays."""
        if self._reload is None or self._reload.done():
            self._reload = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        assert self.batcher is not None
        try:
            if self.load is None:
                raise UserError("this server has no checkpoint to load again")
            fresh = await asyncio.to_thread(self.load)
            ours, theirs = metadata(self.actor), metadata(fresh)
            kept = ("horizon", "n_action_steps", "n_obs_steps", "obs_stride", "can_continue")
            changed = [f"{k}: {ours[k]!r} before, {theirs[k]!r} now" for k in kept if ours[k] != theirs[k]]
            changed += self.actor.policy.embodiment.differences(fresh.policy.embodiment)
            if changed:
                raise UserError("clients were told otherwise: " + "; ".join(changed[:5]))
            self.actor = self.batcher.actor = fresh
            self.counts["reloads"] += 1
            log.warning("loaded %s again", fresh.name)
        except Exception as error:
            self.counts["failed_reloads"] += 1
            log.warning("not loaded again, the old policy stays: %s", error)

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers plain HTTP, and turns away whoever may not come in."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if not self._allowed(request.headers.get("Authorization", "")):
            self.counts["refused"] += 1
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "send Authorization: Api-Key TOKEN\n")
        if path == "/metrics":
            page = metrics.text(self.counts, self.latencies, clients=len(self._clients))
            return connection.respond(http.HTTPStatus.OK, page)
        if "Origin" in request.headers:  # a web page somewhere that talks to what listens on this machine
            self.counts["refused"] += 1
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not for browsers\n")
        if len(self._clients) >= self.settings.clients:
            self.counts["refused"] += 1
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{len(self._clients)} clients already\n")
        return None

    def _allowed(self, header: str) -> bool:
        token = self.settings.token
        return token is None or any(
            hmac.compare_digest(header.encode(), f"{scheme} {token}".encode()) for scheme in ("Api-Key", "Bearer")
        )

    async def _client(self, connection: ServerConnection) -> None:
        assert self.batcher is not None
        number, bucket = next(self._numbers), _Bucket(self.settings.rate)
        self._clients.add(number)
        answers: set[asyncio.Task[None]] = set()
        try:
            await connection.send(pack(metadata(self.actor)))
            for asked in count():
                data = await connection.recv()
                self.counts["messages"] += 1
                if not bucket.take(asyncio.get_running_loop().time()):
                    self.counts["too_fast"] += 1
                    await connection.send(f"more than {self.settings.rate:g} messages a second")
                    continue
                task = asyncio.create_task(self._answer(connection, number, asked, data))
                answers.add(task)
                task.add_done_callback(answers.discard)
                await asyncio.sleep(0)  # the question is in the queue before the next message is read
        except ConnectionClosed as end:
            if end.sent is not None and end.sent.code == CloseCode.MESSAGE_TOO_BIG:
                self.counts["too_large"] += 1
        finally:
            self._clients.discard(number)
            self.batcher.forget(number)
            for task in answers:
                task.cancel()

    async def _answer(self, connection: ServerConnection, number: int, asked: int, data: str | bytes) -> None:
        assert self.batcher is not None
        began = asyncio.get_running_loop().time()
        try:
            if isinstance(data, str):
                raise UserError("messages are binary frames of msgpack, got a text frame")
            message = unpack(data)
            answer = await self.batcher.ask(number, question(message, self.actor, (number, asked)))
            reply: str | bytes = pack(self._reply(answer, message, began))
        except ValueError as error:  # what the client did wrong; `UserError` is one
            self.counts["bad_messages"] += 1
            reply = str(error)[:2000]
        except asyncio.CancelledError:
            return
        except Exception as error:
            self.counts["errors"] += 1
            log.exception("the policy failed")
            reply = f"the policy failed: {type(error).__name__}"
        with contextlib.suppress(ConnectionClosed):
            await connection.send(reply)

    def _reply(self, answer: Answered, message: dict[str, Any], began: float) -> dict[str, Any]:
        echo = {"seq": message["seq"]} if isinstance(message.get("seq"), int) else {}
        if answer.chunk is None:
            self.counts["overtaken"] += 1
            return {"overtaken": True, **echo}
        took = 1e3 * (asyncio.get_running_loop().time() - began)
        self.counts["answers"] += 1
        self.counts["rows"] += answer.rows
        self.latencies.append(took)
        timing = {"infer_ms": answer.infer_ms, "queue_ms": answer.queue_ms, "total_ms": took, "rows": answer.rows}
        return {"actions": answer.chunk, "server_timing": timing, **echo}


class _Bucket:
    """A second's worth of messages at once, then so many a second."""

    def __init__(self, rate: float | None):
        self.rate, self.left, self.last = rate, max(1.0, rate or 0.0), 0.0

    def take(self, now: float) -> bool:
        if self.rate is None:
            return True
        self.left = min(max(1.0, self.rate), self.left + (now - self.last) * self.rate)
        self.last = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@contextlib.contextmanager
def _on_signals(acts: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """Call a function at each signal while inside; only the main thread's loop can."""
    loop, there = asyncio.get_running_loop(), threading.current_thread() is threading.main_thread()
    numbers = acts if there else ()
    for number in numbers:
        loop.add_signal_handler(number, acts[number])
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
