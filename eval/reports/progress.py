"""The bar of an evaluation under way."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def progress_bar(records: list[dict[str, Any]], left: int, *, enabled: bool) -> Iterator[Callable[[], None]]:
    """A bar over episodes with the success rate so far; yields what is called after each episode."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not enabled) as bar:
        bar_id = bar.add_task("rollouts", total=len(records) + left, completed=len(records), rate="")

        def tick() -> None:
            successes = sum(bool(record["success"]) for record in records)
            bar.update(bar_id, completed=len(records), rate=f"{successes}/{len(records)} succeeded")

        if records:
            tick()
        yield tick
