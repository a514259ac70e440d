"""What is in a store, as a dictionary and as text in a terminal."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..envs.spec import Field
from . import layout
from .store import Store

_CAMERA_KEYS = ("name", "height", "width", "mount", "pos", "flip", "look", "depth")


def describe(store: Store) -> dict[str, Any]:
    """Facts about an open store: counts, tasks, arrays and bytes on disk, cameras, origin."""
    meta, lengths = store.meta, np.diff(store.episode_ends, prepend=0)
    attributes = layout.read_root(store.path)["attributes"]
    return {
        "path": str(store.path),
        "format_version": attributes["format_version"],
        "embodiment": store.embodiment.name,
        "control_hz": store.embodiment.control_hz,
        "episodes": len(store),
        "steps": store.n_steps,
        "hours": store.n_steps / store.embodiment.control_hz / 3600,
        "success": float(meta.success.mean()) if len(store) else None,
        "bytes": sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file()),
        "sources": dict(Counter(meta.source)),
        "tasks": [_task(store, task, lengths) for task in store.tasks],
        "cameras": [{k: c[k] for k in _CAMERA_KEYS} for c in store.embodiment.to_dict()["cameras"]],
        "arrays": [_array(store, name) for name in store.names],
        "conventions": attributes.get("conventions", {}),
        "collected": attributes.get("collect", {}),
        "derived": [_derived(folder) for folder in sorted((store.path / "derived").glob("*"))],
    }


def info(path: Path | str, console: Console | None = None) -> dict[str, Any]:
    """Print what is in the store at `path` and return it; see `describe`."""
    with Store.open(path) as store:
        facts = describe(store)
    console = console or Console()
    console.print(f"[bold]{facts['path']}[/]  format {facts['format_version']}, {facts['embodiment']}")
    console.print(
        f"{facts['episodes']} episodes, {facts['steps']} steps, "
        f"{facts['hours']:.2f} h at {facts['control_hz']:g} Hz, "
        f"{megabytes(facts['bytes'])}, success {percent(facts['success'])}, "
        f"from {', '.join(f'{source} ({n})' for source, n in facts['sources'].items()) or 'nobody yet'}"
    )
    for title, key in (
        ("tasks", "tasks"),
        ("cameras", "cameras"),
        ("arrays", "arrays"),
        ("made from it, and can be deleted when nothing runs", "derived"),
    ):
        _print_table(console, title, facts[key])
    settings = {name: value for name, value in facts["collected"].items() if name != "tasks"}
    if settings:
        said = ", ".join(f"{name}={value}" for name, value in settings.items())
        console.print(f"\n[dim]collected with[/] {escape(said)}", highlight=False)
    return facts


def labels(fields: tuple[Field, ...]) -> list[str]:
    """One name per number of a state or action vector: 'hand_position x', 'gripper_opening' …"""
    names = []
    for field in fields:
        parts = "xyz" if field.size == 3 else [str(i) for i in range(field.size)]
        names += [field.name] if field.size == 1 else [f"{field.name} {part}" for part in parts]
    return names


def statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """mean, std, min, 1 %, 99 % and max of each column of (N, D)."""
    low, high = np.percentile(values, [1, 99], axis=0)
    named = {"mean": values.mean(0), "std": values.std(0), "min": values.min(0), "1 %": low, "99 %": high}
    return named | {"max": values.max(0)}


def megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.0f} %"


def _task(store: Store, task: str, lengths: np.ndarray) -> dict[str, Any]:
    meta = store.meta
    of_task = np.array([t == task for t in meta.task])
    seeds = meta.seed[of_task]
    return {
        "task": task,
        "episodes": int(of_task.sum()),
        "mean length": round(float(lengths[of_task].mean()), 1),
        "success": percent(float(meta.success[of_task].mean())),
        "seeds": f"{seeds.min()}–{seeds.max()}",
        "instruction": store.instructions[task],
    }


def _array(store: Store, name: str) -> dict[str, Any]:
    rows = store.read(name, slice(0, 0))
    files = [file.stat().st_size for file in (store.path / "data" / name).rglob("*") if file.is_file()]
    shape = (store.n_steps, *rows.shape[1:])
    raw = int(np.prod(shape)) * rows.itemsize
    smaller = f"{raw / max(sum(files), 1):.1f}x"
    return {"array": name, "shape": " x ".join(map(str, shape)), "type": str(rows.dtype), "files": len(files),
            "on disk": megabytes(sum(files)), "compressed": smaller}  # fmt: skip


def _derived(folder: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"folder": f"derived/{folder.name}", "size": megabytes(size)}


def _print_table(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for key, value in rows[0].items():
        if key != "instruction":  # a sentence: beneath the task's name
            justify = "right" if isinstance(value, int | float) else "left"
            table.add_column(key, justify=justify, no_wrap=key != "task")
    for row in rows:
        first, *rest = (str(value) for key, value in row.items() if key != "instruction")
        sentence = f"\n  [dim]{escape(row['instruction'])}[/]" if "instruction" in row else ""
        table.add_row(escape(first) + sentence, *rest)
    console.print()
    console.print(table)
