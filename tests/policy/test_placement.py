"""Where and how a run computes: chosen for the machine, written into the run, and kept when it goes on."""

import dataclasses
import json
import logging

import pytest
import torch
from foreact.common import machine
from foreact.common.machine import Products
from foreact.envs.errors import UserError
from foreact.policy import TrainConfig, train
from foreact.policy.device import Placement, resolve
from foreact.policy.nn import linear
from foreact.policy.run_folder import recorded_placement
from foreact.policy.train import place
from foreact.policy.trainer import Trainer

from .runs import SHORT

AUTO = dataclasses.replace(SHORT, precision="auto", steps=2, save_every=1)


def measured(monkeypatch, rates: Products) -> None:
    monkeypatch.setattr(machine, "products", lambda device="cpu": rates)


EMULATED, FAST = Products(200, 64, 210), Products(200, 800, 210)


def test_auto_is_what_was_measured(monkeypatch):
    threads = torch.get_num_threads()
    measured(monkeypatch, EMULATED)
    assert resolve("cpu", "auto", "auto", 0) == Placement("cpu", "fp32", "onednn", threads)
    measured(monkeypatch, FAST)
    assert resolve("cpu", "auto", "auto", 0).precision == "bf16"
    assert resolve("cpu", "fp32", "torch", 3) == Placement("cpu", "fp32", "torch", 3)
    assert torch.get_num_threads() == threads


def test_kernels_that_are_not_there_are_an_error(monkeypatch):
    monkeypatch.setattr(machine, "has_onednn", lambda: False)
    with pytest.raises(UserError, match="kernels=onednn"):
        resolve("cpu", "fp32", "onednn", 0)


@pytest.mark.parametrize("wrong", [{"precision": "fp16"}, {"kernels": "mkl"}, {"threads": -1}])
def test_settings_that_are_none_are_errors(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_a_run_keeps_what_it_chose(monkeypatch, store, preset, tmp_path, caplog):
    measured(monkeypatch, EMULATED)
    train(store, preset, dataclasses.replace(AUTO, threads=2), tmp_path / "run", progress=False)
    kept = {"device": "cpu", "precision": "fp32", "kernels": "onednn", "threads": 2}  # as it began
    assert recorded_placement(tmp_path / "run") == kept
    measured(monkeypatch, FAST)
    with caplog.at_level(logging.WARNING):
        train(store, preset, dataclasses.replace(AUTO, threads=2), tmp_path / "run", progress=False)
    assert recorded_placement(tmp_path / "run") == kept
    assert "began in fp32" in caplog.text
    # what was chosen may also be asked for by its name; another precision is another run
    named = dataclasses.replace(AUTO, threads=2, precision="fp32")
    train(store, preset, named, tmp_path / "run", progress=False)
    with pytest.raises(UserError, match=r"train\.precision: 'auto' there, 'bf16' asked for"):
        train(store, preset, dataclasses.replace(named, precision="bf16"), tmp_path / "run", progress=False)


def test_a_run_from_before_placements_were_kept_goes_on(monkeypatch, store, preset, tmp_path):
    measured(monkeypatch, EMULATED)
    train(store, preset, AUTO, tmp_path / "run", progress=False)
    about = tmp_path / "run" / "run.json"
    record = json.loads(about.read_text(encoding="utf-8"))
    del record["placement"]
    for name in ("kernels", "threads"):
        del record["config"]["train"][name]
    about.write_text(json.dumps(record), encoding="utf-8")
    train(store, preset, AUTO, tmp_path / "run", progress=False)
    assert recorded_placement(tmp_path / "run")["precision"] == "fp32"


def test_threads_and_device_may_change(monkeypatch):
    measured(monkeypatch, FAST)
    recorded = {"device": "cpu", "precision": "fp32", "kernels": "onednn", "threads": 8}
    here = torch.get_num_threads()
    assert place(AUTO, recorded) == Placement("cpu", "fp32", "onednn", min(8, here))
    assert place(AUTO, {**recorded, "threads": 1}).threads == 1
    assert place(dataclasses.replace(AUTO, threads=1), recorded).threads == 1
    gone = {"device": "cuda", "precision": "bf16", "kernels": "torch", "threads": 8}
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"began with device=cuda.*use device=cpu"):
            place(dataclasses.replace(AUTO, device="auto"), gone)
    moved = place(dataclasses.replace(AUTO, device="cpu"), gone)
    assert (moved.precision, moved.kernels) == ("bf16", "onednn")  # kernels are the new device's


@pytest.mark.skipif(not machine.has_onednn(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("kernels", ["onednn", "torch"])
def test_an_update_takes_the_kernels_that_were_chosen(monkeypatch, store, preset, kernels):
    used = []
    product = linear._product
    monkeypatch.setattr(linear, "_product", lambda *parts: used.append(parts) or product(*parts))
    trainer = Trainer(store, preset, dataclasses.replace(SHORT, kernels=kernels))
    used.clear()
    trainer.update(trainer.batches())
    assert bool(used) == (kernels == "onednn")
