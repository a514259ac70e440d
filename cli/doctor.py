"""`foreact doctor`: what this computer can do, what is missing, and how to mend it."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.markup import escape

from ..common import machine
from ..envs.render import mend_drawing
from .compose import home
from .terminal import console, say

GIGABYTE = 1e9
LEAST_FREE, ENOUGH_FREE = 0.5 * GIGABYTE, 3 * GIGABYTE
"""Bytes: below the first commands fail; the quickstart takes 1.5 GB, demonstrations and their decoded frames."""

EXTRAS = {
    "mujoco": "sim", "metaworld": "sim", "gym-pusht": "robots", "gym-aloha": "robots", "gymnasium-robotics": "robots",
    "ogbench": "robots", "tokenizers": "text", "tensorstore": "fast", "onnxruntime": "deploy", "tensorboard": "logs",
    "websockets": "serve",
}  # fmt: skip
"""Packages that only some commands need, and the extra of foreact that brings each."""

STYLES = {"ok": "green", "note": "cyan", "warning": "bold yellow", "error": "bold red"}


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. level: a key of `STYLES`; 'error' keeps commands from working, 'warning' makes them
    slow or different. mend: what to do about it, one command where there is one."""

    level: str
    name: str
    found: str
    mend: str = ""


def doctor() -> int:
    """Print what this computer can do and how to mend what is wrong. Returns the exit status: 1 where an error is."""
    lines = []
    for check in CHECKS:
        for line in check():
            lines.append(line)
            _print(line)
    worst = [line for line in lines if line.level in ("warning", "error")]
    say(f"{len(worst)} to mend: {', '.join(line.name for line in worst)}" if worst else "nothing to mend")
    return int(any(line.level == "error" for line in lines))


def _print(line: Line) -> None:
    style = STYLES[line.level]
    console.print(f"[{style}]{line.level:8}[/] {line.name:10} {escape(line.found)}", highlight=False, soft_wrap=True)
    if line.mend:
        console.print(f"{'':19} mend: {escape(line.mend)}", highlight=False, soft_wrap=True, style="dim")


def check_python() -> Iterator[Line]:
    """Python and PyTorch, by their versions."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info < (3, 13):
        yield Line(
            "warning", "python", f"{version}; foreact is tested on 3.11 and 3.12", "make install PYTHON=python3.11"
        )
    else:
        yield Line("ok", "python", version)


def check_threads() -> Iterator[Line]:
    """How many of the processors this process may use, and who limits that."""
    usable, there = machine.usable_threads(), os.cpu_count() or 1
    found = f"{machine.processor_name()}, {usable} of {there} processors may be used"
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if usable < there:
        quota = machine.cpu_quota()
        by = "a CPU quota (docker's --cpus)" if quota <= usable else "CPU affinity (taskset, docker's --cpuset-cpus)"
        yield Line("warning", "processor", f"{found}: limited by {by}", "start foreact where the limit is higher")
    else:
        yield Line("ok", "processor", found)
    if asked.isdigit() and int(asked) != usable:
        mend = "unset OMP_NUM_THREADS, unless several runs share this machine"
        yield Line("note", "threads", f"OMP_NUM_THREADS={asked} sets PyTorch's threads", mend)


def check_products() -> Iterator[Line]:
    """How fast matrix products are, and which precision training takes for it."""
    from ..policy.device import on_threads

    with on_threads(machine.usable_threads()):
        rates = machine.measure_products()
    fastest = max(rates.float32, rates.float32_onednn)
    found = f"float32 {fastest:.0f} GFLOP/s, bfloat16 {rates.bfloat16:.0f}: "
    found += f"precision=auto on the processor is {rates.precision}"
    found += f" ({rates.kernels} kernels)" if rates.precision == "fp32" else ""
    limits = [name for name in machine.ENVIRONMENT if os.environ.get(name)]
    if limits:
        limited = ", ".join(f"{name}={os.environ[name]}" for name in limits)
        yield Line("warning", "products", f"{found}; {limited} limits the instructions", f"unset {' '.join(limits)}")
    elif rates.precision == "fp32":
        mend = "nothing: bfloat16 gains little or nothing on this processor; leave precision=auto"
        yield Line("note", "products", found, mend)
    else:
        yield Line("ok", "products", found)


def check_gpu() -> Iterator[Line]:
    """GPUs that PyTorch sees, and those that it does not."""
    import torch

    if names := machine.gpu_names():
        yield Line("ok", "gpu", f"{', '.join(names)}; device=auto takes the first")
    elif shutil.which("nvidia-smi"):
        mend = (
            "install the CUDA build of torch (README, Installation)"
            if torch.version.cuda is None
            else "update the driver"
        )
        yield Line("warning", "gpu", f"an NVIDIA driver is here, but torch {torch.__version__} sees no GPU", mend)
    else:
        yield Line("ok", "gpu", "none; device=auto takes the processor")


def check_drawing() -> Iterator[Line]:
    """Can MuJoCo draw without a screen?"""
    drawing = machine.drawing()
    if drawing.error:
        found = f"MUJOCO_GL={drawing.library} cannot draw: {drawing.error}"
        yield Line("error", "drawing", found, mend_drawing(drawing.library, drawing.error))
    else:
        yield Line("ok", "drawing", f"MUJOCO_GL={drawing.library}, by {drawing.renderer}")


def check_disk() -> Iterator[Line]:
    """Room where runs are written, and for temporary files."""
    mend = "free some space, or set FOREACT_HOME to a folder on another disk"
    yield _room("disk", home().absolute(), mend)
    elsewhere = "free some space, or set TMPDIR to a folder on another disk"
    try:
        yield _room("temporary", Path(tempfile.gettempdir()), elsewhere)
    except FileNotFoundError as error:  # none can be written
        yield Line("error", "temporary", str(error), elsewhere)


def _room(name: str, folder: Path, mend: str) -> Line:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))
    except OSError as error:
        return Line("error", name, f"{folder} cannot be written: {error.strerror}", mend)
    free = shutil.disk_usage(there).free
    found = f"{free / GIGABYTE:.1f} GB free for {folder}"
    level = "error" if free < LEAST_FREE else "warning" if free < ENOUGH_FREE else "ok"
    return Line(level, name, found, "" if level == "ok" else mend)


def check_packages() -> Iterator[Line]:
    """Packages that are missing, or of other versions than those foreact is tested with."""
    missing = {name: extra for name, extra in EXTRAS.items() if _version(name) is None}
    for extra in dict.fromkeys(missing.values()):
        names = ", ".join(name for name, its in missing.items() if its == extra)
        yield Line("warning", "packages", f"{names} not installed", f'pip install "foreact[{extra}]", or make install')
    pins = _pins(Path(__file__).parents[1] / "constraints.txt")
    other = [
        f"{name} {_version(name)} (tested: {pin})" for name, pin in pins.items() if _version(name) not in (None, pin)
    ]
    if other:
        yield Line("warning", "versions", ", ".join(other), "make install, or pip install -c constraints.txt -e .")
    elif pins:
        yield Line("ok", "versions", "as in constraints.txt")


def _version(package: str) -> str | None:
    """Of an installed package, without a build's mark such as +cpu; None where it is not installed."""
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _pins(path: Path) -> dict[str, str]:
    """Versions by package of a constraints file; none where the package came without one."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))


CHECKS: tuple[Callable[[], Iterator[Line]], ...] = (
    check_python,
    check_threads,
    check_products,
    check_gpu,
    check_drawing,
    check_disk,
    check_packages,
)
"""In the order in which they are printed."""
