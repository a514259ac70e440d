"""A store of demonstrations on disk: append whole episodes, read any rows. Layout: layout.py."""

import contextlib
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ..envs.errors import UserError, choose
from ..envs.spec import Embodiment
from . import layout
from .arrays import Arrays
from .schema import Episode

_META = ("episode_ends", "task", "instruction", "seed", "source", "success")


@dataclass(frozen=True, kw_only=True)
class EpisodeMeta:
    """What is known of each of the E episodes, in order of arrival."""

    task: list[str]
    instruction: list[str]
    seed: np.ndarray  # (E,) int64
    source: list[str]
    success: np.ndarray  # (E,) bool


class Store:
    """Episodes of one embodiment in a zarr v3 folder. `Store.create` or `Store.open` it, then close it.

    A store opened for reading is a snapshot of the episodes that were committed then. One process at a time
    may write, also while others read. Not for use by several threads at once while appending.
    """

    def __init__(self, path: Path, root: dict[str, Any], writer: IO[bytes] | None):
        self.path = path
        self._root = root
        self._writer = writer
        self.embodiment = Embodiment.from_dict(root["attributes"]["embodiment"])
        self._arrays = Arrays(path, layout.nodes_of(root))
        self._meta = {key: self._arrays.read(f"meta/{key}", slice(None)).tolist() for key in _META}
        self._sentence = dict(zip(self._meta["task"], self._meta["instruction"], strict=True))

    @classmethod
    def create(cls, path: str | Path, embodiment: Embodiment, *, privileged: bool) -> "Store":
        """An empty store, open for appending. `UserError` where something is there already."""
        path = Path(path)
        if privileged and embodiment.privileged_dim == 0:
            raise UserError(f"embodiment {embodiment.name!r} has no privileged fields to store; pass privileged=False")
        taken = UserError(f"{path} exists already; open it with mode 'a' to add episodes, or choose another path")
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise taken
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            layout.create_hierarchy(temporary, embodiment, privileged=privileged)
            temporary.rename(path)
        except OSError as error:
            raise (taken if path.exists() else UserError(f"cannot create a store at {path}: {error}")) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls.open(path, mode="a")

    @classmethod
    def open(cls, path: str | Path, mode: str = "r") -> "Store":
        """Open for reading ('r') or for appending ('a': takes the writer's lock, discards a torn tail)."""
        path, mode = Path(path), choose(mode, ("r", "a"), "store mode")
        root = layout.read_root(path)
        if mode == "r":
            return cls(path, root, None)
        writer = layout.lock_for_writing(path)
        try:
            root = layout.read_root(path)  # again: the previous writer may have committed meanwhile
            store = cls(path, root, writer)
            layout.discard_tail(path, root)
            layout.publish_shapes(path, root)
        except OSError as error:
            writer.close()
            raise UserError(f"cannot open store {path} for appending: {error}") from error
        except BaseException:
            writer.close()
            raise
        return store

    def __len__(self) -> int:
        return len(self._meta["episode_ends"])

    @property
    def n_steps(self) -> int:
        return self._meta["episode_ends"][-1] if self._meta["episode_ends"] else 0

    @property
    def episode_ends(self) -> np.ndarray:  # (E,) int64
        return np.array(self._meta["episode_ends"], np.int64)

    @property
    def recorded(self) -> "Store":
        """What lies on disk: itself, but for a store that is read at another rate (slower.py)."""
        return self

    @property
    def recorded_rows(self) -> np.ndarray:
        """Which row of `recorded` each step's pictures and state are, (N,) int64."""
        return np.arange(self.n_steps)

    @property
    def meta(self) -> EpisodeMeta:
        m = self._meta
        return EpisodeMeta(
            task=list(m["task"]),
            instruction=list(m["instruction"]),
            seed=np.array(m["seed"], np.int64),
            source=list(m["source"]),
            success=np.array(m["success"], bool),
        )

    @property
    def tasks(self) -> list[str]:
        """The task ids, sorted: a batch's task numbers are positions in this list."""
        return sorted(self._sentence)

    @property
    def instructions(self) -> dict[str, str]:
        """Task id → its sentence."""
        return dict(sorted(self._sentence.items()))

    @property
    def has_privileged(self) -> bool:
        return "data/privileged" in self._arrays

    @property
    def names(self) -> list[str]:
        """What `read` can read."""
        return [name.removeprefix("data/") for name in self._arrays.nodes if name.startswith("data/")]

    def row(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of one row of the array `name`."""
        node = self.metadata(name)
        return tuple(node["shape"][1:]), np.dtype(node["data_type"])

    def metadata(self, name: str) -> dict[str, Any]:
        """What zarr.json says of the array `name`, with the shape that is committed."""
        return self._arrays.nodes["data/" + choose(name, self.names, f"array of store {self.path}")]

    def read(self, name: str, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Rows (n, ...) of the array `name`: one of 'state', 'action', 'action_executed', 'privileged',
        'image/<camera>', 'depth/<camera>'.

        Any order, repeats allowed. `UserError` names array, episode and file where data on disk is damaged.
        """
        name = "data/" + choose(name, self.names, f"array of store {self.path}")
        return self._arrays.read(name, self._asked(rows))

    def _asked(self, rows: np.ndarray | slice) -> np.ndarray | slice:
        if isinstance(rows, slice):
            return rows
        rows = np.asarray(rows, np.int64).reshape(-1)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.n_steps):
            span = f"{rows.min()} to {rows.max()}"
            raise UserError(f"rows {span} asked of store {self.path}, which has {self.n_steps} steps")
        return rows

    def episode(self, i: int) -> Episode:
        """Episode `i` (0 ≤ i < len(store)) with everything that the store holds of it."""
        if not 0 <= i < len(self):
            raise UserError(f"no episode {i} in store {self.path}; it holds {len(self)}, numbered from 0")
        m = self._meta
        rows = slice(m["episode_ends"][i - 1] if i else 0, m["episode_ends"][i])
        data = {name: self.read(name, rows) for name in self.names}
        nothing = np.zeros((rows.stop - rows.start, 0), np.float32)  # of video alone
        return Episode(
            images={c.name: data[f"image/{c.name}"] for c in self.embodiment.cameras},
            depth={c.name: data[f"depth/{c.name}"] for c in self.embodiment.cameras if c.depth},
            **{name: data.get(name, nothing) for name in ("state", "action", "action_executed")},
            privileged=data.get("privileged"),
            **{key: m[key][i] for key in ("task", "instruction", "seed", "source", "success")},
        )

    def append(self, episode: Episode) -> int:
        """Add one whole episode and return its number. All or nothing, also if the process is killed."""
        if self._writer is None:
            raise UserError(f"store {self.path} is not open for appending; use Store.open(path, mode='a')")
        episode.validate(self.embodiment, privileged=self.has_privileged)
        known = self._sentence.get(episode.task, episode.instruction)
        if known != episode.instruction:
            raise UserError(
                f"task {episode.task!r} has the instruction {known!r} in store {self.path}, "
                f"the new episode says {episode.instruction!r}; a task has one sentence"
            )
        n_steps, number = self.n_steps + len(episode), len(self)
        meta = {key: getattr(episode, key) for key in _META[1:]} | {"episode_ends": n_steps}
        self._commit(episode, meta, layout.grown(self._root, n_steps=n_steps, n_episodes=number + 1))
        self._sentence[episode.task] = episode.instruction
        for key, value in meta.items():
            self._meta[key].append(value)
        return number

    def close(self) -> None:
        """Give the writer's lock back. Idempotent; reading goes on working."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self, episode: Episode, meta: dict[str, Any], root: dict[str, Any]) -> None:
        arrays = Arrays(self.path, layout.nodes_of(root))
        try:
            for name in arrays.nodes:
                group, _, key = name.partition("/")
                arrays.write_tail(name, _values(episode, key) if group == "data" else np.array([meta[key]]))
            layout.replace_json(self.path / "zarr.json", root)  # from here on the episode exists
        except Exception as error:
            with contextlib.suppress(OSError):
                layout.discard_tail(self.path, self._root)
            raise UserError(
                f"cannot append episode {len(self)} to store {self.path}: {error}; the store is valid and "
                f"holds the {len(self)} episodes before it: make room or mend the disk, then run again"
            ) from error
        except BaseException:
            self.close()  # Ctrl-C: zarr's thread may still be writing, so nothing more may be appended
            raise
        self._root, self._arrays = root, arrays
        with contextlib.suppress(OSError):  # only a copy of what is committed; the next open writes it again
            layout.publish_shapes(self.path, root)


def _values(episode: Episode, key: str) -> np.ndarray:
    kind, _, camera = key.partition("/")
    if camera:
        return {"image": episode.images, "depth": episode.depth}[kind][camera]
    return getattr(episode, key)
