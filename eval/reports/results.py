"""What `results.json` holds, where it ran, and the table at the end of a run."""

import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ...data.provenance import command_line, package_versions
from ...envs.spec import Task
from .metrics import percentiles, summarise


def assemble(
    records: Sequence[Mapping[str, Any]],
    tasks: Sequence[Task],
    *,
    policy: Mapping[str, Any],
    settings: Mapping[str, Any],
    seconds: float,
    command: str | None = None,
) -> dict[str, Any]:
    """The results of finished episodes.

    records: as the journal holds them; `looks` in them: (milliseconds, looks in the batch) of each inference.
    """
    looks = [tuple(look) for record in records for look in record.get("looks", ())]
    return {
        "policy": dict(policy),
        "settings": dict(settings),
        **summarise(records, {task.name: task.group for task in tasks}),
        "latency_ms": {
            **percentiles([ms for ms, _ in looks]),
            "per_look": percentiles([ms / rows for ms, rows in looks]),
            "looks": len(looks),
        },
        "versions": versions(),
        "command": command or command_line(),
        "seconds": round(seconds, 2),
    }


def versions() -> dict[str, str]:
    """Python, machine and the packages that decide numbers; those that are not installed are left out.

    threads: of torch, where it is in use: a sum split over other threads may differ in its last bit.
    """
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    if torch := sys.modules.get("torch"):
        found["threads"] = str(torch.get_num_threads())
    return found | package_versions()


def percent(rate: float, ci95: Sequence[float]) -> str:
    """'90 % [70, 97]'."""
    return f"{100 * rate:.0f} % [{100 * ci95[0]:.0f}, {100 * ci95[1]:.0f}]"


def show(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the success table: tasks, groups, the two means, latency."""
    table = Table(title=f"success of {results['policy']['policy']}", caption=_caption(results))
    for name in ("task", "n", "success [95 %]", "steps"):
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for name, row in results["per_task"].items():
        lengths = [e["length"] for e in row["episodes"]]
        steps = f"{sum(lengths) / len(lengths):.0f}"
        table.add_row(name, str(row["n"]), percent(row["success"], row["ci95"]), steps)
    if len(results["per_task"]) > 1:
        table.add_section()
        for name, row in results["groups"].items():
            table.add_row(f"{name} ({row['tasks']} tasks)", str(row["n"]), percent(row["success"], row["ci95"]), "")
        table.add_section()
        for mean in ("task_mean", "group_mean"):
            table.add_row(mean.replace("_", " "), "", percent(results[mean], results[f"{mean}_ci95"]), "")
    (console or Console()).print(table)


def alignment(policy: Mapping[str, Any]) -> str:
    """Whether simulator state was a target in training: every results table must say so."""
    weight = policy.get("alignment")
    return "unknown" if weight is None else f"yes, weight {weight:g}" if weight else "no"


def _caption(results: Mapping[str, Any]) -> str | None:
    latency, policy, lines = results["latency_ms"], results["policy"], []
    if latency["p50"] is not None:
        lines.append(f"inference {latency['p50']:.1f} ms (p50), {latency['p95']:.1f} ms (p95)")
    if "alignment" in policy:
        lines.append(f"trained with simulator state: {alignment(policy)}")
    return "\n".join(lines) or None
