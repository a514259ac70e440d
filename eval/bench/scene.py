"""A robot that a server drives, and the faults that can be struck there: what breaks, and what must follow."""

import contextlib
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..robot.rehearsal import demonstrated
from ..serving.client import Client
from . import trouble
from .serve import question, server

JUMP = 0.3  # seconds, as which the run itself counts them


@dataclass
class Scene:
    """A robot that a server drives, and all of it that can be broken."""

    checkpoint: Path
    task: str | None
    settings: dict[str, Any]
    strangers: ProcessPoolExecutor
    clock: trouble.Jumping = field(default_factory=trouble.Jumping)
    process: "subprocess.Popen[str]" = field(init=False)

    def __post_init__(self):
        self._servers = contextlib.ExitStack()
        self.wire = trouble.Wire(self.start())
        with Client(self.uri, token=trouble.TOKEN) as client:
            self.asked = question(client.metadata)
        self.policy = trouble.Unsound(self.wire.uri, token=trouble.TOKEN)
        seen = demonstrated(self.task or self.policy.tasks[0], self.policy.embodiment.cameras)
        self.robot = trouble.Freezing(*seen, self.clock)

    @property
    def uri(self) -> str:
        """The server's own address, past the wire."""
        return f"ws://127.0.0.1:{self.wire.target}"

    def start(self) -> int:
        """Start a server; its port."""
        uri, self.process = self._servers.enter_context(server(self.checkpoint, token=trouble.TOKEN, **self.settings))
        return int(uri.rpartition(":")[2])

    def restart(self) -> None:
        """Start a server in the place of one that is gone."""
        self.wire.target = self.start()

    def let(self, stranger: Callable[[str, dict[str, Any]], str]) -> str:
        """Let somebody else talk to the server; what they met."""
        return self.strangers.submit(stranger, self.uri, self.asked).result(60)

    def close(self) -> None:
        """End all of it."""
        self.policy.close()
        self.wire.close()
        self._servers.close()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """strike: breaks something, and may tell what it met · mend: makes it good again · rule: by which the robot rests;
    '': it must go on as if nothing were · allows: seconds that the rule waits until it rests; None: as long as a chunk
    lasts · must: False where the robot may also go on · counts: what the server has to count.
    """

    strike: Callable[[Scene], Any]
    mend: Callable[[Scene], Any] = lambda scene: None
    rule: str = ""
    allows: float | None = None
    must: bool = True
    counts: str = ""


def _kill(scene: Scene) -> None:
    scene.process.kill()
    scene.process.wait()


def _reload(scene: Scene, *, sound: bool) -> None:
    port, name = scene.wire.target, "reloads" if sound else "failed_reloads"
    before, until = trouble.counts(port)[name], time.monotonic() + 60
    trouble.swap_weights(scene.checkpoint, sound=sound)
    trouble.ask_to_reload(scene.process.pid)
    while trouble.counts(port)[name] == before:
        if time.monotonic() > until:
            raise TimeoutError(f"{name} did not change in 60 s")
        time.sleep(0.05)


def _set(what: str, name: str, value: Any) -> Callable[[Scene], None]:
    return lambda scene: setattr(getattr(scene, what), name, value)


FAULTS = {
    "server killed and started again": Fault(strike=_kill, mend=Scene.restart, rule="chunk"),
    "connection cut": Fault(strike=lambda s: s.wire.cut(), mend=_set("wire", "whole", True), rule="chunk"),
    "actions NaN": Fault(strike=_set("policy", "how", "nan"), mend=_set("policy", "how", ""), rule="chunk"),
    "actions of a wrong shape": Fault(
        strike=_set("policy", "how", "shape"), mend=_set("policy", "how", ""), rule="chunk"
    ),
    "camera frozen": Fault(
        strike=_set("robot", "frozen", True), mend=_set("robot", "frozen", False), rule="camera", allows=0.5
    ),
    f"clock jumps by {JUMP:g} s": Fault(strike=lambda s: s.clock.jump(JUMP), rule="chunk", allows=JUMP, must=False),
    "100 MB message": Fault(strike=lambda s: s.let(trouble.too_large), counts="too_large"),
    "garbage bytes": Fault(strike=lambda s: s.let(trouble.garbage), counts="bad_messages"),
    "wrong token": Fault(strike=lambda s: s.let(trouble.wrong_token), counts="refused"),
    "client that never reads": Fault(strike=lambda s: s.let(trouble.never_reads), counts="overtaken"),
    "two clients": Fault(strike=lambda s: s.let(trouble.another_robot)),
    "checkpoint swapped": Fault(strike=lambda s: _reload(s, sound=True), counts="reloads"),
    "checkpoint swapped for a broken one": Fault(
        strike=lambda s: _reload(s, sound=False),
        mend=lambda s: trouble.restore_weights(s.checkpoint),
        counts="failed_reloads",
    ),
}
