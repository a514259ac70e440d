"""Rows of a store's arrays, decoded by tensorstore: for stores whose decoded frames find no room on the disk."""

from typing import Any

import numpy as np

from ..envs.errors import UserError
from .store import Store

CACHE_BYTES = 256 * 2**20  # of decoded chunks kept in memory, for all arrays of a store


class TensorRows:
    """Reads by array name and row numbers, as `Store.read` does. Decodes several chunks at once and keeps the latest.

    Raises `UserError` where the package is not installed, and names the array where its bytes are damaged.
    """

    def __init__(self, store: Store):
        try:
            import tensorstore
        except ImportError as error:
            raise UserError("reader=tensorstore needs that package: pip install 'foreact[fast]'") from error
        self._tensorstore, self._store = tensorstore, store
        self._context = tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
        self._arrays: dict[str, Any] = {}

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows (n, ...) of 'image/<camera>' or 'depth/<camera>'."""
        try:
            return self._array(name)[rows].read().result()
        except (ValueError, IndexError) as error:  # tensorstore's: bytes that do not decode, or an array cut short
            raise UserError(f"store {self._store.path} is damaged: array {name!r} cannot be read: {error}") from error

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            where = {"driver": "file", "path": str(self._store.path / "data" / name)}
            # a chunk that is not there is damage and not zeros; the shape is what the commit record says
            spec = {"driver": "zarr3", "kvstore": where, "fill_missing_data_reads": False}
            spec |= {"metadata": self._store.metadata(name)}
            how = {"open": True, "read": True, "assume_metadata": True, "context": self._context}
            self._arrays[name] = self._tensorstore.open(spec, **how).result()
        return self._arrays[name]
