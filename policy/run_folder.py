"""A training run's folder: what was asked, by which versions, and the numbers along the way."""

import json
import logging
from pathlib import Path
from typing import Any

from ..data.provenance import package_versions
from ..data.whole import whole, write_json
from ..envs.errors import UserError
from .device import describe_machine

log = logging.getLogger(__name__)

# Settings that change speed, rounding or what is written: they may differ when a run goes on.
FREE = tuple(
    f"train.{name}"
    for name in ("device", "threads", "kernels", "reader", "workers", "log_every", "save_every", "rollout_every")
)


class RunFolder:
    """Opens (or begins) the run at `path`. Raises `UserError` where another configuration began it.

    defaults: of settings that are younger than the run, and so not in its record · placement: what was chosen for
    settings that are 'auto' (`device.Placement`); the run goes on with it, see `recorded_placement`.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        command: str,
        defaults: dict[str, Any] | None = None,
        placement: dict[str, Any] | None = None,
    ):
        self.path = path
        self._board: Any = None
        path.mkdir(parents=True, exist_ok=True)
        about, chosen = path / "run.json", {} if placement is None else {"placement": placement}
        if about.is_file():
            record = json.loads(about.read_text(encoding="utf-8"))
            _same({**_flat(defaults or {}), **_flat(record["config"])}, config, path, record.get("placement", {}))
            if placement and "placement" not in record:  # begun before that was kept
                log.warning("%s does not say how it computed so far; it goes on in %s", path, placement["precision"])
                write_json(about, record | chosen)
        else:
            versions = package_versions()
            write_json(about, {"config": config, "versions": versions, "machine": describe_machine(), **chosen})
        if command:
            with (path / "commands.txt").open("a", encoding="utf-8") as f:
                f.write(command + "\n")

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl, and the numbers to TensorBoard's files where it is installed."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in record.items():
                self._board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flush what TensorBoard has not written yet."""
        if self._board is not None:
            self._board.close()

    def records(self) -> list[dict[str, Any]]:
        """What was logged so far, one record a line of metrics.jsonl."""
        return read_metrics(self.path / "metrics.jsonl")

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`: a run that was cut off goes on from its last checkpoint."""
        kept = [r for r in self.records() if r["step"] <= step]
        with whole(self.path / "metrics.jsonl") as draft:
            draft.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        self._board = _board(self.path / "tensorboard", step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics.jsonl; a last line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _board(folder: Path, step: int) -> Any:
    """A TensorBoard writer that hides what an earlier, cut-off run logged after `step`; None if not installed."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def recorded_placement(path: Path) -> dict[str, Any]:
    """Where and how the run at `path` computes; empty where there is none, or where that was not yet kept."""
    about = path / "run.json"
    return json.loads(about.read_text(encoding="utf-8")).get("placement", {}) if about.is_file() else {}


def _same(before: dict[str, Any], now: dict[str, Any], path: Path, placement: dict[str, Any]) -> None:
    """Raise `UserError` where settings differ. What was chosen for an 'auto' may also be asked for by its name."""
    if not any(key.startswith("origin.") for key in before):  # begun before runs noted what they are made from
        now = {key: value for key, value in now.items() if key != "origin"}
    a, b = before, _flat(now)
    a |= {f"train.{n}": v for n, v in placement.items() if a.get(f"train.{n}") == "auto" and b.get(f"train.{n}") == v}
    lines = [
        f"  {key}: {a.get(key)!r} there, {b.get(key)!r} asked for"
        for key in sorted(a.keys() | b.keys())
        if key not in FREE and a.get(key) != b.get(key)
    ]
    if lines:
        text = "\n".join(lines)
        raise UserError(f"{path} holds a run of another configuration; choose another out=, or match it:\n{text}")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(tree)).items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def draw_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Losses and looking over steps, as a PNG. One panel for each kind of number."""
    from matplotlib.figure import Figure

    panels = {
        "loss": [k for k in _keys(records) if k.startswith(("loss", "val/"))],
        "held-out loss by task": [k for k in _keys(records) if k.startswith("task/")],
        "looking": [k for k in _keys(records) if k.startswith("look/")],
        "experts": [k for k in _keys(records) if k.startswith("experts/")],
        "success": [k for k in _keys(records) if k.startswith("rollout/")],
    }
    shown = {title: keys for title, keys in panels.items() if keys}
    if not shown:
        return
    figure = Figure(figsize=(5.5 * len(shown), 3.6), layout="constrained")
    for axes, (title, keys) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        for key in keys:
            points = [(r["step"], r[key]) for r in records if key in r]
            axes.plot(*zip(*points, strict=True), label=key, lw=1.2)
        axes.set(title=title, xlabel="step")
        if title in ("loss", "held-out loss by task"):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=1 + len(keys) // 20)
    with whole(path) as draft:
        figure.savefig(draft, format="png", dpi=110)


def _keys(records: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for r in records for k, v in r.items() if isinstance(v, int | float)))
