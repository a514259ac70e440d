"""What a run begins from: another policy's weights, whole or with few new numbers."""

import dataclasses

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy import load_policy, train
from foreact.policy.run_folder import read_metrics

from .runs import SHORT, cut_off, losses


def test_a_policy_begins_from_another(store, preset, dropping, trained, tmp_path):
    still = dataclasses.replace(SHORT, steps=1, lr=0.0)
    firsts = []
    for name, begun in (("again", preset), ("experts", dropping)):
        backbone = dataclasses.replace(begun.backbone, attention_dropout=0.0, mlp_dropout=0.0)
        begun = dataclasses.replace(begun, backbone=backbone, draws={"policy": 2})  # of one query: the same noise
        run = train(store, begun, still, tmp_path / name, init=trained, progress=False)
        firsts.append(read_metrics(run / "metrics.jsonl")[0]["loss/action"])
    assert firsts[0] == pytest.approx(firsts[1], rel=1e-5)
    other = dataclasses.replace(preset, backbone=dataclasses.replace(preset.backbone, activation="silu"))
    with pytest.raises(UserError, match=r"differ in model\.backbone\.activation: gelu and silu"):
        train(store, other, still, tmp_path / "other", init=trained, progress=False)


def test_a_patched_policy_acts_like_any_other(store, preset, dropping, trained, tmp_path):
    """Weights change by little of low rank, what is around the backbone freely, and the run goes on exactly."""
    patched = dataclasses.replace(SHORT, lora=2, lr=0.01)
    whole = train(store, dropping, patched, tmp_path / "whole", init=trained, progress=False)
    begun = cut_off(whole, tmp_path / "half")
    assert losses(train(store, dropping, patched, begun, init=trained, progress=False)) == losses(whole)

    before, after = (dict(load_policy(run, "cpu").model.named_parameters()) for run in (trained, whole))
    name = "backbone.blocks.0.attention.out"
    change = (after[f"{name}.weight"] - before[f"{name}.weight"]).detach()
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
    assert torch.equal(after[f"{name}.bias"], before[f"{name}.bias"])
    assert any(not torch.equal(after[n], before[n]) for n in before if not n.startswith("backbone."))
    with pytest.raises(UserError, match=r"lora=2 changes the weights of a trained policy; name its run: init=RUN"):
        train(store, preset, patched, tmp_path / "alone", progress=False)
