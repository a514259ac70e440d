"""Where a number came from: the command, and the packages that decide it."""

import shlex
import sys
from importlib import metadata
from pathlib import Path

from ..envs import SUITES

_SIMULATORS = {package for suite in SUITES.values() for package in suite.packages}
PACKAGES = ("foreact", "numpy", "torch", "gymnasium", "zarr", *sorted(_SIMULATORS))


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Installed versions by package; those that are not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The command of this process, with the program by its short name."""
    program = Path(sys.argv[0])
    name = "foreact" if program.name in ("foreact", "__main__.py") else program.name or "python"
    return shlex.join([name, *sys.argv[1:]])
