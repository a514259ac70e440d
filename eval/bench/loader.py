"""Windows a second: our loader against plain ones, and against lerobot's dataset, on the same frames."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from zarr.codecs import BloscCodec

from ... import envs
from ...data.collect import collect
from ...data.dataset import Dataset
from ...data.loader import Loader
from ...data.store import Store
from ...data.windows import Windows, rows_of
from .peers import lerobot
from .timing import console, machine, show

OURS, DECODING, PLAIN = "foreact", "foreact, decoding zarr", "zarr, a frame a chunk"
Batches = Callable[[], Iterator[Any]]
"""Opens a stream of batches that are ready to be learned from."""


class PlainWindows(torch.utils.data.Dataset):
    """What people write first: frames in a zarr array of one frame a chunk, read window by window; the rest in memory.

    Holds paths, not arrays, so that it can be sent to the loader's processes.
    """

    def __init__(self, folder: Path, store: Store, windows: Windows):
        self.folder, self.windows, self.ends = folder, windows, store.episode_ends
        self.rows = rows_of(self.ends, np.arange(len(store)))
        self.cameras = [c.name for c in store.embodiment.cameras]
        self.small = {name: store.read(name) for name in ("state", "action")}
        self._opened: dict[str, Any] = {}
        for camera in self.cameras:
            _write(folder / camera, store.read(f"image/{camera}"))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        at = self.windows.at(self.ends, self.rows[[i]])
        if not self._opened:
            self._opened = {camera: zarr.open_array(self.folder / camera, mode="r") for camera in self.cameras}
        frames = {c: np.stack([np.asarray(self._opened[c][int(j)]) for j in at.obs[0]]) for c in self.cameras}
        found = {**frames, "state": self.small["state"][at.obs[0]], "action": self.small["action"][at.action[0]]}
        return {name: torch.from_numpy(values) for name, values in found.items()}


def _write(path: Path, frames: np.ndarray) -> None:
    chunks = (1, *frames.shape[1:])
    out = zarr.create_array(path, shape=frames.shape, chunks=chunks, dtype=frames.dtype, compressors=BloscCodec())
    out[:] = frames


def bench_loader(
    data: Path | str | None = None,
    *,
    pixels: int = 96,
    batch_size: int = 64,
    rounds: int = 5,
    batches: int = 20,
    workers: int = 2,
    peer: str | None = None,
) -> None:
    """Windows a second of each way to read, in turns. A window: two frames of each camera, the states and 16 actions.

    data: a store; None collects a small one · batches: of a round · workers: processes of PyTorch's own loader, which
    is timed without them as well · peer: an interpreter that has lerobot.
    """
    windows = Windows(n_obs_steps=2, horizon=16)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(Store.open(data) if data else _collected(folder / "store", pixels))
        plain = PlainWindows(folder / "plain", store, windows)
        arms: dict[str, Batches] = {
            OURS: partial(_ours, store, windows, batch_size, "memmap"),
            DECODING: partial(_ours, store, windows, batch_size, "none"),
            **{f"{PLAIN}, {n} processes": partial(_torch, plain, batch_size, n) for n in (0, workers)},
        }
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, start in arms.items():
                times[name] += _timed(start, batches)
        if peer:
            times |= _lerobot(peer, store, folder / "lerobot", windows, batch_size, batches, workers)
    best = min((n for n in times if n.startswith(PLAIN)), key=lambda n: np.median(times[n]))
    rates = {name: f"{1000 * batch_size / np.median(values):,.0f}" for name, values in times.items()}
    show(f"loader · batches of {batch_size} windows", times, best, {"windows/s": rates})
    console.print(machine("cpu"))
    print(f"ratio {np.median(times[best]) / np.median(times[OURS]):.1f}x")


def _collected(path: Path, pixels: int) -> Store:
    """Ten demonstrations of one task."""
    return collect(["button-press-v3"], 10, path, cameras=envs.views("button-press-v3", None, pixels), seed=0)


def _ours(store: Store, windows: Windows, batch_size: int, cache: str) -> Iterator[Any]:
    return Loader(Dataset(store, windows, cache=cache), batch_size=batch_size, seed=0).iterate()


def _torch(dataset: PlainWindows, batch_size: int, workers: int) -> Iterator[Any]:
    order = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**9)
    options: dict[str, Any] = {"multiprocessing_context": "spawn"} if workers else {}
    return iter(torch.utils.data.DataLoader(dataset, batch_size, sampler=order, num_workers=workers, **options))


def _timed(start: Batches, batches: int) -> list[float]:
    """Milliseconds a batch over that many of them, once the stream has filled its buffers."""
    stream = start()
    for _ in range(4):
        next(stream)
    began = time.perf_counter()
    for _ in range(batches):
        next(stream)
    took = 1000 * (time.perf_counter() - began) / batches
    getattr(stream, "close", lambda: None)()
    return [took]


def _lerobot(
    python: str, store: Store, folder: Path, windows: Windows, batch_size: int, batches: int, workers: int
) -> Mapping[str, list[float]]:
    """lerobot's dataset in both variants, each without and with processes of PyTorch's loader."""
    folder.mkdir()
    for i in range(len(store)):
        episode = store.episode(i)
        arrays: dict[str, Any] = {f"image/{c}": frames for c, frames in episode.images.items()}
        np.savez(folder / f"{i:04d}.npz", state=episode.state, action=episode.action, **arrays)
    sizes = {"n_obs_steps": windows.n_obs_steps, "horizon": windows.horizon, "batch_size": batch_size}
    times = {}
    for variant in ("image", "video"):
        for n in (0, workers):
            asked = {"folder": str(folder), "variant": variant, "workers": n, "batches": batches, **sizes}
            found = lerobot(python, "loader", torch.get_num_threads(), **asked)
            times[f"LeRobotDataset v3, {variant}s, {n} processes"] = found["ms"]
    return times
