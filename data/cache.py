"""Frames decoded once into plain .npy files, memory-mapped and so shared by all processes of a machine.

A random frame of 96 pixels takes about 1 ms to decode from zarr and 0.01 ms to copy from a map. A file's name
holds the number of steps and a fingerprint of the episodes that it was made from: if it exists, it is whole
and fits. When the store has grown, the old file is copied and only the new steps are decoded.
"""

import hashlib
import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from .lock import lock_file
from .progress import told
from .store import Store

log = logging.getLogger(__name__)
_BLOCK = 256  # frames decoded at a time


def cached_frames(store: Store) -> dict[str, Path] | None:
    """'image/<camera>' or 'depth/<camera>' → .npy file (N, ...) with all frames of the store, built where needed.

    The files lie beside the store in `<store>.cache`, or in the user's cache folder where that is read-only.
    None, with a warning logged, where neither can be (read-only, or full).
    """
    problems = []
    for folder in _folders(store):
        try:
            return _build(store, folder)
        except OSError as error:
            problems.append(f"{folder}: {error}")
    log.warning(
        "no place for decoded frames of %s, so each is decoded when it is needed (100 times slower): %s; "
        "make room, or set XDG_CACHE_HOME to a folder that has room",
        store.path,
        "; ".join(problems),
    )
    return None


def _folders(store: Store) -> list[Path]:
    path = store.path.resolve()
    return [path.with_name(f"{path.name}.cache"), user_folder(store)]


def user_folder(store: Store) -> Path:
    """Where the user's cache keeps what belongs to this store."""
    path = store.path.resolve()
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    short = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    return user / "foreact" / f"{path.name}-{short}"


def _build(store: Store, folder: Path) -> dict[str, Path]:
    mark = fingerprint(store, len(store))
    names = [name for name in store.names if name.startswith(("image/", "depth/"))]
    files = {name: folder / f"{_stem(name)}-{store.n_steps}-{mark}.npy" for name in names}
    if all(file.exists() for file in files.values()):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").touch()
    lock = lock_file(folder / "lock", wait=True)
    assert lock is not None
    with lock:
        for name, file in files.items():
            if not file.exists():  # else another process built it while we waited
                log.info("decoding %d frames of %s into %s", store.n_steps, name, file)
                _write(store, name, file)
    return files


def _stem(name: str) -> str:
    """The file of 'image/main' is main-….npy, that of 'depth/main' main.depth-….npy."""
    kind, _, camera = name.partition("/")
    return camera if kind == "image" else f"{camera}.{kind}"


def _write(store: Store, name: str, file: Path) -> None:
    older = _older(store, name, file.parent)
    temporary = file.with_suffix(".partial")  # the lock is ours: a left one is rubbish
    try:
        # written, not mapped: a full disk is then an error and not a bus error
        with temporary.open("wb") as out:
            _write_frames(store, name, older, out)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    for _, _, old in _files(name, file.parent):
        if old != file:
            old.unlink()  # processes that have it mapped keep it


def _write_frames(store: Store, name: str, older: np.ndarray | None, out: IO[bytes]) -> None:
    row, dtype = store.row(name)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (store.n_steps, *row)}
    np.lib.format.write_array_header_1_0(out, header)
    blocks = list(_blocks(0 if older is None else len(older), store.n_steps))
    for block in told(blocks, f"decoding {name}"):
        if older is not None and block.start < len(older):
            frames = older[block.start : block.stop]
        else:
            frames = store.read(name, block)
        out.write(np.ascontiguousarray(frames).data)


def _blocks(n_copied: int, n_steps: int) -> Iterator[slice]:
    """Ranges of at most `_BLOCK` rows; none crosses the end of what is copied."""
    edges = sorted({*range(0, n_steps, _BLOCK), n_copied, n_steps})
    for start, stop in itertools.pairwise(edges):
        yield slice(start, stop)


def _older(store: Store, name: str, folder: Path) -> np.ndarray | None:
    """The longest file made from a shorter version of this store, mapped."""
    ends = store.episode_ends.tolist()
    for n_steps, mark, file in sorted(_files(name, folder), reverse=True):
        if n_steps in ends and fingerprint(store, ends.index(n_steps) + 1) == mark:
            return np.load(file, mmap_mode="r")
    return None


def _files(name: str, folder: Path) -> Iterator[tuple[int, str, Path]]:
    """(number of steps, fingerprint, file) of each decoded file of an array."""
    for file in list(folder.iterdir()):
        if match := re.fullmatch(rf"{re.escape(_stem(name))}-(\d+)-([0-9a-f]{{16}})\.npy", file.name):
            yield int(match[1]), match[2], file


def fingerprint(store: Store, n_episodes: int) -> str:
    """A short name for the first `n_episodes`: the same steps, seeds, states and actions have the same."""
    store = store.recorded
    meta = store.meta
    ends = store.episode_ends[:n_episodes].tolist()
    about = [store.embodiment.to_dict(), ends, meta.task[:n_episodes], meta.seed[:n_episodes].tolist()]
    digest = hashlib.sha256(json.dumps(about).encode())
    for name in (n for n in ("state", "action_executed") if n in store.names):
        digest.update(store.read(name, slice(0, ends[-1] if ends else 0)).tobytes())
    return digest.hexdigest()[:16]
