"""Reading and writing rows of the arrays of a store, and saying which file is to blame when that fails."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, StorePath

from ..envs.errors import UserError
from .layout import file_rows


class Arrays:
    """The arrays of a store as one commit record describes them: name → zarr metadata node."""

    def __init__(self, path: Path, nodes: dict[str, dict[str, Any]]):
        self.path = path
        self.nodes = nodes
        self._open: dict[str, zarr.Array] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def length(self, name: str) -> int:
        return self.nodes[name]["shape"][0]

    def read(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Rows of one array. A `UserError` names the array, the first damaged row and its file."""
        if name not in self:
            raise UserError(f"store {self.path} lacks the array {name}; restore it from a copy")
        try:
            return self._rows(name, rows)
        except Exception as error:  # whatever a codec makes of damaged bytes
            raise self._blame(name, np.unique(np.arange(self.length(name))[rows]), error) from error

    def write_tail(self, name: str, values: np.ndarray) -> None:
        """Write the last rows of an array, one file at a time: when a write fails, no other is under way."""
        array, per_file = (
            open_array(self.path, name, self.nodes[name], read_only=False),
            file_rows(self.nodes[name]),
        )
        first = start = self.length(name) - len(values)
        while start < self.length(name):
            stop = min(self.length(name), (start // per_file + 1) * per_file)
            array[start:stop] = values[start - first : stop - first]
            start = stop

    def file(self, name: str, row: int) -> Path:
        """The file that holds `row`."""
        node = self.nodes[name]
        return self.path / name / ".".join(["c", str(row // file_rows(node)), *["0"] * (len(node["shape"]) - 1)])

    def _rows(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        if name not in self._open:
            self._open[name] = open_array(self.path, name, self.nodes[name], read_only=True)
        array, per_file = self._open[name], file_rows(self.nodes[name])
        for number in np.unique(np.arange(self.length(name))[rows] // per_file):
            file = self.file(name, int(number) * per_file)
            if not file.exists() or file.stat().st_size == 0:  # zarr would read zeros
                raise FileNotFoundError(f"{file} is missing or empty")
        return np.asarray(array[rows] if isinstance(rows, slice) else array.oindex[rows])

    def _blame(self, name: str, rows: np.ndarray, error: Exception) -> UserError:
        """The error for a failed read of `rows` (rising): the first bad file, its first bad row."""
        number = rows // file_rows(self.nodes[name])
        for n in np.unique(number):
            in_file = rows[number == n]
            if not self._fails(name, in_file):
                continue
            row = self._first_bad(name, in_file)
            return UserError(
                f"store {self.path} is damaged: array {name!r} of {self._episode(name, row)} cannot be read "
                f"from {self.file(name, row)} ({error}); restore that file from a copy, or collect it again"
            )
        return UserError(f"store {self.path}: array {name!r} cannot be read: {error}")

    def _first_bad(self, name: str, rows: np.ndarray) -> int:
        """The first row that cannot be read, of rows (rising) that cannot be read together; found by halves, as each
        read costs more than its rows."""
        first = int(rows[0])
        while len(rows) > 1:
            half = rows[: len(rows) // 2]
            rows = half if self._fails(name, half) else rows[len(half) :]
        return int(rows[0]) if self._fails(name, rows) else first

    def _fails(self, name: str, rows: np.ndarray) -> bool:
        try:
            self._rows(name, rows)
        except Exception:
            return True
        return False

    def _episode(self, name: str, row: int) -> str:
        if name.startswith("meta/"):
            return f"episode {row}"
        ends = self._rows("meta/episode_ends", slice(None))
        return f"episode {int(np.searchsorted(ends, row, side='right'))}"


def open_array(path: Path, name: str, node: dict[str, Any], *, read_only: bool) -> zarr.Array:
    """The zarr array `name` with the shape in the commit record `node`, whatever its own zarr.json says."""
    where = StorePath(LocalStore(path, read_only=read_only), name)
    # an all-black frame is data: an absent chunk then always means damage
    return zarr.Array.from_dict(where, node).with_config({"write_empty_chunks": True})
