"""The doctor's checks of lengths, seeds, sentences and a checkpoint's statistics."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..envs.errors import UserError
from ..envs.slot_maps import SPACES, slot_map
from ..envs.slot_tables import with_slots
from . import layout
from .evidence import Evidence, Problem
from .store import Store

_SHORT = 5  # steps


def wrong_lengths(store: Store) -> Iterator[Problem]:
    """Before anything else: do episodes and arrays fit together? Without that no other check means anything."""
    ends, rows = store.episode_ends, store.n_steps
    remedy = "restore meta/episode_ends and the arrays from a copy, or collect the store again"
    for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if end <= start:
            yield Problem("error", f"episode {i}", f"ends at row {end}, the one before at {start}", remedy)
    if len(ends) and ends[-1] != rows:
        yield Problem("error", "meta/episode_ends", f"the last episode ends at {ends[-1]} of {rows} rows", remedy)
    for name, node in layout.nodes_of(layout.read_root(store.path)).items():
        committed, own = node["shape"][0], _own_length(store.path / name / "zarr.json")
        if own != committed:
            message = f"its own zarr.json says {own} rows, the store has committed {committed}"
            mend = "changed by another program, or a killed writer: open the store for appending once, then see"
            yield Problem("error", name, message, mend)


def _own_length(file: Path) -> int | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["shape"][0]
    except (OSError, ValueError, KeyError, IndexError):
        return None


def too_short(e: Evidence) -> Iterator[Problem]:
    for episode in e.episodes:
        steps = episode.rows.stop - episode.rows.start
        if steps < _SHORT:
            remedy = "leave it out; a chunk of actions needs more steps than that"
            yield Problem("warning", episode.where, f"has only {steps} steps", remedy)


def duplicate_episodes(e: Evidence) -> Iterator[Problem]:
    """The same numbers twice count twice in training, and put a training episode into validation."""
    contents: dict[bytes, str] = {}
    seeds: dict[tuple, str] = {}
    for episode in e.episodes:
        steps = b"".join(e.of(episode, name).tobytes() for name in ("state", "action_executed") if name in e.arrays)
        steps = steps or e.instructions[episode.index].encode() + str(episode.seed).encode()  # of video: the file
        content = sha256(steps).digest()
        origin = (episode.task, episode.seed, episode.source)
        if content in contents:
            message = f"has the same states and actions as {contents[content]}"
            yield Problem("error", episode.where, message, "leave one of the two out")
        elif origin in seeds:
            message = f"has the task, seed and source of {seeds[origin]}, but other steps"
            yield Problem("error", episode.where, message, "correct the seed, or leave one of the two out")
        contents.setdefault(content, episode.where)
        seeds.setdefault(origin, episode.where)


def instructions(e: Evidence) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    for episode, sentence in zip(e.episodes, e.instructions, strict=True):
        if not sentence.strip():
            remedy = "write the task's sentence into meta/instruction"
            yield Problem("error", episode.where, "has no instruction", remedy)
        elif owner.setdefault(sentence, episode.task) != episode.task:
            message = f"{episode.task} and {owner[sentence]} share the instruction {sentence!r}"
            remedy = "give each task its own sentence: a policy that reads it cannot tell the two apart"
            yield Problem("warning", episode.where, message, remedy)


def failures(e: Evidence) -> Iterator[Problem]:
    failed = [episode for episode in e.episodes if not episode.success]
    if failed:
        message = f"{len(failed)} of {len(e.episodes)} episodes failed; the first is {failed[0].where}"
        remedy = "leave them out when imitating; they are of use to a model of the future"
        yield Problem("note", "meta/success", message, remedy)


def load_statistics(checkpoint: Path | str) -> dict:
    """The normaliser statistics {field: {mean, std, …}} in a checkpoint's folder (or its run's), and under 'space' what
    the numbers are (`slots.SPACES`)."""
    checkpoint = Path(checkpoint)
    files = [checkpoint] if checkpoint.is_file() else sorted(checkpoint.rglob("normalizers.json"))
    if not files:
        raise UserError(f"no normalizers.json in {checkpoint}; name the folder of a checkpoint")
    try:
        about = files[-1].with_name("policy.json")
        model = json.loads(about.read_text(encoding="utf-8"))["model"] if about.is_file() else {}
        return json.loads(files[-1].read_text(encoding="utf-8")) | {"space": model.get("space", "native")}
    except (OSError, ValueError) as error:
        raise UserError(f"{files[-1]} is not readable JSON ({error}); save the checkpoint again") from error


def checkpoint_statistics(e: Evidence) -> Iterator[Problem]:
    """A checkpoint acts well only on numbers like those that it was normalised with."""
    for name in ("state", "action", "privileged"):
        # of several robots each has its own, under its name
        statistics = e.checkpoint.get(f"{e.embodiment.name}/{name}", e.checkpoint.get(name, {}))
        values = e.arrays.get(name)
        if values is None or "mean" not in statistics:
            continue
        make = SPACES[e.checkpoint["space"]]
        if make is not None and name != "privileged":
            try:
                robot = with_slots(e.embodiment, e.slots) if make is slot_map else e.embodiment
                values = make(robot, name).fill(values)
            except UserError:
                continue  # the check of the slots says what is wrong with them
        mean, std = (np.asarray(statistics[key], np.float64) for key in ("mean", "std"))
        if len(mean) != values.shape[1]:
            message = f"has {values.shape[1]} dimensions, the checkpoint's normaliser {len(mean)}"
            yield Problem("error", name, message, "use the store or the embodiment that the checkpoint was trained on")
            continue
        floor = 1e-3 * max(float(std.max()), 1e-6)  # of a dimension that hardly moves, nothing follows
        shift = np.abs(values.mean(0) - mean) / np.maximum(std, floor)
        ratio = np.maximum(values.std(0), floor) / np.maximum(std, floor)
        for k in np.flatnonzero((shift > 1) | (ratio > 3) | (ratio < 1 / 3)):
            message = (
                f"dimension {k}: mean {values[:, k].mean():.3g} and deviation {values[:, k].std():.3g} here, "
                f"{mean[k]:.3g} and {std[k]:.3g} in the checkpoint"
            )
            remedy = "check units and signs of this store against the one trained on, or train on this one"
            yield Problem("warning", name, message, remedy)
