"""Numbers scaled for learning, by statistics of the training episodes; the same in training and acting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ..envs.errors import UserError, choose
from ..envs.slot_maps import SlotMap
from .store import Store
from .windows import rows_of

FIELDS = ("state", "action", "privileged")
_STATISTICS = ("mean", "std", "low", "high", "q01", "q99")


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalizer:
    """y = (x − shift) / scale over the last axis, for numpy arrays and torch tensors alike (bit for bit).

    mode: 'range' puts the smallest and largest value at −1 and 1, 'quantile' the 1st and 99th percentile
    (values outside go beyond ±1, nothing is clipped), 'gaussian' gives mean 0 and deviation 1, 'identity'
    changes nothing. A dimension that never changed in training maps to 0 and keeps its unit: shift is its
    value, scale is 1. All statistics (D,) float32 are kept, so a saved one can be read and compared.
    """

    mode: str
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    q01: np.ndarray
    q99: np.ndarray
    _cache: dict[Any, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        choose(self.mode, _MODES, "normaliser mode")
        shapes = {name: getattr(self, name).shape for name in _STATISTICS}
        if len(set(shapes.values())) != 1 or self.mean.ndim != 1:
            raise UserError(f"normaliser statistics must be vectors of one length, got {shapes}")
        self._cache["numpy"] = _shift_and_scale(self)

    @classmethod
    def fit(cls, values: np.ndarray, mode: str) -> "Normalizer":
        """Statistics of `values` (N, D). `UserError` for NaN, infinity or no rows."""
        if values.ndim != 2 or len(values) == 0:
            raise UserError(f"a normaliser is fitted on (steps, dimensions), got {values.shape}")
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise UserError(f"a normaliser cannot be fitted: row {bad[0, 0]}, dimension {bad[0, 1]} is not finite")
        x = values.astype(np.float64)
        statistics = (x.mean(0), x.std(0), x.min(0), x.max(0), *np.quantile(x, (0.01, 0.99), axis=0))
        return cls(mode=mode, **{k: v.astype(np.float32) for k, v in zip(_STATISTICS, statistics, strict=True)})

    @property
    def size(self) -> int:
        return len(self.mean)

    def normalise(self, x: Any) -> Any:
        """Physical units (..., D) → scaled."""
        shift, scale = self._numbers_like(x)
        return (x - shift) / scale

    def unnormalise(self, y: Any) -> Any:
        """Scaled (..., D) → physical units."""
        shift, scale = self._numbers_like(y)
        return y * scale + shift

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives the same bits back."""
        return {"mode": self.mode} | {name: getattr(self, name).astype(float).tolist() for name in _STATISTICS}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> "Normalizer":
        expected = {f.name for f in fields(cls) if f.init}
        if d.keys() != expected:
            raise UserError(f"normaliser has the entries {sorted(d)}, expected {sorted(expected)}")
        return cls(mode=d["mode"], **{name: np.array(d[name], np.float32) for name in _STATISTICS})

    def _numbers_like(self, x: Any) -> tuple[Any, Any]:
        if x.shape[-1] != self.size:
            raise UserError(f"normaliser of {self.size} dimensions got values of shape {tuple(x.shape)}")
        if isinstance(x, np.ndarray):
            return self._cache["numpy"]
        if x.device not in self._cache:
            self._cache[x.device] = _tensors(self._cache["numpy"], x.device)
        return self._cache[x.device]


def fit_normalizers(
    parts: Sequence[tuple[Store, Sequence[int] | np.ndarray]],
    modes: dict[str, str],
    lies: Mapping[str, SlotMap] | None = None,
) -> dict[str, Normalizer]:
    """A `Normalizer` for each field of `modes` ('state', 'action', 'privileged' → mode), from (store, episodes).

    lies: where the numbers of a field lie in slots, for one of slots; a slot that the robot lacks stays 0.
    """
    fitted = {}
    for name, mode in modes.items():
        choose(name, FIELDS, "field to normalise")
        values = [store.read(name)[rows_of(store.episode_ends, episodes)] for store, episodes in parts]
        if lies and name in lies:
            values = [lies[name].fill(v) for v in values]
        paths = ", ".join(str(store.path) for store, _ in parts)
        if not sum(map(len, values)):
            raise UserError(f"no training episodes of store {paths} to fit normalisers on")
        try:
            fitted[name] = Normalizer.fit(np.concatenate(values), mode)
        except UserError as error:
            raise UserError(f"{name} of store {paths}: {error}") from error
    return fitted


def _middle(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (low + high) / 2, (high - low) / 2


# mode → (shift, scale) from float64 statistics
_MODES = {
    "identity": lambda s: (np.zeros_like(s["mean"]), np.ones_like(s["mean"])),
    "gaussian": lambda s: (s["mean"], s["std"]),
    "range": lambda s: _middle(s["low"], s["high"]),
    "quantile": lambda s: _middle(s["q01"], s["q99"]),
}
_NOTHING = 1e-4  # of a unit or of the largest value: a tenth of a millimetre is settling physics, not motion


def _shift_and_scale(n: Normalizer) -> tuple[np.ndarray, np.ndarray]:
    s = {name: getattr(n, name).astype(np.float64) for name in _STATISTICS}
    shift, scale = _MODES[n.mode](s)
    if n.mode != "identity":
        nothing = _NOTHING * np.maximum(1, np.maximum(np.abs(s["low"]), np.abs(s["high"])))
        # a gripper that is shut 99 % of the time has no spread between its quantiles, but has a range
        middle, half = _middle(s["low"], s["high"])
        flat = scale <= nothing
        shift, scale = np.where(flat, middle, shift), np.where(flat, half, scale)
        constant = half <= nothing
        shift, scale = np.where(constant, s["low"], shift), np.where(constant, 1, scale)
    return shift.astype(np.float32), scale.astype(np.float32)


def _tensors(numbers: tuple[np.ndarray, np.ndarray], device: Any) -> tuple[Any, Any]:
    import torch

    # kept for later calls: made inside inference mode they could not take part in a backward pass
    with torch.inference_mode(False):
        shift, scale = (torch.from_numpy(v.copy()).to(device) for v in numbers)
    return shift, scale
