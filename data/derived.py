"""What is computed from a store once and kept inside it: image latents, sentence vectors.

`STORE/derived/<name>-<mark>/` belongs to one maker (a tokenizer, a language model), whose fingerprint is the mark. When
the maker changes, the values are computed anew beside the old ones, which another training may be reading; a store that
has grown keeps its first rows. Nothing here is part of the demonstrations: all of it can be deleted when nothing runs.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .cache import fingerprint, user_folder
from .lock import lock_file
from .progress import told
from .store import Store

log = logging.getLogger(__name__)
_BLOCK = 256

Compute = Callable[[np.ndarray], np.ndarray]


def derived_folder(store: Store, name: str, mark: str) -> Path:
    """The folder of one maker's values, made; in the user's cache where the store is read-only."""
    for root in (store.path.resolve() / "derived", user_folder(store) / "derived"):
        folder = root / f"{name}-{mark}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "lock").touch()
        except OSError as error:
            log.warning("%s cannot be kept at %s: %s", name, folder, error)
            continue
        for other in root.glob(f"{name}-*"):
            if other != folder:
                log.info("%s is of another %s; delete it when nothing uses it", other, name)
        return folder
    raise OSError(
        f"no place to keep {name} of {store.path}: make room, or set XDG_CACHE_HOME to a folder that has room"
    )


def derived_rows(store: Store, source: str, name: str, mark: str, compute: Compute) -> Path:
    """A .npy file (N, ...) with compute(rows of array `source`) for every step of the store, mapped by all processes.

    compute: a block of rows (n, ...) → (n, ...), row by row. Built where it is missing, whole or not at all.
    """

    def build(file: Path) -> None:
        log.info("computing %s of %d rows of %s into %s", name, store.n_steps, source, file)
        _fill(store, source, file, compute)
        for old in _files(file.parent, source):
            if old != file:
                old.unlink()

    return _built(store, source.replace("/", "."), name, mark, build)


def _built(store: Store, key: str, name: str, mark: str, build: Callable[[Path], None]) -> Path:
    """The file of a maker's values for this state of the store; one process builds it, and others wait."""
    folder = derived_folder(store, name, mark)
    file = folder / f"{key}-{store.n_steps}-{fingerprint(store, len(store))}.npy"
    lock = lock_file(folder / "lock", wait=True)
    assert lock is not None
    with lock:
        if not file.exists():
            build(file)
    return file


def now_at(file: Path) -> Path:
    """Where the rows of a file of `derived_rows` are now: there, or in the file that replaced it as the store grew."""
    if file.exists():
        return file
    source = file.name.rsplit("-", 2)[0]
    return max(_files(file.parent, source), key=lambda f: int(f.stem.rsplit("-", 2)[1]), default=file)


def _fill(store: Store, source: str, file: Path, compute: Compute) -> None:
    older = _older(store, source, file)
    temporary = file.with_suffix(".partial")
    first = compute(store.read(source, slice(0, 1)))
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
    try:
        with temporary.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, {**header, "shape": (store.n_steps, *first.shape[1:])})
            done = 0 if older is None else len(older)
            if older is not None:
                out.write(np.ascontiguousarray(older).data)
            for start in told(range(done, store.n_steps, _BLOCK), f"{file.parent.name} of {source}"):
                rows = slice(start, min(start + _BLOCK, store.n_steps))
                out.write(np.ascontiguousarray(compute(store.read(source, rows))).data)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _files(folder: Path, source: str) -> list[Path]:
    """The files of an array; those of a camera whose name begins with this one's are another's."""
    name = re.escape(source.replace("/", "."))
    return [file for file in folder.iterdir() if re.fullmatch(rf"{name}-\d+-[0-9a-f]+\.npy", file.name)]


def _older(store: Store, source: str, file: Path) -> np.ndarray | None:
    """The rows of the same maker from when the store was shorter."""
    ends = store.episode_ends.tolist()
    for old in _files(file.parent, source):
        n_steps, mark = old.stem.rsplit("-", 2)[1:]
        if int(n_steps) in ends and fingerprint(store, ends.index(int(n_steps)) + 1) == mark:
            return np.load(old, mmap_mode="r")
    return None


def derived_array(store: Store, key: str, name: str, mark: str, compute: Callable[[], np.ndarray]) -> Path:
    """A .npy file with compute() (N, ...) for the whole store, mapped by all processes. Made anew when it has grown."""

    def build(file: Path) -> None:
        draft = file.with_suffix(".partial")
        with draft.open("wb") as out:
            np.save(out, compute())
        draft.replace(file)

    return _built(store, key, name, mark, build)


def derived_vectors(store: Store, texts: Sequence[str], name: str, mark: str, compute: Callable) -> np.ndarray:
    """compute(texts) (n, D) float32, kept in the store by text."""
    folder = derived_folder(store, name, mark)
    found = []
    for text in texts:
        file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
        if not file.exists():
            draft = file.with_suffix(f".{os.getpid()}.partial")  # another process may be at the same sentence
            with draft.open("wb") as out:
                np.save(out, compute([text])[0])
            draft.replace(file)
        found.append(np.load(file))
    return np.stack(found)
