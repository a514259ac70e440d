"""How a plain mapping (YAML, JSON) becomes checked dataclasses, and what their settings are where nobody sets them."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ..envs.errors import UserError, choose

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Make the dataclass `cls` from a mapping, nested ones included; lists become tuples where the field is one.

    Where a field that is a dataclass itself has a default, a mapping changes that default and keeps the rest of it.
    Raises `UserError` on an unknown or missing key or a wrong type, naming the key's path.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    where = where or cls.__name__
    for key in values:
        choose(str(key), fields, f"setting of {where}:")
    missing = [
        n
        for n, f in fields.items()
        if n not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    return cls(
        **{key: _convert(hints[key], _over(fields[key], value), f"{where}.{key}") for key, value in values.items()}
    )


def defaults_of(config: Any) -> dict[str, Any]:
    """The settings of a dataclass as they are where nobody sets them, nested ones included; none of those without, and
    no mappings, whose keys are not settings.
    """
    found: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if dataclasses.is_dataclass(value):
            value = {k: v for k, v in dataclasses.asdict(value).items() if not isinstance(v, dict)}  # type: ignore[arg-type]
            found[f.name] = value
        elif value is not dataclasses.MISSING and not isinstance(value, dict):
            found[f.name] = value
        elif dataclasses.is_dataclass(getattr(config, f.name)):
            found[f.name] = defaults_of(getattr(config, f.name))
    return found


def _over(field: dataclasses.Field, value: Any) -> Any:
    """A mapping's keys over those of the field's default."""
    default = None if field.default_factory is dataclasses.MISSING else field.default_factory()
    if dataclasses.is_dataclass(default) and not isinstance(default, type) and isinstance(value, Mapping):
        return {**{f.name: getattr(default, f.name) for f in dataclasses.fields(default)}, **value}
    return value


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(typing.cast(type, hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], v, where) for v in value)
    if origin is dict and isinstance(value, Mapping):
        return {k: _convert(arguments[1], v, where) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = object if hint is Any else origin or hint
    wrong_bool = isinstance(value, bool) and plain not in (bool, object)
    if isinstance(plain, type) and (not isinstance(value, plain) or wrong_bool):
        raise UserError(f"{where} must be {getattr(plain, '__name__', plain)}, got {value!r}")
    return value
