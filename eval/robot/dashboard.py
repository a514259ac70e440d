"""A page on this machine while a robot runs: cameras, actions against their limits, latency, faults, and a stop button.

Plain HTML and server-sent events. It listens on 127.0.0.1 alone, answers no other name (a web page elsewhere could
otherwise reach it through a name of its own), and stops the robot only for a request that a foreign page cannot send.
"""

import contextlib
import io
import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from .control import Control
from .dashboard_page import PAGE
from .runs import Tick

EVENTS_HZ = 10
FAULTS = 8  # of the last ones, that are shown


class Dashboard:
    """Shows a control loop while inside; `url` says where. port 0: any that is free."""

    def __init__(self, loop: Control, port: int = 0):
        self.loop = loop
        self._tick: Tick | None = None
        self._pictures: dict[str, np.ndarray] = {}
        self._missed = self._steps = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self.closed = threading.Event()

    def __enter__(self) -> "Dashboard":
        self.loop.watch = self.see
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="dashboard", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed.set()
        self.loop.watch = None
        self._server.shutdown()
        self._server.server_close()

    def see(self, tick: Tick, loop: Control) -> None:
        """Called by the loop at every control step: keeps references, draws nothing."""
        self._steps += 1
        self._missed += tick.late > 0.1 / loop.hz
        if tick.observation is not None:
            self._pictures = tick.observation.get("images", self._pictures)
        self._tick = tick

    def state(self) -> dict[str, Any]:
        """What the page shows now, as JSON."""
        robot, tick, log = self.loop.robot.embodiment, self._tick, self.loop.safety.log
        latencies = 1e3 * np.array(self.loop.latencies[-50:] or [np.nan])
        asked = None if tick is None or tick.asked is None else _plain(tick.asked)
        return {
            "step": None if tick is None else tick.step,
            "stopped": self.loop.stop.reason,
            "cameras": list(self._pictures),
            "actions": robot.action_names,
            "low": _plain(robot.action_low),
            "high": _plain(robot.action_high),
            "asked": asked,
            "sent": None if tick is None else _plain(tick.sent),
            "latency_ms": None if np.isnan(latencies).all() else round(float(latencies[-1]), 1),
            "latency_p95_ms": None if np.isnan(latencies).all() else round(float(np.percentile(latencies, 95)), 1),
            "missed": self._missed,
            "steps": self._steps,
            "interventions": len(log),
            "faults": [f"step {e.step}: {e.rule}, {e.where}" for e in log[-FAULTS:]],
        }

    def picture(self, camera: str) -> bytes | None:
        """The last picture of a camera as JPEG; None for a camera that there is not."""
        if camera not in self._pictures:
            return None
        buffer = io.BytesIO()
        Image.fromarray(self._pictures[camera]).save(buffer, format="JPEG", quality=85)
        return buffer.getvalue()

    def stop(self) -> None:
        """The button was pressed."""
        self.loop.stop("the dashboard's button")


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 5) if np.isfinite(v) else None for v in np.ravel(values)]


def _handler(page: Dashboard) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self._local():
                return
            if self.path == "/":
                state = json.dumps(page.state()).replace("<", "\\u003c")  # it stands inside a script
                self._send(PAGE.replace("__STATE__", state).encode(), "text/html; charset=utf-8")
            elif self.path == "/events":
                self._events()
            elif self.path.startswith("/camera/"):
                picture = page.picture(self.path.removeprefix("/camera/").partition("?")[0])
                if picture is None:
                    self.send_error(HTTPStatus.NOT_FOUND)
                else:
                    self._send(picture, "image/jpeg")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            if not self._local():
                return
            if self.path != "/stop" or self.headers.get("X-Foreact") != "stop":  # a foreign page cannot send the header
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            page.stop()
            self._send(b"stopped\n", "text/plain")

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet: the terminal is the operator's."""

        def _local(self) -> bool:
            name = self.headers.get("Host", "").rpartition(":")[0]
            if name in ("127.0.0.1", "localhost"):
                return True
            self.send_error(HTTPStatus.FORBIDDEN)
            return False

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            with contextlib.suppress(OSError):  # the page was closed
                self.wfile.write(body)

        def _events(self) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            try:
                while not page.closed.is_set():
                    self.wfile.write(f"data: {json.dumps(page.state())}\n\n".encode())
                    self.wfile.flush()
                    time.sleep(1 / EVENTS_HZ)
            except OSError:
                return  # the page was closed

    return Handler
