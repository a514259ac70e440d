"""How a command is told what to do: settings composed of YAML and overrides, and what their values stand for."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import envs
from ..envs.errors import UserError


def home() -> Path:
    """Where stores and runs live unless told otherwise: $FOREACT_HOME, or runs/."""
    return Path(os.environ.get("FOREACT_HOME", "runs"))


def config_of(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose configs/NAME.yaml with overrides such as 'steps=10'. Raises `UserError` for what does not fit."""
    try:
        with initialize_config_module("foreact.configs", version_base="1.3"):
            composed = compose(name, [_free(o) for o in overrides])
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise UserError(f"foreact {name} needs {', '.join(f'{m}=' for m in missing)}; see: foreact {name} --help")
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException) as error:
        reason = str(error.__cause__ or error).strip()
        raise UserError(f"foreact {name} {shlex.join(overrides)}: {reason}\nsee: foreact {name} --help") from error


def _free(override: str) -> str:
    """Let an override of a nested setting name one that the YAML leaves at its default ('++' in Hydra).

    Whether there is such a setting is checked where the section is read, with a message that lists the choices.
    """
    return f"++{override}" if override.split(".")[0] in ("model", "collect", "train", "eval", "lerobot") else override


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings by dotted name as overrides for `config_of`."""
    return [f"{key}={_as_override(value)}" for key, value in settings.items()]


def _as_override(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(_as_override(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}: {_as_override(v)}" for k, v in value.items()) + "}"
    return "null" if value is None else str(value)


def listed(value: Any) -> list[Any]:
    """The values of a setting that may be one or a list of them."""
    return list(value) if isinstance(value, list | tuple) else [value]


def task_names(tasks: str | Sequence[str]) -> list[str]:
    """Names of tasks from a setting, in which a suite's name stands for all of its tasks."""
    return [task for name in listed(tasks) for task in (envs.tasks(name) if name in envs.SUITES else [name])]


def refuse(config: Mapping[str, Any], names: Sequence[str], why: str) -> None:
    """`UserError` where a setting is given that would do nothing."""
    if given := [name for name in names if config[name]]:
        raise UserError(f"{', '.join(f'{name}={config[name]}' for name in given)} would be ignored: {why}")
