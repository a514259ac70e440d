"""Windows a second: our loader against plain ones, and against lerobot's dataset, on the same frames."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from zarr.codecs import BloscCodec

from ... import envs
from ...data.collect import collect
from ...data.dataset import READERS, Dataset
from ...data.loader import Loader
from ...data.store import Store
from ...data.windows import Windows, rows_of
from .peers import Peer, lerobot
from .timing import Curves, console, draw_growth, machine, show

OURS, PLAIN = "foreact", "zarr, a frame a chunk"
SECONDS = 0.5  # of a measurement at least: our batches take a fraction of a millisecond
BATCHES, FRAMES = (16, 64, 256), (1, 2, 4)
"""What the growth plot goes through."""
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
            if not (folder / camera).exists():
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
    growth: bool = True,
    peer: str | None = None,
    out: Path | str = "bench",
) -> None:
    """Windows a second of each way to read, in turns. A window: two frames of each camera, the states and 16 actions.

    data: a store; None collects a small one · batches: of a round at least · workers: processes of PyTorch's own
    loader, which is timed without them as well · growth: plot how the time grows with a batch and with its frames ·
    peer: an interpreter that has lerobot.
    """
    windows = Windows(n_obs_steps=2, horizon=16)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(Store.open(data) if data else _collected(folder / "store", pixels))
        plain = PlainWindows(folder / "plain", store, windows)
        arms: dict[str, Callable[[], float]] = {
            name: partial(_timed, start, batches)
            for name, start in {
                OURS: partial(_ours, store, windows, batch_size, "memmap"),
                **{f"{OURS}, reader={r}": partial(_ours, store, windows, batch_size, r) for r in _decoding()},
                **{f"{PLAIN}, {n} processes": partial(_torch, plain, batch_size, n) for n in (0, workers)},
            }.items()
        }
        if peer:
            sizes = {"n_obs_steps": windows.n_obs_steps, "horizon": windows.horizon, "batch_size": batch_size}
            _write_episodes(store, folder / "lerobot")
            for variant, n in itertools.product(("image", "video"), (0, workers)):
                asked = {"folder": str(folder / "lerobot"), "variant": variant, "workers": n, "batches": batches}
                there = stack.enter_context(lerobot(peer, "loader", torch.get_num_threads(), **asked, **sizes))
                arms[f"LeRobotDataset v3, {variant}s, {n} processes"] = partial(_told, there)
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, arm in arms.items():
                times[name].append(arm())
        if growth:
            _growth(store, folder / "grown", batches, workers, Path(out) / "loader.png")
        size = sum(store.n_steps * c.height * c.width * 3 for c in store.embodiment.cameras)
        about = f"{len(store)} episodes, {store.n_steps} steps, frames of {size / 1e6:,.0f} MB"
    best = min((n for n in times if n.startswith(PLAIN)), key=lambda n: np.median(times[n]))
    rates = {name: f"{1000 * batch_size / np.median(values):,.0f}" for name, values in times.items()}
    show(f"loader · batches of {batch_size} windows · {about}", times, best, {"windows/s": rates})
    console.print(machine("cpu"))
    print(f"ratio {np.median(times[best]) / np.median(times[OURS]):.1f}x")


def _growth(store: Store, folder: Path, batches: int, workers: int, file: Path) -> None:
    panels: dict[str, Curves] = {}
    for what, points in {
        "windows a batch": {n: (2, n) for n in BATCHES},
        "frames a window and camera": {n: (n, 64) for n in FRAMES},
    }.items():
        panels[what] = {OURS: {}, PLAIN: {}}
        for at, (frames, size) in points.items():
            windows = Windows(n_obs_steps=frames, horizon=16)
            plain = PlainWindows(folder, store, windows)
            starts = {
                OURS: partial(_ours, store, windows, size, "memmap"),
                PLAIN: partial(_torch, plain, size, workers),
            }
            for name, start in starts.items():
                panels[what][name][at] = [_timed(start, batches) for _ in range(3)]
    draw_growth(file, panels, "ms a batch")


def _collected(path: Path, pixels: int) -> Store:
    """Ten demonstrations of one task."""
    return collect(["button-press-v3"], 10, path, cameras=envs.views("button-press-v3", None, pixels), seed=0)


def _decoding() -> list[str]:
    """The readers that decode for each batch, as far as they are installed."""
    return [r for r in READERS if r != "memmap" and (r != "tensorstore" or find_spec(r))]


def _ours(store: Store, windows: Windows, batch_size: int, reader: str) -> Iterator[Any]:
    return Loader(Dataset(store, windows, reader=reader), batch_size=batch_size, seed=0).iterate()


def _torch(dataset: PlainWindows, batch_size: int, workers: int) -> Iterator[Any]:
    order = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**9)
    options: dict[str, Any] = {"multiprocessing_context": "spawn"} if workers else {}
    return iter(torch.utils.data.DataLoader(dataset, batch_size, sampler=order, num_workers=workers, **options))


def _timed(start: Batches, batches: int) -> float:
    """Milliseconds a batch over that many of them, or `SECONDS`, once the stream has filled its buffers."""
    stream = start()
    for _ in range(4):
        next(stream)
    began, done = time.perf_counter(), 0
    while done < batches or time.perf_counter() - began < SECONDS:
        next(stream)
        done += 1
    took = 1000 * (time.perf_counter() - began) / done
    getattr(stream, "close", lambda: None)()
    return took


def _told(peer: Peer) -> float:
    """Milliseconds a batch, measured on its side in the same way."""
    return peer()["ms"]


def _write_episodes(store: Store, folder: Path) -> None:
    """The demonstrations as plain arrays, which lerobot's side makes its dataset of."""
    folder.mkdir()
    for i in range(len(store)):
        episode = store.episode(i)
        arrays: dict[str, Any] = {f"image/{c}": frames for c, frames in episode.images.items()}
        np.savez(folder / f"{i:04d}.npz", state=episode.state, action=episode.action, **arrays)
