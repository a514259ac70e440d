"""The progress bar of a training."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column


def _whole(column: Callable[..., ProgressColumn]) -> ProgressColumn:
    """A column that is never cut, however narrow the terminal."""
    return column(table_column=Column(no_wrap=True, min_width=7))


@contextlib.contextmanager
def training_bar(done: int, total: int, *, enabled: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar; yields what is called with each step's numbers."""
    numbers = TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = (TextColumn("train"), BarColumn(20), _whole(MofNCompleteColumn), numbers)
    times = (_whole(TimeElapsedColumn), TextColumn("left"), _whole(TimeRemainingColumn))
    with Progress(*columns, *times, disable=not enabled, expand=True) as bar:
        task = bar.add_task("train", total=total, completed=done, text="")
        shown: dict[str, float] = {}

        def tick(record: dict[str, Any]) -> None:
            shown.update(
                {
                    k: record[k]
                    for k in ("loss", "val/action", "val/teacher", "val/psnr", "look/first_corr")
                    if k in record
                }
            )
            bar.update(task, advance=1, text=" ".join(f"{k} {v:.3g}" for k, v in shown.items()))

        yield tick
