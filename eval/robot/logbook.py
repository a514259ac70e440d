"""What a run on a robot leaves on disk: a store to train on again, a trace of every control step, and one summary."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.schema import Episode
from ...data.store import Store
from ...data.whole import write_json
from ...envs.errors import UserError
from ...envs.spec import Embodiment
from ..reports.metrics import wilson
from .runs import Run


def episode_of(run: Run, embodiment: Embodiment, *, source: str, seed: int) -> Episode:
    """A run as an episode: what the policy asked for is its `action`, what was sent its `action_executed`.

    Where the policy had nothing to say, what was sent stands for both. Raises `UserError` for a run without pictures.
    """
    rows = [(tick, tick.observation) for tick in run.ticks]
    seen = [observation for _, observation in rows if observation is not None]
    if not rows or len(seen) < len(rows):
        kept = f"{len(seen)} of {len(rows)} observations"
        raise UserError(f"the run of episode {run.episode} kept {kept}; a store needs all: record=true")
    low, high = embodiment.action_low, embodiment.action_high
    sent = np.stack([tick.sent for tick in run.ticks])
    asked = np.stack([_told(tick.asked, tick.sent) for tick in run.ticks])
    return Episode(
        images={c.name: np.stack([o["images"][c.name] for o in seen]) for c in embodiment.cameras},
        depth={c.name: np.stack([o["depth"][c.name] for o in seen]) for c in embodiment.cameras if c.depth},
        state=np.stack([tick.state for tick in run.ticks]).astype(np.float32),
        action=np.clip(asked, low, high).astype(np.float32),
        action_executed=sent.astype(np.float32),
        task=run.task,
        instruction=run.instruction,
        seed=seed,
        source=source,
        success=run.outcome == "success",
    )


def _told(asked: np.ndarray | None, sent: np.ndarray) -> np.ndarray:
    return asked if asked is not None and asked.shape == sent.shape and np.isfinite(asked).all() else sent


def summary(run: Run) -> dict[str, Any]:
    """One line about a run, as JSON."""
    asked = np.array(run.latencies or [np.nan]) * 1e3
    return {
        "episode": run.episode,
        "task": run.task,
        "outcome": run.outcome,
        "success": run.outcome == "success",
        "steps": len(run.ticks),
        "skipped": run.skipped,
        "late": len(run.late),
        "without_action": sum(tick.asked is None for tick in run.ticks),
        "chunks": len(run.joints),
        "latency_ms": {f"p{q}": round(float(np.percentile(asked, q)), 3) if run.latencies else None for q in (50, 95)},
        "interventions": dict(Counter(entry.rule for entry in run.interventions)),
    }


def success_of(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Success over episodes, with Wilson's interval."""
    wins, n = sum(line["success"] for line in lines), len(lines)
    return {"n": n, "success": wins / n if n else None, "ci95": list(wilson(wins, n))}


class Logbook:
    """The folder of a run: `data` (a store), `traces/EPISODE.npz`, `interventions.jsonl` and `control.json`.

    about: what is the same for all episodes (policy, robot, settings). A folder that has a run already is an error.
    """

    def __init__(self, folder: Path | str, embodiment: Embodiment, about: dict[str, Any], *, record: bool = True):
        self.folder, self.embodiment, self.about = Path(folder), embodiment, about
        if (self.folder / "control.json").exists() or (self.folder / "data").exists():
            raise UserError(f"{folder} holds a run already; choose another out=")
        (self.folder / "traces").mkdir(parents=True, exist_ok=True)
        self.lines: list[dict[str, Any]] = []
        self._store = Store.create(self.folder / "data", embodiment, privileged=False) if record else None

    def add(self, run: Run, *, source: str, seed: int, violations: dict[str, int] | None = None) -> dict[str, Any]:
        """Write an episode; returns its line. A run that ended before its first step leaves no episode in the store."""
        line = summary(run) | ({} if violations is None else {"violations": violations})
        self.lines.append(line)
        write_trace(self.folder / "traces" / f"{run.episode:03d}.npz", run, self.embodiment.action_dim)
        with (self.folder / "interventions.jsonl").open("a", encoding="utf-8") as log:
            for entry in run.interventions:
                log.write(json.dumps({"episode": run.episode, **entry.to_dict()}) + "\n")
        if self._store is not None and run.ticks:
            self._store.append(episode_of(run, self.embodiment, source=source, seed=seed))
        write_json(self.folder / "control.json", {**self.about, **success_of(self.lines), "episodes": self.lines})
        return line

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()


def write_trace(path: Path, run: Run, size: int) -> None:
    """Every control step as arrays: step, time, late, acted [s], state (N, S), asked and sent (N, A), and the joints.

    Where the policy had nothing to say, asked is NaN.
    """
    nothing = np.full(size, np.nan)
    right = [t.asked if t.asked is not None and t.asked.shape == (size,) else nothing for t in run.ticks]
    np.savez_compressed(
        path,
        step=np.array([t.step for t in run.ticks], np.int64),
        time=np.array([t.time for t in run.ticks]),
        late=np.array([t.late for t in run.ticks]),
        acted=np.array([t.acted for t in run.ticks]),
        state=np.array([t.state for t in run.ticks], np.float32),
        asked=np.array(right, np.float32).reshape(len(run.ticks), size),
        sent=np.array([t.sent for t in run.ticks], np.float32).reshape(len(run.ticks), size),
        joints=np.array(run.joints, np.int64),
        latencies=np.array(run.latencies),
    )
