"""The zarr v3 hierarchy of a store, and the one file whose atomic replacement commits an episode.

The root `zarr.json` carries consolidated metadata: the shape of every array, inline. An append writes chunks
first (rows beyond the recorded shapes, which nobody reads) and then replaces that file with the grown shapes.
So a store holds exactly the episodes that its root names, whenever the writer is killed, and any zarr reader
sees the same. zarr itself writes each chunk file to a temporary name and renames it, so rewriting the last,
partly filled shard can never damage the rows that it already holds.

What this does not promise: no file is fsynced, so it survives a killed process but not always a power cut.
Then a damaged chunk is found by its checksum when it is read.
"""

import contextlib
import copy
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from ..envs.errors import UserError
from ..envs.spec import Embodiment
from .lock import lock_file
from .schema import FORMAT_VERSION

CONVENTIONS = {
    "rows": "row n of every data array is what was seen and done at step n; episodes follow each other",
    "images": "uint8, (height, width, RGB), upright as a person sees them",
    "depth": "float32, metres",
    "action": "what a policy learns: the expert's action, clipped to the action space",
    "action_executed": "what moved the robot, exploration noise included",
    "privileged": "simulator state, for training targets and debugging; never a policy input",
    "episode_ends": "row after the last of each episode",
}
_STATE_ROWS = 4096  # rows a chunk of the small arrays: 64 kB at four numbers a row, rewritten by each append
_EPISODE_ROWS = 1024
_CHUNK_BYTES = 512 * 1024  # decoded at once to read one frame
_CHUNKS_PER_SHARD = 16  # 16 x 16 frames of 96 pixels a file: 200,000 frames are 782 files


@dataclass(frozen=True)
class ArraySpec:
    """Shape of a row, type, dimension names and rows per chunk and per file of one array."""

    row: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    chunk: int
    shard: int | None = None


def array_specs(embodiment: Embodiment, *, privileged: bool) -> dict[str, ArraySpec]:
    """Every array of a store by its path inside the hierarchy."""

    def vector(name: str, size: int) -> ArraySpec:
        return ArraySpec((size,), "float32", ("step", name), _STATE_ROWS)

    specs = {}
    if embodiment.state_dim:  # video alone has neither state nor actions
        specs["data/state"] = vector("state_dim", embodiment.state_dim)
    if embodiment.action_dim:
        specs["data/action"] = vector("action_dim", embodiment.action_dim)
        specs["data/action_executed"] = vector("action_dim", embodiment.action_dim)
    if privileged:
        specs["data/privileged"] = vector("privileged_dim", embodiment.privileged_dim)
    for camera in embodiment.cameras:
        size, dims = (camera.height, camera.width), ("step", f"{camera.name}_height", f"{camera.name}_width")
        specs[f"data/image/{camera.name}"] = _frames((*size, 3), "uint8", (*dims, "rgb"))
        if camera.depth:
            specs[f"data/depth/{camera.name}"] = _frames(size, "float32", dims)
    types = {"episode_ends": "int64", "seed": "int64", "success": "bool"} | dict.fromkeys(
        ("task", "instruction", "source"), "str"
    )
    return specs | {f"meta/{k}": ArraySpec((), t, ("episode",), _EPISODE_ROWS) for k, t in types.items()}


def _frames(row: tuple[int, ...], dtype: str, dims: tuple[str, ...]) -> ArraySpec:
    fitting = max(1, _CHUNK_BYTES // (int(np.prod(row)) * np.dtype(dtype).itemsize))
    chunk = min(64, 1 << (fitting.bit_length() - 1))
    return ArraySpec(row, dtype, dims, chunk, chunk * _CHUNKS_PER_SHARD)


def create_hierarchy(folder: Path, embodiment: Embodiment, *, privileged: bool) -> None:
    """Write an empty store into `folder`, commit record included."""
    _check_names(embodiment)
    group = zarr.open_group(folder, mode="w-")
    for name, spec in array_specs(embodiment, privileged=privileged).items():
        _create_array(group, name, spec)
    nodes = {
        str(p.parent.relative_to(folder)): json.loads(p.read_text(encoding="utf-8"))
        for p in sorted(folder.rglob("zarr.json"))
        if p.parent != folder
    }
    attributes = {
        "format_version": FORMAT_VERSION,
        "embodiment": embodiment.to_dict(),
        "conventions": CONVENTIONS | embodiment.conventions,
    }
    consolidated = {"kind": "inline", "must_understand": False, "metadata": nodes}
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": consolidated,
    }
    replace_json(folder / "zarr.json", root)


