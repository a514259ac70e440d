"""Samples of a store, gathered into batches fast, and the split into training and validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..envs.errors import UserError, choose
from .batch import Batch
from .cache import cached_frames
from .derived import now_at
from .store import Store
from .tensor_rows import TensorRows
from .windows import WindowIndex, Windows, rows_of

READERS = ("memmap", "zarr", "tensorstore")
"""Where frames come from."""


class Dataset:
    """Samples of a store: one for each step of `episodes` (all by default), seen through `windows`.

    reader: 'memmap' reads frames from decoded files that all processes share (cache.py); 'zarr' and 'tensorstore'
    decode them for each batch, where there is no room for such files. Small arrays are held in memory. Sample i is row
    `rows[i]` of the store.
    actions: False leaves out state and actions, as where the store has none; state: False the state alone. labels: a
    .npy file (N, A) with actions for a dataset that has none. tasks: what a batch's task numbers
    count, by default the store's own tasks. latents {camera: .npy file (N, h, w, C)}: of the present and future frames;
    where they are given, the future's own pixels are not read. robot: whose actions these are, by default the store's.
    A copy in another process maps the same files or opens the store by its path; frames are never sent.
    """

    def __init__(
        self,
        store: Store,
        windows: Windows,
        *,
        episodes: np.ndarray | Sequence[int] | None = None,
        reader: str = "memmap",
        actions: bool = True,
        state: bool = True,
        labels: Path | None = None,
        tasks: Sequence[str] | None = None,
        latents: Mapping[str, Path] | None = None,
        robot: str | None = None,
    ):
        self._reader = choose(reader, READERS, "reader of frames")
        self.path = store.path
        self.windows = windows
        self.embodiment = store.embodiment
        self.robot = store.embodiment.name if robot is None else robot
        self.tasks = store.tasks if tasks is None else list(tasks)
        self.episodes = np.arange(len(store)) if episodes is None else np.asarray(episodes, np.int64)
        self.episode_ends = store.episode_ends
        self.rows = rows_of(self.episode_ends, self.episodes)
        if len(self.rows) == 0:
            raise UserError(f"no episodes to learn from in store {store.path}; it holds {len(store)}")
        lengths = np.diff(self.episode_ends, prepend=0)
        numbers = {task: i for i, task in enumerate(self.tasks)}
        self._task_of_row = np.repeat([numbers[t] for t in store.meta.task], lengths)
        self._episode_of_row = np.repeat(np.arange(len(store)), lengths)
        self.has_actions = actions and store.embodiment.action_dim > 0
        names = ("state", "action", "action_executed", *(("privileged",) if store.has_privileged else ()))
        self._small = {name: torch.from_numpy(store.read(name)) for name in names if self.has_actions}
        if not state:
            self._small.pop("state", None)
        if labels is not None:
            self.has_actions = True
            self._small |= dict.fromkeys(("action", "action_executed"), torch.from_numpy(np.load(labels)))
        self._files = cached_frames(store.recorded) if reader == "memmap" else None
        self._recorded_rows = store.recorded_rows
        self._latents = dict(latents or {})
        self._depth = [c.name for c in store.embodiment.cameras if c.depth]
        self._open(store.recorded)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def task(self) -> np.ndarray:
        """Task number of each sample, an index into `tasks`."""
        return self._task_of_row[self.rows]

    @property
    def episode(self) -> np.ndarray:
        """Episode of each sample."""
        return self._episode_of_row[self.rows]

    @property
    def step(self) -> np.ndarray:
        """Position of each sample inside its episode: `np.flatnonzero(dataset.step == 0)` are the first."""
        return self.rows - np.concatenate([[0], self.episode_ends])[self.episode]

    def batch(self, rows: np.ndarray) -> Batch:
        """The samples `rows` (B,), numbers from 0 to len(dataset) − 1."""
        rows = np.asarray(rows, np.int64)
        if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(self):
            span = f"{rows.min()} to {rows.max()}" if len(rows) else "none"
            raise UserError(f"samples {span} asked of a dataset of {len(self)}, numbered from 0")
        now = self.rows[rows]
        at = self.windows.at(self.episode_ends, now)
        cameras = [c.name for c in self.embodiment.cameras]
        has_future = bool(self.windows.future)
        ahead = [name for name in cameras if has_future and name not in self._latents]
        return Batch(
            images={name: self._frames(f"image/{name}", at.obs) for name in cameras},
            future={name: self._frames(f"image/{name}", at.future) for name in ahead},
            depth={name: self._frames(f"depth/{name}", at.obs) for name in self._depth},
            future_depth={name: self._frames(f"depth/{name}", at.future) for name in self._depth if has_future},
            latents={name: self._frames(f"latent/{name}", _now_and_ahead(at)) for name in self._latents},
            state=self._values("state", at.obs),
            future_state=self._values("state", at.future) if has_future else None,
            action=self._values("action", at.action),
            action_executed=self._values("action_executed", at.action),
            privileged=self._values("privileged", now),
            task=torch.from_numpy(self._task_of_row[now]),
            step=torch.from_numpy(at.step),
            obs_pad=torch.from_numpy(at.obs_pad),
            action_pad=torch.from_numpy(at.action_pad) if self.has_actions else None,
            future_pad=torch.from_numpy(at.future_pad) if has_future else None,
            robot=self.robot,
        )

    def _values(self, name: str, index: np.ndarray) -> torch.Tensor | None:
        return self._small[name][torch.from_numpy(index)] if name in self._small else None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_maps", "_source")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(None)

    def _open(self, store: Store | None) -> None:
        if self._files and not all(file.exists() for file in self._files.values()):
            # another process has replaced them: the store grew, and its first rows are still ours
            self._files = cached_frames(Store.open(self.path))
        self._source = None if self._files else self._open_source(store)
        files = (self._files or {}) | {f"latent/{name}": now_at(file) for name, file in self._latents.items()}
        self._maps = {name: np.load(file, mmap_mode="r") for name, file in files.items()}

    def _open_source(self, store: Store | None) -> Store | TensorRows:
        store = store or Store.open(self.path)
        return TensorRows(store) if self._reader == "tensorstore" else store

    def _frames(self, name: str, index: np.ndarray) -> torch.Tensor:
        """Pictures (B, T, ...) of an array of the store, at its rows `index` (B, T)."""
        index = self._recorded_rows[index]
        if self._source is not None and name not in self._maps:
            unique, where = np.unique(index, return_inverse=True)
            frames = torch.from_numpy(self._source.read(name, unique))
            return frames[torch.from_numpy(where.reshape(index.shape))]
        decoded = self._maps[name]
        out = torch.from_numpy(np.empty((*index.shape, *decoded.shape[1:]), decoded.dtype))
        # one copy a frame, straight into the tensor; 'raise' would copy twice, and the index is in range
        np.take(decoded, index, axis=0, out=out.numpy(), mode="clip")
        return out


def _now_and_ahead(at: WindowIndex) -> np.ndarray:
    """Rows (B, 1 + F) of the present frame and the future ones."""
    return np.concatenate([at.obs[:, -1:], at.future], axis=1)


def split_episodes(
    store: Store, held_out: float = 0.1, seed: int = 0, episodes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) numbers of `episodes` (all by default), each rising and not empty.

    About a share `held_out` of every task goes to validation; a task's last episode stays in training.
    """
    episodes = np.arange(len(store)) if episodes is None else np.sort(episodes)
    n = len(episodes)
    if not 0 < held_out < 1:
        raise UserError(f"held_out is a share between 0 and 1, got {held_out}")
    if n < 2:
        raise UserError(f"{n} episodes of store {store.path} are used; training and validation need one each")
    rng = np.random.default_rng(seed)
    tasks, task_of = np.unique(np.array(store.meta.task)[episodes], return_inverse=True)
    counts = np.bincount(task_of)
    room = counts - 1 if counts.max() > 1 else counts
    total = min(max(1, round(held_out * n)), int(room.sum()), n - 1)
    wanted = held_out * counts
    # whole parts first, then one each to the largest remainders, in random order where equal
    quota = np.minimum(np.floor(wanted).astype(int), room)
    order = np.lexsort((rng.random(len(tasks)), -(wanted - quota)))
    for t in order:
        quota[t] += quota[t] < room[t] and quota.sum() < total
    held = np.concatenate([rng.permutation(np.flatnonzero(task_of == t))[:q] for t, q in enumerate(quota)])
    return np.delete(episodes, held), episodes[np.sort(held)]
