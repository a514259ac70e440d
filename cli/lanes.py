"""Work side by side: processes that share the cores, each with its own log. A stop reaches all of them.

Small networks do not fill several cores: on two cores, two trainings with a thread each get through about 1.4 times
the updates of one with two threads.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ..common.machine import usable_threads
from ..envs.errors import UserError

THREADS = "OMP_NUM_THREADS"


def side_by_side(work: Mapping[Path, Callable[[], Any]], jobs: int) -> Iterator[Path]:
    """Carry out `work`, at most `jobs` at a time, in processes with an equal share of the cores each.

    work: log file → what to do, which must be picklable; all it prints is added to its log. Yields each log once its
    work is done. Raises `UserError` with the last words of one that fails, and on SIGTERM `KeyboardInterrupt` as on
    Ctrl-C; the others are then asked to stop, and awaited.
    """
    waiting = dict(work)
    running: dict[Path, BaseProcess] = {}
    try:
        with _threads(max(1, usable_threads() // jobs)), _stop_on_terminate():
            while waiting or running:
                while waiting and len(running) < jobs:
                    log = next(iter(waiting))
                    running[log] = _start(waiting.pop(log), log)
                wait([process.sentinel for process in running.values()])
                for log in [log for log, process in running.items() if not process.is_alive()]:
                    code = running.pop(log).exitcode
                    if code:
                        raise UserError(f"{log.parent} ended with status {code}; its last words:\n{_last_words(log)}")
                    yield log
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _start(call: Callable[[], Any], log: Path) -> BaseProcess:
    # not a fork: torch's threads do not survive one, and the number of threads is read when torch is imported
    process = multiprocessing.get_context("spawn").Process(target=_carry_out, args=(call, log))
    process.start()
    return process


def _carry_out(call: Callable[[], Any], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        call()
    except (UserError, KeyboardInterrupt) as error:
        print(f"foreact: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 130)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _last_words(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-2000:] if log.is_file() else "it said nothing"


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes started meanwhile take that many threads, unless the user has said how many."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(count)
    try:
        yield
    finally:
        del os.environ[THREADS]


@contextlib.contextmanager
def _stop_on_terminate() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt("all that ran was asked to save; the same command goes on from there")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
