"""`foreact export`: a checkpoint's network for other runtimes, with their error and their speed beside PyTorch's."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..data.batch import Batch, fake_batch
from ..data.dataset import Dataset
from ..data.slower import at_rate_of
from ..data.store import Store
from ..data.whole import write_json
from ..envs.errors import UserError, choose
from ..policy import Policy, load_policy
from ..policy.checkpoint import find_checkpoint
from ..policy.exported import export as write
from ..policy.inputs import observe, unbatched
from ..policy.runtimes import EXPORTED, FOLDER, device_of


def export(
    checkpoint: Path | str,
    *,
    runtimes: Sequence[str] = ("onnx", "onnx-int8"),
    data: Path | str | None = None,
    rows: int = 32,
    bounds: Mapping[str, float] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write a checkpoint for other runtimes, into its folder, and measure them; returns {runtime: numbers}.

    data: a store whose observations the error is measured on, None for random ones · bounds: largest error of each
    runtime, root mean square over actions as a share of their range · device: where `aot` is to run. Raises `UserError`
    above a bound, and leaves no files of that runtime.
    """
    for runtime in runtimes:
        device = device_of(choose(runtime, EXPORTED, "exported runtime"), device)
    folder = find_checkpoint(checkpoint)
    policy = load_policy(folder, device)
    _one_robot(policy)
    batch = _observations(policy, data, rows)
    seen, words = unbatched(batch), [policy.sentences.known[0]] * len(batch)
    foresee = policy.config.layout == "stacked"
    example = observe(policy.transforms, policy.sentences, policy.device, seen[:2], words[:2], foresee=foresee)
    files = write(policy.model, example, folder / FOLDER, runtimes)
    wanted = _act(policy, seen, words)
    found: dict[str, Any] = {"torch": {"ms": _milliseconds(policy, seen, words)}}
    for runtime, mine in files.items():
        fast = load_policy(folder, device, runtime)
        error = _error(policy, _act(fast, seen, words), wanted)
        bound = (bounds or {}).get(runtime, float("inf"))
        if not error["rms"] <= bound:
            for file in mine:
                file.unlink()
            raise UserError(
                f"runtime {runtime}: actions differ from PyTorch's by {error['rms']:.2g} of their range, more than the "
                f"bound {bound:g}. Its files are removed; bounds.{runtime}= sets another bound"
            )
        size = sum(file.stat().st_size for file in mine)
        found[runtime] = {**error, "ms": _milliseconds(fast, seen, words), "bytes": size}
    file = folder / FOLDER / "export.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    write_json(file, before | found)
    return found


def _one_robot(policy: Policy) -> None:
    if policy.transforms.shapes != policy.model.segments or len(policy.robots) > 1:
        raise UserError(
            f"an export is of one robot whose chunks are {policy.config.horizon} actions long, and the policy is of "
            f"{', '.join(policy.robots)}: runtime torch or compiled"
        )


def _observations(policy: Policy, data: Path | str | None, rows: int) -> Batch:
    config = policy.config
    if data is None:
        sizes = {"n_obs_steps": config.n_obs_steps, "horizon": config.horizon, "n_future": len(config.future)}
        return fake_batch(policy.embodiment, size=rows, **sizes)
    with Store.open(data) as store:
        samples = Dataset(at_rate_of(store, policy.embodiment), policy.transforms.windows)
        return samples.batch(np.linspace(0, len(samples) - 1, rows).astype(int))


def _act(policy: Policy, seen: list[dict[str, Any]], words: list[str]) -> np.ndarray:
    return policy.act(seen, words, [(0, i) for i in range(len(seen))])


def _error(policy: Policy, found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Differences as shares of the range of each action, or of each pose's field."""
    embodiment = policy.embodiment
    span = np.ptp(wanted, axis=(0, 1)) if policy.poses else embodiment.action_high - embodiment.action_low
    share = (found - wanted) / np.maximum(span, 1e-6)
    return {"rms": float(np.sqrt(np.mean(share**2))), "max": float(np.abs(share).max())}


def _milliseconds(policy: Policy, seen: list[dict[str, Any]], words: list[str], rounds: int = 15) -> float:
    """Median wall time of a chunk for one observation."""
    times = []
    for i in range(rounds + 2):
        began = time.perf_counter()
        policy.act(seen[:1], words[:1], [(0, i)])
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times[2:]))


def show(found: Mapping[str, Any], console: Console) -> None:
    """A table of the runtimes."""
    table = Table("runtime", "ms a chunk", "times as fast", "error, rms", "largest", "MB")
    for runtime, row in found.items():
        cells = [f"{row['ms']:.1f}", f"{found['torch']['ms'] / row['ms']:.1f}"]
        cells += [f"{row[k]:.1e}" if k in row else "" for k in ("rms", "max")]
        table.add_row(runtime, *cells, f"{row['bytes'] / 1e6:.0f}" if "bytes" in row else "")
    console.print(table)
    console.print("Errors are differences to PyTorch's actions, as shares of the range of an action.")