def _create_array(group: zarr.Group, name: str, spec: ArraySpec) -> None:
    # lz4 decodes at memory speed (level 9: 25 % smaller than 5 and no slower to read);
    # the checksum catches what it would decode to garbage
    shuffle = "shuffle" if spec.dtype == "float32" else "noshuffle"
    group.create_array(
        name,
        shape=(0, *spec.row),
        dtype=spec.dtype,
        chunks=(spec.chunk, *spec.row),
        shards=(spec.shard, *spec.row) if spec.shard else None,
        compressors=[BloscCodec(cname="lz4", clevel=9, shuffle=shuffle), Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=spec.dims,
    )


def _check_names(embodiment: Embodiment) -> None:
    for camera in embodiment.cameras:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", camera.name):
            raise UserError(f"camera name {camera.name!r} cannot name a zarr array; use letters, digits, '_' and '-'")


def read_root(path: Path) -> dict[str, Any]:
    """The commit record of the store at `path`; `UserError` if that is not a store this version can read."""
    if not path.exists():
        raise UserError(f"no store at {path}: the path does not exist; collect one or correct the path")
    file = path / "zarr.json"
    try:
        root = json.loads(file.read_text(encoding="utf-8"))
        attributes = root.get("attributes", {})
    except FileNotFoundError:
        raise UserError(f"{path} is not a foreact store: it has no zarr.json") from None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a readable foreact store: {file}: {error}") from error
    _check_format(path, attributes.get("format_version"))
    missing = {"embodiment"} - attributes.keys() | {"consolidated_metadata"} - root.keys()
    if missing:
        raise UserError(f"{file} lacks {sorted(missing)}; it was changed by another program: restore it from a copy")
    return root


def _check_format(path: Path, found: Any) -> None:
    """The one place that decides which stores this version reads."""
    if found is None:
        raise UserError(f"{path} is a zarr group but not a foreact store: it has no format_version attribute")
    if found != FORMAT_VERSION:
        mend = "update foreact" if isinstance(found, int) and found > FORMAT_VERSION else "collect or convert it again"
        raise UserError(
            f"store {path} has format version {found!r}, this foreact reads version {FORMAT_VERSION}; {mend}"
        )


def nodes_of(root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Array path → zarr array metadata, from a commit record."""
    nodes = root["consolidated_metadata"]["metadata"]
    return {name: node for name, node in nodes.items() if node["node_type"] == "array"}


def lock_for_writing(path: Path) -> IO[bytes]:
    """The lock of the one process that may write, held until it is closed. `UserError` where another has it."""
    # data/zarr.json describes a group and is never replaced, so its inode can carry the lock
    try:
        writer = lock_file(path / "data" / "zarr.json", wait=False)
    except OSError as error:
        raise UserError(f"cannot open store {path} for appending: {error}") from error
    if writer is None:
        raise UserError(f"another process is writing to store {path}; wait until it ends, or stop it")
    return writer


def grown(root: dict[str, Any], *, n_steps: int, n_episodes: int) -> dict[str, Any]:
    """A copy of the commit record with other lengths."""
    root = copy.deepcopy(root)
    for name, node in nodes_of(root).items():
        node["shape"][0] = n_steps if name.startswith("data/") else n_episodes
    return root


def file_rows(node: dict[str, Any]) -> int:
    """Rows that share one file."""
    return node["chunk_grid"]["configuration"]["chunk_shape"][0]


def publish_shapes(path: Path, root: dict[str, Any]) -> None:
    """Repeat the committed shapes in each array's own zarr.json, for readers that open one array alone."""
    for name, node in nodes_of(root).items():
        replace_json(path / name / "zarr.json", node)


def discard_tail(path: Path, root: dict[str, Any]) -> None:
    """Delete what an unfinished append left: files beyond the committed rows, and temporary files."""
    for name, node in nodes_of(root).items():
        files = -(-node["shape"][0] // file_rows(node))
        for file in _files(path / name):
            number = re.match(r"c\.(\d+)", file.name)
            if file.name.endswith(".partial") or (number and int(number[1]) >= files):
                Path(file).unlink(missing_ok=True)
    for file in path.glob("*.partial"):
        file.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from list(entries)


def replace_json(file: Path, content: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
