"""The order of the house: who imports whom, and that what is built and tracked is what is meant."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from foreact.eval.pack import MOST_BYTES

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "envs", "data", "policy", "eval", "cli")  # each imports from itself and from those before it
HEAVY = ("torch", "mujoco", "jinja2")  # in common only inside functions
EVAL = ("reports", "", "serving", "robot", "bench")  # likewise inside eval, where "" are the files of eval itself
LARGEST_FILE = (
    2_000_000  # bytes; pictures for the docs fit, data does not, nor weights but those that come with foreact
)


def sources(*folders: str) -> list[Path]:
    """Python files of the package, relative to its root."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found)


def imported(source: str, path: Path, *, inside_functions: bool = True) -> set[str]:
    """What the file at `path` imports. In envs/spec.py `from ..data.store import Store` is .data.store.Store (from the
    root of the package), `import torch.nn` is torch.nn."""
    tree, names = ast.parse(source), set()
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ["", *path.parts[: len(path.parts) - node.level]] if node.level else []
            names |= {".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names}
    return names


def faults(source: str, path: Path) -> list[str]:
    """What `path` may not import: rooms above its own, also inside eval; the package by its absolute name; torch in
    envs, and what is heavy in common, but for inside its functions."""
    room = path.parts[0]
    banned = {f".{name}" for name in (*ROOMS[ROOMS.index(room) + 1 :], "configs", "__main__")}
    banned |= {"foreact", *ROOMS} | ({"torch", "einops", "jaxtyping"} if room == "envs" else set())
    names = imported(source, path)
    own = inside_eval(path.parts[1:]) if room == "eval" else len(EVAL)
    above = {n for n in names if n.startswith(".eval.") and inside_eval(n.split(".")[2:]) > own}
    heavy = imported(source, path, inside_functions=False) if room == "common" else set()
    wrong = {n for n in names if any(f"{n}.".startswith(f"{b}.") for b in banned)}
    return sorted(above | wrong | {n for n in heavy if n.split(".")[0] in HEAVY})


def inside_eval(parts: Sequence[str]) -> int:
    """The place in EVAL of a module, given the parts of its name below eval."""
    return EVAL.index(parts[0] if parts[0] in EVAL else "")


@pytest.mark.parametrize(
    ("path", "line", "fault"),
    [
        ("envs/spec.py", "from ..data.store import Store", ".data.store.Store"),
        ("envs/spec.py", "from .. import data", ".data"),
        ("common/machine.py", "from ..envs.errors import UserError", ".envs.errors.UserError"),
        ("common/machine.py", "import torch", "torch"),
        ("data/store.py", "def f():\n    from ..policy import nn", ".policy.nn"),
        ("policy/nn/block.py", "from ...eval.bench import act", ".eval.bench.act"),
        ("policy/nn/block.py", "from ... import eval as e", ".eval"),
        ("data/store.py", "from foreact.envs import spec", "foreact.envs.spec"),
        ("data/store.py", "import envs.spec", "envs.spec"),
        ("eval/rollout.py", "from ..cli import compose", ".cli.compose"),
        ("envs/render.py", "import torch.nn as nn", "torch.nn"),
        ("envs/render.py", "from torch import Tensor", "torch.Tensor"),
        ("eval/rollout.py", "from .. import __main__", ".__main__"),
        ("eval/rollout.py", "from .robot.clock import Clock", ".eval.robot.clock.Clock"),
        ("eval/reports/film.py", "from ..stage import Look", ".eval.stage.Look"),
        ("eval/serving/server.py", "from ..robot import control", ".eval.robot.control"),
    ],
)
def test_the_check_itself_finds(path, line, fault):
    assert faults(line, Path(path)) == [fault]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("eval/rollout.py", "from ..policy.nn import block\nfrom .. import envs, data"),
        ("policy/nn/block.py", "from ..segments import Segment\nfrom . import attention"),
        ("envs/render.py", "import numpy as np\nfrom .spec import Camera"),
        ("envs/render.py", "from ..common import machine"),
        ("common/machine.py", "def f():\n    import torch"),
        ("data/store.py", "from ..envs import evaluation"),
        (
            "eval/robot/control.py",
            "from ..actors import PolicyActor\nfrom ..reports import metrics",
        ),
        ("cli/robotics.py", "from ..eval.robot import control"),
    ],
)
def test_the_check_itself_allows(path, line):
    assert faults(line, Path(path)) == []


def test_imports_run_one_way():
    found = {str(path): faults((ROOT / path).read_text(encoding="utf-8"), path) for path in sources(*ROOMS)}
    assert {path: names for path, names in found.items() if names} == {}


def test_every_sub_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in sources(*ROOMS, "configs", "pretrained")}
    bare = [str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()]
    assert bare == [], "folders with modules and without __init__.py"
    assert sorted(listed) == sorted({"foreact", *(".".join(("foreact", *folder.parts)) for folder in folders)})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without network and from a copy, so that no build/ is left behind. Weights are empty in it:
    packing 33 MB takes seconds and tells nothing."""
    tmp = tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns(".*", "runs", "build", "dist", "docs", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tmp / "copy", ignore=skip)
    for weights in (tmp / "copy" / "pretrained").rglob("*.safetensors"):
        weights.write_bytes(b"")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tmp / "copy", check=True, capture_output=True)
    return next(tmp.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    folders = (*ROOMS, "configs", "pretrained")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    kept = {path for path in files if path.suffix != ".md" and "__pycache__" not in path.parts}
    kept |= {path for path in files if path.parent.parent == ROOT / "pretrained"}  # model cards too
    wanted = kept | {*ROOT.glob("*.py"), ROOT / "py.typed"}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {f"foreact/{path.relative_to(ROOT).as_posix()}" for path in wanted}


def test_configs_compose_from_the_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
import sys, foreact, hydra, pathlib
assert foreact.__file__.startswith(sys.argv[1]), foreact.__file__
with hydra.initialize_config_module("foreact.configs", version_base="1.3"):
    for path in (pathlib.Path(sys.argv[1]) / "foreact/configs").glob("*.yaml"):
        hydra.compose(path.stem)
"""
    # Beside the editable install, PYTHONPATH comes first.
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path, env=env)


def test_no_tracked_file_is_large():
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in listing.split("\0") if (ROOT / name).is_file()}
    packaged = {name: sizes.pop(name) for name in list(sizes) if name.startswith("pretrained/")}
    assert {name: size for name, size in sizes.items() if size > LARGEST_FILE} == {}
    assert sum(packaged.values()) <= MOST_BYTES
