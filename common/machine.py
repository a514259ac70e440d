"""What this computer can do, measured once instead of guessed: threads, matrix products, GPU, offscreen drawing.

The lowest room of the package: the standard library alone; torch and MuJoCo are imported inside functions.
"""

import contextlib
import dataclasses
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ENVIRONMENT = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Environment variables that limit the instructions PyTorch may use."""

ROWS, WIDTH, HIDDEN = 1024, 256, 1024
"""The product that is timed: one half of a feed-forward layer of `joint/small`, for a part of a batch."""

GAIN = 1.3
"""How much faster than float32 bfloat16 has to be. Casts, and less precise sums, take back a smaller gain."""


@dataclass(frozen=True)
class Products:
    """Rates of matrix products [GFLOP/s] at the size of a training step; 0 for what PyTorch cannot do here.

    On CPUs float32 has two kernels: PyTorch's own choice (MKL on x86), and oneDNN, which PyTorch carries as well. MKL
    takes slow kernels on processors that are not Intel's.
    """

    float32: float
    bfloat16: float
    float32_onednn: float = 0.0

    @property
    def precision(self) -> str:
        """The precision that trains faster: 'bf16' or 'fp32'."""
        return "bf16" if self.bfloat16 >= GAIN * max(self.float32, self.float32_onednn) else "fp32"

    @property
    def kernels(self) -> str:
        """Who multiplies in float32 faster: 'onednn' or 'torch'."""
        return "onednn" if self.float32_onednn > self.float32 else "torch"


def usable_threads() -> int:
    """Threads that this process may keep busy: its CPU affinity, and what control groups allow (a container's limit).

    A quota that is not whole counts as the next whole number.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(min(cpu_quota(), allowed))))


def cpu_quota(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Processors' worth of time that the process's control groups (version 1 or 2) allow; infinity for no limit."""
    quota = math.inf
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return quota
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quota = min(quota, _least_quota(groups, path, _quota_v2))
        elif "cpu" in controllers.split(","):
            for folder in {controllers, "cpu"}:
                quota = min(quota, _least_quota(groups / folder, path, _quota_v1))
    return quota


def _least_quota(mount: Path, path: str, read: Callable[[Path], float]) -> float:
    """The least quota of a group and those around it, up to the mount (which in a container is the group itself)."""
    parts = Path(path.lstrip("/")).parts
    return min(read(mount.joinpath(*parts[:n])) for n in range(len(parts) + 1))


def _quota_v2(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _quota_v1(folder: Path) -> float:
    try:
        quota, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def processor_name() -> str:
    """The processor's name as its maker writes it, such as 'AMD EPYC'."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """Names of the CUDA devices that PyTorch sees."""
    import torch

    if not torch.cuda.is_available():  # devices may be counted all the same where the driver is too old
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def products(device: str = "cpu") -> Products:
    """How fast matrix products are on a device ('cpu', 'cuda', 'cuda:1') with the threads that PyTorch has now.

    Takes 50 to 100 ms, once per boot: the result is kept in the user's cache folder under all that it depends on.
    """
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor_name()
    limits = [os.environ.get(variable, "") for variable in ENVIRONMENT]
    return _products(device, json.dumps([_boot(), name, torch.__version__, torch.get_num_threads(), *limits]))


@cache
def _products(device: str, key: str) -> Products:
    path = _cache_folder() / "products.json"
    kept = _read_json(path)
    with contextlib.suppress(KeyError, TypeError):
        return Products(**kept[key])
    found = measure_products(device)
    this_boot = {k: v for k, v in kept.items() if k.startswith(json.dumps([_boot()])[:-1])}
    with contextlib.suppress(OSError):  # a full or read-only disk: measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.part")
        draft.write_text(json.dumps(this_boot | {key: dataclasses.asdict(found)}, indent=1), encoding="utf-8")
        draft.replace(path)
    return found


def measure_products(device: str = "cpu") -> Products:
    """`products`, measured now: the best of a few rounds, in turn, so that other work on the machine hits all alike."""
    import torch

    x, weight = torch.ones(ROWS, WIDTH, device=device), torch.ones(HIDDEN, WIDTH, device=device)
    halves = x.bfloat16(), weight.bfloat16()
    ways: dict[str, Callable[[], Any]] = {
        "float32": lambda: torch.nn.functional.linear(x, weight),
        "bfloat16": lambda: torch.nn.functional.linear(*halves),
    }
    if device == "cpu" and has_onednn():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        ways["float32_onednn"] = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    wait = (lambda: torch.cuda.synchronize(device)) if device.startswith("cuda") else lambda: None
    with torch.inference_mode():
        best = {name: min(_seconds(way, wait), _seconds(way, wait)) for name, way in ways.items()}
        for _ in range(4):
            for name, way in ways.items():
                if best[name] < 0.01:  # what is slow is slow enough to see at once
                    best[name] = min(best[name], _seconds(way, wait))
    work = 2 * ROWS * WIDTH * HIDDEN / 1e9
    return Products(**{name: round(work / seconds, 1) for name, seconds in best.items()})


def has_onednn() -> bool:
    """Does this PyTorch have oneDNN's float32 linear layer?"""
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))


def _seconds(work: Callable[[], Any], wait: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


_DRAW = """
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
from OpenGL import GL
print(GL.glGetString(GL.GL_RENDERER).decode())
context.free()
"""


@dataclass(frozen=True)
class Drawing:
    """Offscreen drawing: the GL library that is chosen, what draws (llvmpipe is software), and what went wrong."""

    library: str
    renderer: str = ""
    error: str = ""


def drawing() -> Drawing:
    """Draw with MuJoCo in a process of its own, which a broken driver may take down."""
    environment = dict(os.environ)
    if sys.platform.startswith("linux"):
        environment.setdefault("MUJOCO_GL", "egl")
    library = environment.get("MUJOCO_GL", "")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DRAW],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return Drawing(library, error="no answer within a minute")
    if done.returncode:
        said = done.stderr.partition("Exception ignored")[0]  # a broken context complains once more as it is collected
        return Drawing(library, error=next(_last_lines(said), f"ended with status {done.returncode}"))
    return Drawing(library, renderer=done.stdout.strip())


def _last_lines(text: str) -> Iterator[str]:
    """Lines that say something, the last one first."""
    return (line.strip() for line in reversed(text.splitlines()) if line.strip() and not line.startswith(" "))


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return platform.node()


def _cache_folder() -> Path:
    """Of the user's; a folder that cannot be written is no error."""
    given = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # a user without a home
        return (Path(given) if given else Path.home() / ".cache") / "foreact"
    return Path(os.devnull)


def _read_json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
