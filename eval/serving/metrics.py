"""What `/metrics` of a server says: counts and latencies in Prometheus' text format."""

from collections.abc import Mapping, Sequence

import numpy as np

RECENT = 1000
"""Answers from which the latencies are."""
COUNTED = (
    "messages",
    "answers",
    "rows",
    "overtaken",
    "bad_messages",
    "too_large",
    "too_fast",
    "refused",
    "errors",
    "reloads",
    "failed_reloads",
)


def text(counts: Mapping[str, int], latencies: Sequence[float], clients: int) -> str:
    """The page. counts: by name, of `COUNTED` · latencies: of the last answers [ms] · clients: there are now."""
    lines = [f"foreact_{name}_total {counts.get(name, 0)}" for name in COUNTED]
    lines.append(f"foreact_clients {clients}")
    for q in (50, 95, 99):
        value = float(np.percentile(latencies, q)) / 1e3 if latencies else float("nan")
        lines.append(f'foreact_latency_seconds{{quantile="0.{q}"}} {value:g}')
    return "\n".join(lines) + "\n"
