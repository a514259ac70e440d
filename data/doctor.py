"""What is wrong with a store: every check over every episode, and how to mend what it finds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..envs.errors import UserError
from . import checks_images, checks_meta, checks_motion, checks_numbers, checks_slots
from .evidence import Evidence, Problem, Severity, gather
from .store import Store

# A new check is a function of the evidence and one line here.
CHECKS: dict[str, Callable[[Evidence], Iterator[Problem]]] = {
    "unreadable": lambda e: iter(e.unreadable),
    "too_short": checks_meta.too_short,
    "duplicate_episode": checks_meta.duplicate_episodes,
    "instruction": checks_meta.instructions,
    "failed_episodes": checks_meta.failures,
    "checkpoint_statistics": checks_meta.checkpoint_statistics,
    "not_finite": checks_numbers.not_finite,
    "out_of_bounds": checks_numbers.out_of_bounds,
    "clipped_action": checks_numbers.clipped_inside,
    "constant_action": checks_numbers.constant_actions,
    "time_gap": checks_numbers.time_gaps,
    "saturated_gripper": checks_motion.saturated_grippers,
    "state_action": checks_motion.disagreement,
    "slots": checks_slots.mapping,
    "frozen_camera": checks_images.frozen_cameras,
    "blank_frames": checks_images.blank_frames,
    "flipped_images": checks_images.odd_ones_out,
    "simulator": checks_images.against_simulator,
}
_SHOWN = 5  # findings of one check that are told apart; the rest are counted


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong. 'error' spoils training or acting, 'warning' may, 'note' is good to know."""

    severity: Severity
    check: str
    where: str
    message: str
    remedy: str


def diagnose(
    path: Path | str, checkpoint: Path | str | None = None, *, slots: str | None = None, simulate: bool = True
) -> list[Finding]:
    """Examine the store at `path`; an empty list means that nothing was found.

    checkpoint: a folder whose normaliser statistics are compared to the store's. slots: the table that says where the
    robot's numbers lie in the slots, by default its own. simulate: draw some first frames
    again and compare, where the simulator is installed. `UserError` where there is no store or no checkpoint.
    """
    statistics = checks_meta.load_statistics(checkpoint) if checkpoint is not None else {}
    if not Path(path).exists():
        raise UserError(f"no store at {path}: the path does not exist")
    try:
        store = Store.open(path)
    except UserError as error:
        return [Finding(severity="error", check="unreadable", where=str(path), message=str(error), remedy="see there")]
    with store:
        lengths = list(_findings("wrong_length", checks_meta.wrong_lengths(store)))
        if any(finding.where.startswith(("episode", "meta/episode_ends")) for finding in lengths):
            return lengths  # which rows are which episode's is unknown
        evidence = gather(store)
    evidence.checkpoint, evidence.slots = statistics, slots
    checks = {name: check for name, check in CHECKS.items() if simulate or name != "simulator"}
    return lengths + [finding for name, check in checks.items() for finding in _findings(name, check(evidence))]


def report(path: Path | str, findings: list[Finding], console: Console | None = None) -> None:
    """Print findings, the worst first."""
    console = console or Console()
    styles = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
    for finding in sorted(findings, key=lambda f: list(styles).index(f.severity)):
        style = styles[finding.severity]
        console.print(f"[{style}]{finding.severity}[/] {finding.check}: {escape(finding.where)}", highlight=False)
        console.print(f"  {escape(finding.message)}\n  [dim]mend: {escape(finding.remedy)}[/]", highlight=False)
    counts = ", ".join(f"{sum(f.severity == s for f in findings)} {s}s" for s in styles)
    console.print(
        f"{escape(str(path))}: {counts}" if findings else f"{escape(str(path))}: nothing found", highlight=False
    )


def _findings(check: str, problems: Iterable[Problem]) -> Iterator[Finding]:
    problems = list(problems)
    for problem in problems[:_SHOWN]:
        yield Finding(check=check, **problem._asdict())
    if rest := problems[_SHOWN:]:
        message = f"{len(rest)} more like these, up to {rest[-1].where}"
        yield Finding(check=check, **rest[0]._replace(where="and", message=message)._asdict())
