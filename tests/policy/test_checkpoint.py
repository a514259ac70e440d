"""What a checkpoint holds, from which version it came, and what is said where it is damaged."""

import dataclasses
import json
import shutil

import pytest
import torch
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.policy import checkpoint, load_policy, train
from safetensors.torch import save_file

from .runs import SHORT, losses


def test_mean_frames_travel_with_the_checkpoint(store, trained):
    model = load_policy(trained, device="cpu").model
    with Store.open(store) as opened:
        frames = torch.from_numpy(opened.read("image/front")[:]).float() / 127.5 - 1
    assert abs(model.mean_frame[0].mean() - frames.mean()) < 0.02
    assert model.frame_spread.item() == pytest.approx(frames.std().item(), rel=0.1)


def test_a_run_from_before_weights_were_renamed_goes_on(store, preset, trained, tmp_path):
    half = tmp_path / "half"
    train(store, preset, dataclasses.replace(SHORT, steps=2), half, progress=False)
    about = json.loads((half / "run.json").read_text(encoding="utf-8"))
    about["config"]["train"]["steps"] = 4
    del about["config"]["model"]["noise_token"], about["config"]["model"]["backbone"]["experts"]
    (half / "run.json").write_text(json.dumps(about), encoding="utf-8")
    for file in checkpoint.find_checkpoint(half).rglob("*.safetensors"):
        tensors = checkpoint.load_file(file)
        save_file({name.replace(".mlp.", "."): value for name, value in tensors.items()}, file)
    assert losses(train(store, preset, SHORT, half, progress=False))[:2] == losses(trained)[:2]
    assert losses(half)[2] == pytest.approx(losses(trained)[2], rel=0.2)  # the rate fell in two steps, not in four


def test_checkpoint_round_trip(preset, trained):
    policy, again = load_policy(trained), load_policy(checkpoint.find_checkpoint(trained))
    assert policy.tasks == ["toy/l", "toy/r"]
    assert policy.config == preset
    for a, b in zip(policy.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not [p for p in trained.rglob("*") if p.suffix in (".pt", ".pkl", ".pth")]


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="does not exist; give a run folder"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_policy(tmp_path)


def test_torn_weights_and_other_format(trained, tmp_path):
    folder = shutil.copytree(checkpoint.find_checkpoint(trained), tmp_path / "torn")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint .* is damaged"):
        load_policy(folder)
    about = json.loads((folder / "policy.json").read_text(encoding="utf-8")) | {"format_version": 99}
    (folder / "policy.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(UserError, match="has format 99, this foreact reads 1"):
        load_policy(folder)
