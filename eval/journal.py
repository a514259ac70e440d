"""What an evaluation leaves on disk while it runs, so that the same command finishes what was begun."""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

from ..data.whole import write_json
from ..envs.errors import UserError


class Journal:
    """`eval.json` (what is evaluated) and `episodes.jsonl` (one line per finished episode) in a folder.

    A line is appended whole or, after a crash in the middle, dropped when it is read again. One writer at a
    time. Raises `UserError` where the folder holds another evaluation; `resume=False` starts over instead.
    folder None: nothing is written.
    """

    def __init__(self, folder: Path | str | None, config: dict[str, Any], *, resume: bool = True):
        self.records: list[dict[str, Any]] = []
        self.folder = Path(folder) if folder is not None else None
        self._lock: IO[str] | None = None
        self._lines: IO[bytes] | None = None
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder / ".eval.lock")
        try:
            self._open(self.folder, json.loads(json.dumps(config)), resume)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path, config: dict[str, Any], resume: bool) -> None:
        lines, settings = folder / "episodes.jsonl", folder / "eval.json"
        if settings.exists() and resume:
            _same(json.loads(settings.read_text(encoding="utf-8")), config, folder)
            self.records = _read(lines)
        else:
            for stale in (lines, folder / "results.json", *folder.glob("videos/*.mp4")):
                stale.unlink(missing_ok=True)
            write_json(settings, config)
        self._lines = lines.open("ab")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def append(self, record: dict[str, Any]) -> None:
        """Add a finished episode; on disk before this returns."""
        self.records.append(record)
        if self._lines is not None:
            self._lines.write(json.dumps(record).encode() + b"\n")
            self._lines.flush()
            os.fsync(self._lines.fileno())

    def close(self) -> None:
        """Let others write. Idempotent."""
        for file in (self._lines, self._lock):
            if file is not None:
                file.close()
        self._lines = self._lock = None


def _locked(path: Path) -> IO[str]:
    file = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(
            f"another evaluation is writing to {path.parent}; wait for it or choose another out="
        ) from error
    return file


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; a torn last line is cut off, so that the next append starts afresh."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove the folder, or choose another out=") from error


def _same(there: dict[str, Any], here: dict[str, Any], folder: Path) -> None:
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    if keys:
        lines = "\n".join(f"  {key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in keys)
        raise UserError(f"{folder} holds another evaluation:\n{lines}\nchoose another out=, or remove the folder")
