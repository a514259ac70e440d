"""A bar on stderr for work on a store that may take minutes."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def told(work: Sequence[T], what: str) -> Iterable[T]:
    """The items of `work`, with a bar that goes when they are done; none where nobody looks."""
    console = Console(stderr=True)
    return track(work, what, console=console, transient=True, disable=not console.is_terminal)
