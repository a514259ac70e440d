"""Where the fields of known robots lie in the slots, one YAML file each, and how a table is given to an embodiment.

A table says for the fields of `state` and `action` by name where each lies: the name of a slot or of a group, a list of
them ([] leaves a field of the state out), or a mapping with the fields of `spec.Place`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, choose
from ..spec import Embodiment, Field, Place

TABLES = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}
"""Tables that come with the package, by the embodiment's name."""


def with_slots(embodiment: Embodiment, table: str | Mapping[str, Any] | None = None) -> Embodiment:
    """The embodiment with the places of a table.

    table: one of `TABLES`, a YAML file, or what is in one. None: places that the embodiment has, else its own of
    `TABLES`. Raises `UserError` where there is none, or it tells other fields.
    """
    if table is None:
        if any(field.place for field in (*embodiment.state, *embodiment.action)):
            return embodiment
        if embodiment.own_name not in TABLES:
            raise UserError(
                f"nobody has said where the fields of {embodiment.name!r} lie in the slots; give its data source "
                f"slots=FILE.yaml (docs/embodiments.md). Known: {', '.join(TABLES)}"
            )
        table = embodiment.own_name
    told = table if isinstance(table, Mapping) else read_table(table)
    who = f"slot table of {embodiment.name!r}"
    for key in told:
        choose(str(key), ("state", "action"), f"part of the {who}:")
    return replace(
        embodiment,
        **{which: _placed(getattr(embodiment, which), told.get(which) or {}, f"{who}, {which}") for which in told},
    )


def read_table(name: str) -> dict[str, Any]:
    """A table by its name or its file."""
    file = TABLES.get(name, Path(name))
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no slot table {name!r}: neither a file nor one of {', '.join(TABLES)} ({error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"slot table {file} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"slot table {file} must be a mapping with state: and action:, got {found!r}")
    return found


def _placed(fields: tuple[Field, ...], told: Mapping[str, Any], who: str) -> tuple[Field, ...]:
    names = [field.name for field in fields]
    for name in told:
        choose(str(name), names, f"field of the {who}:")
    missing = [name for name in names if name not in told]
    if missing:
        raise UserError(f"the {who} lacks {', '.join(missing)}; [] leaves a field of the state out")
    return tuple(replace(field, place=_place(told[field.name], f"{who}, {field.name}")) for field in fields)


def _place(told: Any, who: str) -> Place:
    entry = dict(told) if isinstance(told, Mapping) else {"slots": told}
    for key in entry:
        choose(str(key), Place.__dataclass_fields__, f"setting of the {who}:")
    slots = entry.get("slots")
    if not (isinstance(slots, str) or (isinstance(slots, list) and all(isinstance(s, str) for s in slots))):
        raise UserError(f"the {who} needs slots: a name or a list of names, got {slots!r}")
    for key in ("scale", "closed", "open"):
        if key in entry:
            if isinstance(entry[key], bool) or not isinstance(entry[key], int | float):
                raise UserError(f"the {who}: {key} must be a number, got {entry[key]!r}")
            entry[key] = float(entry[key])
    return Place(**{**entry, "slots": (slots,) if isinstance(slots, str) else tuple(slots)})
