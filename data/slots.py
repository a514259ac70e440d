"""`foreact data slots`: which of the shared slots a store fills, from what, and with which values."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..envs.slot_maps import Part, slot_map
from ..envs.slot_tables import with_slots
from ..envs.slots import SLOTS
from .store import Store

_SHOWN = ("slot", "name", "unit", "field", "from", "1 %", "mean", "99 %")


def describe(store: Store, table: str | None = None) -> list[dict[str, Any]]:
    """A row for each number of the state and the action of an open store that lies in a slot.

    table: see `slot_tables.with_slots`. Values are those in the slot, in its unit: 1st percentile, mean, 99th.
    """
    embodiment, rows = with_slots(store.embodiment, table), []
    for which in ("state", "action"):
        lies = slot_map(embodiment, which)
        values = lies.fill(store.read(which).astype(np.float64))
        for part in lies.parts:
            rows += [_row(which, part, i, values[:, i]) for i in part.slots]
    return rows


def _row(which: str, part: Part, i: int, values: np.ndarray) -> dict[str, Any]:
    low, high = np.percentile(values, [1, 99]) if len(values) else (np.nan, np.nan)
    slot, place = SLOTS[i], part.place
    how = place.convert if place.convert != "linear" else f"{place.scale:g} {place.unit or part.field.unit}"
    return {
        "vector": which, "slot": i, "name": slot.name, "unit": slot.unit, "kind": slot.kind,
        "field": part.field.name, "from": how,
        "1 %": float(low), "mean": float(values.mean()) if len(values) else np.nan, "99 %": float(high),
    }  # fmt: skip


def slots(path: Path | str, table: str | None = None, console: Console | None = None) -> list[dict[str, Any]]:
    """Print what `describe` tells of the store at `path` and return it."""
    console = console or Console()
    with Store.open(path) as store:
        rows = describe(store, table)
        name, hz = store.embodiment.name, store.embodiment.control_hz
    for which in ("state", "action"):
        of_it = [row for row in rows if row["vector"] == which]
        shown = Table(title=f"{which} of {name}: {len(of_it)} of {len(SLOTS)} slots, at {hz:g} Hz", box=None,
                      title_justify="left", title_style="bold", header_style="dim", pad_edge=False)  # fmt: skip
        for key in _SHOWN:  # names are folded where there is no room for them, and numbers whole
            words = key in ("name", "field", "from")
            shown.add_column(key, justify="left" if words else "right", no_wrap=not words, overflow="fold")
        for row in of_it:
            shown.add_row(*(f"{row[k]:.3g}" if isinstance(row[k], float) else str(row[k]) for k in _SHOWN))
        console.print(shown)
    return rows
