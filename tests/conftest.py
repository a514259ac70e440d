"""What every test shares: fixed seeds, few threads, and a reason where a part of the machine is missing."""

import importlib.util
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: more threads cost more than they bring
os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's software renderer
os.environ.setdefault("MPLBACKEND", "agg")
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

import hypothesis
import numpy as np
import pytest

OPTIONAL = ("torch", "mujoco", "metaworld", "gymnasium", "tokenizers", "tensorboard", "diffusers")
OPTIONAL += ("gym_aloha", "gym_pusht", "gymnasium_robotics", "ogbench")
MISSING = {name for name in OPTIONAL if importlib.util.find_spec(name) is None}

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("house")


@cache
def _has_gl() -> bool:
    """Asked in a process of its own, as a context that failed warns again when it is collected."""
    code = "import mujoco; mujoco.GLContext(8, 8).free()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@cache
def _has_gpu() -> bool:
    if "torch" in MISSING:
        return False
    import torch

    return torch.cuda.is_available()


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("no CUDA device")
    if item.get_closest_marker("sim") and not _has_gl():
        pytest.skip("MuJoCo cannot render offscreen here; `bash scripts/install.sh` says why")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """A test module that imports a missing optional package is skipped; a broken import still fails."""
    report = yield
    for name in MISSING:
        if report.failed and f"No module named '{name}'" in str(report.longrepr):
            report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"needs {name}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if error.name in MISSING:
            pytest.skip(f"needs {error.name}")
        raise


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  Metaworld draws from the global generator
    if "torch" not in MISSING:
        import torch

        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    """What a single test trains is not plotted, which takes longer than its updates; what a fixture trains is."""
    if "foreact.policy.train" in sys.modules:
        monkeypatch.setattr(sys.modules["foreact.policy.train"], "draw_curves", lambda records, path: None)
        monkeypatch.setattr(sys.modules["foreact.policy.trainer"].Trainer, "draw", lambda trainer, run: None)


@pytest.fixture
def alive():
    """alive(pid) → does that process still run? A zombie does not: its parent has only not asked yet."""

    def ask(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    return ask
