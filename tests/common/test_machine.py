"""What the machine can do: measured once per boot, threads by affinity and quota, drawing in a process of its own."""

import dataclasses
import json
import math
import os

import pytest
from foreact.common import machine
from foreact.common.machine import Products


@pytest.mark.parametrize(
    ("rates", "precision", "kernels"),
    [
        (Products(float32=200, bfloat16=800, float32_onednn=480), "bf16", "onednn"),
        (Products(float32=200, bfloat16=400, float32_onednn=480), "fp32", "onednn"),  # slower than what is there
        (Products(float32=200, bfloat16=64, float32_onednn=190), "fp32", "torch"),  # emulated
        (Products(float32=200, bfloat16=259), "fp32", "torch"),  # not worth its rounding
        (Products(float32=200, bfloat16=260), "bf16", "torch"),
    ],
)
def test_what_is_faster_is_chosen(rates, precision, kernels):
    assert (rates.precision, rates.kernels) == (precision, kernels)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the user's, and nothing remembered by this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine._products.cache_clear()
    yield tmp_path / "foreact"
    machine._products.cache_clear()


def test_products_are_measured_once_and_kept(cache, monkeypatch):
    pytest.importorskip("torch")
    first = machine.products()
    assert first.float32 > 0
    assert first.bfloat16 > 0
    machine._products.cache_clear()  # as another process would
    monkeypatch.setattr(machine, "measure_products", lambda device: pytest.fail("measured twice"))
    assert machine.products() == first


@pytest.mark.parametrize("variable", machine.ENVIRONMENT)
def test_other_instructions_are_measured_anew(cache, monkeypatch, variable):
    pytest.importorskip("torch")
    rates = iter([Products(1, 2), Products(3, 4)])
    monkeypatch.setattr(machine, "measure_products", lambda device: next(rates))
    assert machine.products() == Products(1, 2)
    monkeypatch.setenv(variable, "another")
    assert machine.products() == Products(3, 4)
    assert len(json.loads((cache / "products.json").read_text(encoding="utf-8"))) == 2


def test_other_threads_are_measured_anew(cache, monkeypatch):
    torch = pytest.importorskip("torch")
    rates = iter([Products(1, 2), Products(3, 4)])
    monkeypatch.setattr(machine, "measure_products", lambda device: next(rates))
    before = torch.get_num_threads()
    assert machine.products() == Products(1, 2)
    torch.set_num_threads(before + 1)
    try:
        assert machine.products() == Products(3, 4)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}'])
def test_a_torn_cache_is_measured_again(cache, monkeypatch, text):
    pytest.importorskip("torch")
    monkeypatch.setattr(machine, "measure_products", lambda device: Products(1, 2))
    cache.mkdir()
    (cache / "products.json").write_text(text, encoding="utf-8")
    assert machine.products() == Products(1, 2)


def test_what_an_earlier_boot_measured_is_forgotten(cache, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(machine, "measure_products", lambda device: Products(1, 2))
    machine.products()
    monkeypatch.setattr(machine, "_boot", lambda: "another")
    machine.products()
    (key,) = json.loads((cache / "products.json").read_text(encoding="utf-8"))
    assert json.loads(key)[0] == "another"


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    machine._products.cache_clear()
    monkeypatch.setattr(machine, "measure_products", lambda device: Products(1, 2))
    assert machine.products() == Products(1, 2)
    machine._products.cache_clear()


def test_rates_are_of_this_machine():
    torch = pytest.importorskip("torch")
    found = machine.measure_products()
    assert all(0.01 < rate < 1e6 for rate in dataclasses.astuple(found) if rate), found
    assert (found.float32_onednn > 0) == torch.backends.mkldnn.is_available()


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {"cpu.max": "max 100000"}, math.inf),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),  # one around it limits
        ("0::/on/the/host", {"cpu.max": "50000 100000"}, 0.5),  # a container sees its own group as the mount
        ("0::/", {}, math.inf),
        ("0::/", {"cpu.max": "rubbish"}, math.inf),
        ("4:cpu,cpuacct:/d", {"cpu,cpuacct/d/cpu.cfs_quota_us": "400000"}, 4.0),
        ("4:cpuacct,cpu:/d", {"cpu/cpu.cfs_quota_us": "-1"}, math.inf),
        ("7:memory:/d", {"memory/d/cpu.cfs_quota_us": "100000"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_quota(tmp_path, own, files, quota):
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        (path.parent / "cpu.cfs_period_us").write_text("100000", encoding="utf-8")
    (tmp_path / "own").write_text(own + "\n" if own else "", encoding="utf-8")
    assert machine.cpu_quota(tmp_path / "groups", tmp_path / "own") == quota


def test_without_control_groups_nothing_limits(tmp_path):
    assert machine.cpu_quota(tmp_path, tmp_path / "missing") == math.inf


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no CPU affinity here")
@pytest.mark.parametrize(("allowed", "quota", "threads"), [(8, math.inf, 8), (8, 1.5, 2), (8, 0.2, 1), (1, 4.0, 1)])
def test_usable_threads(monkeypatch, allowed, quota, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.usable_threads() == threads


@pytest.mark.sim
def test_drawing_here():
    found = machine.drawing()
    assert found.renderer
    assert not found.error


def test_drawing_says_what_is_wrong(monkeypatch):
    pytest.importorskip("mujoco")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "four")
    found = machine.drawing()
    assert not found.renderer
    assert "Error" in found.error
