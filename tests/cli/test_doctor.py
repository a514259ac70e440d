"""`foreact doctor` on machines that lack something: each is named, with the way to mend it."""

import math
import os
import shutil
import sys
import types

import pytest
from foreact.cli import doctor
from foreact.common import machine
from foreact.common.machine import Drawing, Products

GOOD = Products(float32=100, bfloat16=300)


@pytest.fixture
def sound(monkeypatch, tmp_path):
    """A machine on which nothing is to be mended."""
    monkeypatch.setenv("FOREACT_HOME", str(tmp_path))
    for name in ("OMP_NUM_THREADS", *machine.ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "measure_products", lambda: GOOD)
    monkeypatch.setattr(machine, "drawing", lambda: Drawing("egl", "llvmpipe"))
    monkeypatch.setattr(machine, "usable_threads", lambda: 4)
    monkeypatch.setattr(machine, "cpu_quota", lambda: math.inf)
    if torch := sys.modules.get("torch"):
        monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "gpu_names", list)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=50e9))
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")
    monkeypatch.setattr(doctor, "_pins", lambda path: {"torch": "1.0"})
    return monkeypatch


def no_gl(patch):
    patch.setattr(machine, "drawing", lambda: Drawing("osmesa", error="ImportError: libOSMesa.so"))


def wrong_device(patch):
    patch.setattr(
        machine, "drawing", lambda: Drawing("egl", error="RuntimeError: The MUJOCO_EGL_DEVICE_ID environment")
    )


def emulated(patch):
    patch.setattr(machine, "measure_products", lambda: Products(float32=200, bfloat16=64, float32_onednn=210))


def limited_instructions(patch):
    emulated(patch)
    patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")


def one_processor(patch):
    patch.setattr(machine, "usable_threads", lambda: 1)


def quota(patch):
    one_processor(patch)
    patch.setattr(machine, "cpu_quota", lambda: 1.0)


def unseen_gpu(patch):
    patch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")


def full_disk(patch):
    patch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e8))


def little_room(patch):
    patch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e9))


def missing_simulator(patch):
    patch.setattr(doctor, "_version", lambda package: None if package == "metaworld" else "1.0")


def other_version(patch):
    patch.setattr(doctor, "_version", lambda package: "2.0")


@pytest.mark.parametrize(
    ("broken", "level", "found", "mend"),
    [
        (no_gl, "error", "MUJOCO_GL=osmesa cannot draw: ImportError", "apt-get install -y libosmesa6"),
        (wrong_device, "error", "MUJOCO_EGL_DEVICE_ID", "unset MUJOCO_EGL_DEVICE_ID"),
        (emulated, "note", "on the processor is fp32 (onednn kernels)", "leave precision=auto"),
        (limited_instructions, "warning", "ONEDNN_MAX_CPU_ISA=AVX2 limits", "unset ONEDNN_MAX_CPU_ISA"),
        (one_processor, "warning", "1 of 4 processors may be used: limited by CPU affinity", "limit is higher"),
        (quota, "warning", "limited by a CPU quota", "limit is higher"),
        (unseen_gpu, "warning", "sees no GPU", "CUDA build"),
        (full_disk, "error", "0.1 GB free", "FOREACT_HOME"),
        (little_room, "warning", "1.0 GB free", "FOREACT_HOME"),
        (missing_simulator, "warning", "metaworld not installed", "foreact[sim]"),
        (other_version, "warning", "torch 2.0 (tested: 1.0)", "constraints.txt"),
    ],
)
def test_what_is_wrong_is_named_with_its_cure(sound, capsys, broken, level, found, mend):
    pytest.importorskip("torch")
    broken(sound)
    assert doctor.doctor() == (level == "error")
    printed = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(printed) if found in line)
    assert printed[at].startswith(level)
    assert printed[at + 1].strip().startswith("mend:")
    assert mend in printed[at + 1]
    assert printed[-1].endswith("nothing to mend") == (level == "note")


def test_a_sound_machine_has_nothing_to_mend(sound, capsys):
    pytest.importorskip("torch")
    assert doctor.doctor() == 0
    printed = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in printed[:-1]} == {"ok"}
    assert printed[-1] == "nothing to mend"


def test_a_folder_that_cannot_be_written_is_an_error(sound, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    line = doctor._room("disk", tmp_path / "file", "mend")
    assert (line.level, line.mend) == ("error", "mend")


def test_constraints_are_read(tmp_path):
    path = tmp_path / "constraints.txt"
    path.write_text("# pins\ntorch==2.13.0\n\nnumpy==2.4.6\n", encoding="utf-8")
    assert doctor._pins(path) == {"torch": "2.13.0", "numpy": "2.4.6"}
    assert doctor._pins(tmp_path / "missing") == {}
