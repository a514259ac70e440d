"""Policies at work, in the order in which they are read, and in which each may import from those before it:

reports/ (what came out), the files here (policies, actors, rollouts in simulators), serving/, robot/ and bench/.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reports.report import write_report
    from .rollout import evaluate

__all__ = ["evaluate", "write_report"]

_HOME = {"evaluate": ".rollout", "write_report": ".reports.report"}


def __getattr__(name: str) -> Any:
    # Imported when asked for: a worker process needs none of it and starts three times as fast.
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
