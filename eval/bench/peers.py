"""Other people's code at the same work, in an interpreter of its own that has it."""

import json
import subprocess
from pathlib import Path
from typing import Any

from ...envs.errors import UserError

SMALLEST = {"down_dims": [32, 64, 128]}
"""Of lerobot's Diffusion policy: the smallest UNet. Its image encoder alone has 11 M parameters."""


def check_peer(peer: str | None, device: str) -> None:
    """`UserError` where the two sides would not run on the same device."""
    if peer and device != "cpu":
        raise UserError(f"lerobot={peer} is timed on the CPU, and this bench runs on {device}; add device=cpu")


def lerobot(python: str, what: str, threads: int, **asked: Any) -> dict[str, Any]:
    """What lerobot does, timed by `lerobot_side.py` in that interpreter. Raises `UserError` with its last words."""
    file = Path(__file__).with_name("lerobot_side.py")
    argument = json.dumps({"what": what, "threads": threads, **asked})
    try:
        ended = subprocess.run([python, str(file), argument], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"lerobot={python}: {error}; give an interpreter that has lerobot") from error
    if ended.returncode:
        raise UserError(f"lerobot={python} ended with status {ended.returncode}:\n{ended.stderr.strip()[-2000:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])
