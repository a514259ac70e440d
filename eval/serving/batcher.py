"""Questions of several clients answered in batches: the newest of each, in the order in which they began to wait."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..actors import PolicyActor
from ..policies import Asked


@dataclass(frozen=True)
class Answered:
    """chunk (K, A); None for a question that a newer one of the same client overtook. rows: of its batch."""

    chunk: np.ndarray | None
    infer_ms: float = 0.0
    queue_ms: float = 0.0
    rows: int = 0


@dataclass
class _Waiting:
    asked: Asked
    answer: "asyncio.Future[Answered]"
    since: float


class Batcher:
    """Runs the policy in one thread while the event loop goes on. actor: may be replaced between two batches."""

    def __init__(self, actor: PolicyActor):
        self.actor = actor
        self._waiting: dict[int, _Waiting] = {}  # by client, in the order in which they began to wait
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._some = asyncio.Event()

    def ask(self, client: int, asked: Asked) -> "asyncio.Future[Answered]":
        """The answer to come. An older question of the same client that nobody has begun to answer is dropped."""
        loop = asyncio.get_running_loop()
        question = _Waiting(asked, loop.create_future(), loop.time())
        older = self._waiting.get(client)
        if older is not None:
            question.since = older.since
            if not older.answer.done():
                older.answer.set_result(Answered(None))
        self._waiting[client] = question
        self._some.set()
        return question.answer

    def forget(self, client: int) -> None:
        """A client has gone."""
        if (question := self._waiting.pop(client, None)) is not None:
            question.answer.cancel()

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            while True:
                await self._some.wait()
                batch = [self._waiting.pop(client) for client in list(self._waiting)[: self.actor.rows]]
                if not self._waiting:
                    self._some.clear()
                if batch:
                    await self._answer(batch)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
            for question in self._waiting.values():
                question.answer.cancel()

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        loop, began, actor = asyncio.get_running_loop(), asyncio.get_running_loop().time(), self.actor
        try:
            chunks, took = await loop.run_in_executor(
                self._thread, actor.act, [q.asked for q in batch], _rows(actor, batch)
            )
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for question in batch:  # one bad row must not cost the others theirs
                await self._answer([question])
            return
        for question, chunk in zip(batch, chunks, strict=True):
            if not question.answer.done():
                question.answer.set_result(Answered(chunk, took, 1e3 * (began - question.since), len(batch)))


def _rows(actor: PolicyActor, batch: Sequence[_Waiting]) -> int | None:
    """A client that is alone does not wait for rows that nobody asked for; what is compiled is so for one shape."""
    compiled = getattr(actor.policy, "runtime", "torch") == "compiled"
    return 1 if len(batch) == 1 and not compiled else None
