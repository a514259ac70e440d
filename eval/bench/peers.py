"""Other people's code at the same work, in an interpreter of its own that has it."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...envs.errors import UserError
from ...envs.metaworld_tasks import EMBODIMENT
from ...policy.config import ModelConfig

SIDE = Path(__file__).with_name("lerobot_side.py")
MARK = b"foreact: "
"""Begins each line of `lerobot_side.py` that is meant for us."""
DIFFUSION, SMALLEST = "lerobot Diffusion", "lerobot Diffusion, small UNet"
SIZES: dict[str, dict[str, Any]] = {DIFFUSION: {}, SMALLEST: {"down_dims": [32, 64, 128]}}
"""lerobot's Diffusion policy at its default size, and near the least that it can have: its image encoder alone has 11 M
parameters."""


def diffusion(config: ModelConfig, **settings: Any) -> dict[str, Any]:
    """What `lerobot_side.py` needs to know to build a Diffusion policy for the frames and chunks of a preset."""
    horizon = -(-config.horizon // 8) * 8  # its UNet halves a chunk three times
    chunks = {"horizon": horizon, "n_obs_steps": config.n_obs_steps, "n_action_steps": min(8, config.n_action_steps)}
    crop = {} if config.pixels >= 84 else {"crop_shape": None}
    sizes = {"pixels": config.pixels, "state": EMBODIMENT.state_dim, "action": EMBODIMENT.action_dim}
    return {**sizes, "settings": {**chunks, **crop, **settings}}


def check_peer(peer: str | None, device: str) -> None:
    """`UserError` where the two sides would not run on the same device."""
    if peer and device != "cpu":
        raise UserError(f"lerobot={peer} is timed on the CPU, and this bench runs on {device}; add device=cpu")


class Peer:
    """lerobot at one piece of work: each call does it once, and between calls its process waits, so it takes turns.

    about: what it says of itself, such as `parameters`.
    """

    def __init__(self, process: subprocess.Popen[bytes], words: Path):
        self._process, self._words = process, words
        self.about: dict[str, Any] = json.loads(self._heard())

    def __call__(self) -> Any:
        """Do the work once, and return what it says of it. Raises `UserError` with its last words where it ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: what it said is read below
            self._process.stdin.write(b"\n")
        return json.loads(self._heard())

    def _heard(self) -> str:
        """The next line it prints that is ours; other packages print as well."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return line.removeprefix(MARK).decode()
        status, words = self._process.wait(), self._words.read_text(encoding="utf-8").strip()
        raise UserError(f"lerobot ended with status {status}:\n{words[-2000:]}")


@contextlib.contextmanager
def lerobot(python: str, what: str, threads: int, **asked: Any) -> Iterator[Peer]:
    """lerobot in that interpreter, ready for work. what, asked: a function of `lerobot_side.py` and its settings.

    Raises `UserError` where the interpreter cannot be run or has no lerobot.
    """
    argument = json.dumps({"what": what, "threads": threads, **asked})
    pipe = subprocess.PIPE
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "stderr"
        try:
            with words.open("w", encoding="utf-8") as said:
                started = subprocess.Popen(
                    [python, str(SIDE), argument], bufsize=0, stdin=pipe, stdout=pipe, stderr=said
                )
        except OSError as error:
            raise UserError(f"lerobot={python}: {error}; give an interpreter that has lerobot") from error
        with started as process:
            try:
                yield Peer(process, words)
            finally:
                process.terminate()
