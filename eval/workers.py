"""Worker processes that hold environments: start, call, gather, and end without orphans.

A worker is a fresh interpreter (no OpenGL context or thread pool is ever forked) on a private socket pair. It
runs one command after another for its slots; the main process sends commands by name and gathers replies in
whatever order they come. A worker ends when its socket closes, so none outlives the main process.
"""

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any

from ..envs.errors import UserError

# Each worker is one core's worth of work: without these, software GL and BLAS start a thread per core each.
THREADS = ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Pool:
    """`slots` environments spread over `workers` processes; slot i lives in worker i mod workers.

    >>> with Pool(slots=4, workers=2) as pool:
    ...     pool.submit(0, begin, start=Start(task="metaworld/push-v3", seed=1, max_steps=500))
    ...     [(slot, look)] = pool.gather()

    registry: the module that makes environments (`make`, `task`, `resolve`).
    """

    def __init__(self, *, slots: int, workers: int, registry: str = "foreact.envs"):
        if slots < 1 or workers < 1:
            raise UserError(f"need at least one environment and one worker, got {slots} and {workers}")
        self.slots = slots
        self.busy: set[int] = set()
        self._workers: list[_Worker] = []
        try:
            for _ in range(min(workers, slots)):
                self._workers.append(_Worker(registry))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def submit(self, slot: int, command, **arguments: Any) -> None:
        """Send a command (a module-level function whose first parameter is a `Stage`) to a free slot."""
        worker = self._workers[slot % len(self._workers)]
        self.busy.add(slot)
        worker.send((slot, command.__module__, command.__name__, arguments))

    def gather(self, *, block: bool = True) -> list[tuple[int, Any]]:
        """(slot, reply) of each command that is done; waits for at least one if `block` and any is running.

        `UserError` where a command failed: the environment's own message, or the worker's traceback.
        """
        if not self.busy:
            return []
        by_connection = {worker.connection: worker for worker in self._workers}
        ready = wait(list(by_connection), timeout=None if block else 0)
        replies = [by_connection[c].receive() for c in ready if isinstance(c, Connection)]
        self.busy -= {slot for slot, _ in replies}
        return replies

    def call(self, slot: int, command, **arguments: Any) -> Any:
        """One command in a free slot while nothing else runs; its reply."""
        self.submit(slot, command, **arguments)
        [(_, reply)] = self.gather()
        return reply

    def close(self) -> None:
        """End all workers; waits a moment for their renderers to close, then insists. Idempotent."""
        for worker in self._workers:
            worker.hang_up()
        deadline = time.monotonic() + 2
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))
        self._workers = []
        self.busy = set()


class _Worker:
    def __init__(self, registry: str):
        ours, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        # -P: the current folder may hold a user's own `data` or `envs`.
        code = [sys.executable, "-P", "-m", "foreact.eval.worker", str(theirs.fileno()), registry]
        path = os.pathsep.join(p for p in sys.path if p)
        self.process = subprocess.Popen(
            code,
            pass_fds=[theirs.fileno()],
            env=os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        theirs.close()
        self.connection = Connection(ours.detach())

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError as error:
            raise self._died() from error

    def receive(self) -> tuple[int, Any]:
        try:
            slot, kind, reply = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if kind == "user_error":
            raise UserError(reply)
        if kind == "error":
            raise UserError(f"an environment's worker process failed:\n{reply}")
        return slot, reply

    def _died(self) -> UserError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        self.log.seek(0)
        said = self.log.read()[-4000:].decode(errors="replace").strip() or "it said nothing"
        code = self.process.returncode
        how = f"by signal {signal.Signals(-code).name}" if code and code < 0 else f"with status {code}"
        return UserError(f"an environment's worker process ended {how}; its last words:\n{said}")

    def hang_up(self) -> None:
        self.connection.close()

    def end(self, patience: float) -> None:
        try:
            self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def serve(connection: Connection, registry: str) -> None:
    """The worker's loop: one command after another until the main process hangs up."""
    from .stage import Stage

    stages: dict[int, Stage] = {}
    try:
        while True:
            try:
                slot, module, name, arguments = connection.recv()
            except (EOFError, OSError):
                return
            try:
                stage = stages.setdefault(slot, Stage(registry))
                reply = (slot, "ok", getattr(importlib.import_module(module), name)(stage, **arguments))
            except UserError as error:
                reply = (slot, "user_error", str(error))
            except Exception:
                reply = (slot, "error", traceback.format_exc())
            with contextlib.suppress(OSError):  # the main process is gone: the next receive ends the loop
                connection.send(reply)
    finally:
        for stage in stages.values():
            stage.close()
