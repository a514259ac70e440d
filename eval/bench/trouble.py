"""What goes wrong around a robot that a server drives, to be made at will: the wire, the policy, camera, clock, server,
and clients that mean no good.
"""

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import connect

from ..robot.clock import RealClock
from ..robot.rehearsal import Rehearsal
from ..robot.robots import Stamped
from ..serving.client import Client, ServerError, pack
from ..serving.remote import RemotePolicy

TOKEN = "for-this-bench-alone"
HUGE = 100_000_000  # bytes


class Wire:
    """A port of this machine that passes on to another one's until it is cut. target: the port it passes on to."""

    def __init__(self, target: int):
        self.target, self.whole = target, True
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.uri = f"ws://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Hang up in the middle of whatever is said, and on whoever calls, until `whole` is set again."""
        self.whole = False
        for end in self._ends:
            _hang_up(end)
        self._ends = []

    def close(self) -> None:
        """Listen no longer."""
        self.cut()
        _hang_up(self._listening)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                near, _ = self._listening.accept()
                try:
                    if not self.whole:
                        raise ConnectionRefusedError
                    far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=_pump, args=[source, sink], daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # to close it alone would leave a thread that waits for it waiting
    end.close()


class Unsound(RemotePolicy):
    """A policy behind a server whose chunks come out wrong while `how` is set: 'nan', or 'shape'."""

    how = ""

    def act(self, *args: Any, **options: Any) -> np.ndarray:
        chunks = super().act(*args, **options)
        return {"nan": chunks * np.nan, "shape": chunks[..., :-1]}.get(self.how, chunks)


class Freezing(Rehearsal):
    """A robot whose cameras stop at a picture while `frozen` is set, as it goes on to where it is farthest off."""

    frozen = False
    _last: dict[str, Any] | None = None

    def observe(self, pictures: bool = True) -> Stamped:
        stamped = super().observe(pictures)
        if not self.frozen or self._last is None:
            self._last = stamped.observation
            return stamped
        here = self._last["state"]
        farthest = max(self._seen, key=lambda seen: np.abs(seen["state"] - here).max())
        return Stamped({**farthest, "images": self._last["images"]}, stamped.time)


class Jumping(RealClock):
    """The machine's clock, which `jump` sets forward, as a machine that slept finds it."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def jump(self, seconds: float) -> None:
        """Go so much ahead at once."""
        self.ahead += seconds


def swap_weights(folder: Path, *, sound: bool = True) -> None:
    """Put other weights into a checkpoint, which come whole or not at all; not sound: a file that holds none."""
    from safetensors.torch import load_file, save_file

    for path in folder.rglob("model.safetensors"):
        fresh = path.with_suffix(".fresh")
        if sound:
            save_file({name: w * 1.001 if w.is_floating_point() else w for name, w in load_file(path).items()}, fresh)
        else:
            shutil.copyfile(path, path.with_suffix(".kept"))
            fresh.write_bytes(b"no weights")
        fresh.replace(path)


def restore_weights(folder: Path) -> None:
    """Put those back that a swap for ones that are not sound took away."""
    for path in folder.rglob("model.kept"):
        path.replace(path.with_suffix(".safetensors"))


def ask_to_reload(process_id: int) -> None:
    """What `kill -HUP` does."""
    os.kill(process_id, signal.SIGHUP)


def counts(port: int) -> dict[str, float]:
    """What a server counts at /metrics, by name."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Api-Key {TOKEN}"})
    text = urllib.request.urlopen(request, timeout=10).read().decode()
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if "{" not in line)
    return {name.removeprefix("foreact_").removesuffix("_total"): float(value) for name, value in rows}


# Clients that mean no good. Each runs in a process of its own, so that what it does costs the control loop no more than
# a stranger's would, and returns what it met.


def too_large(uri: str, question: dict[str, Any]) -> str:
    """Sends 100 MB."""
    with Client(uri, token=TOKEN, timeout=30) as client:
        try:
            client.infer({**question, "instruction": "x" * HUGE})
        except ServerError as error:
            return _short(error)
    return "was answered"


def garbage(uri: str, question: dict[str, Any]) -> str:
    """Sends a thousand messages that are none."""
    rng = np.random.default_rng(0)
    with _raw(uri) as wire:
        wire.recv()
        for _ in range(1000):
            wire.send(rng.bytes(int(rng.integers(1, 300))))
        said = [wire.recv(timeout=30) for _ in range(1000)]
    return f"{sum(isinstance(reply, str) for reply in said)} of {len(said)} were told what was wrong"


def wrong_token(uri: str, question: dict[str, Any]) -> str:
    """Tries to come in ten times."""
    said = []
    for _ in range(10):
        try:
            Client(uri, token="guessed").close()
        except ServerError as error:
            said.append(error)
    return f"{len(said)} of 10 refused: {_short(said[-1])}" if said else "came in"


def never_reads(uri: str, question: dict[str, Any]) -> str:
    """Asks ten times at once, again and again for two seconds, and reads no answer."""
    packed, until, sent = pack(question), time.monotonic() + 2, 0
    with _raw(uri) as wire:
        while time.monotonic() < until:
            for _ in range(10):
                wire.send(packed)
            sent += 10
            time.sleep(0.1)
    return f"sent {sent} questions"


def another_robot(uri: str, question: dict[str, Any]) -> str:
    """Asks as fast as it is answered, for two seconds."""
    until, answers = time.monotonic() + 2, 0
    with Client(uri, token=TOKEN, timeout=30) as client:
        while time.monotonic() < until:
            answers += np.isfinite(client.infer(question)["actions"]).all()
    return f"{answers} answers of its own"


def _raw(uri: str) -> Any:
    headers = {"Authorization": f"Api-Key {TOKEN}"}
    return connect(uri, compression=None, max_size=None, additional_headers=headers, close_timeout=0.2)


def _short(error: Exception) -> str:
    return str(error).partition(": ")[2][:80]
