import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from foreact.__main__ import main
from foreact.data.clips import import_clips
from foreact.data.store import Store
from foreact.data.video import write_video
from foreact.envs.errors import UserError
from foreact.policy import checkpoint, load_policy, train
from foreact.policy.fitting import TrainConfig, learning_rate
from foreact.policy.nn.config import ExpertsConfig
from foreact.policy.run_folder import read_metrics
from foreact.policy.trainer import Trainer
from safetensors.torch import save_file

SHORT = TrainConfig(
    steps=4, batch_size=3, warmup=2, align=0.5, image_shift=2, held_out=0.3, log_every=1, val_every=2, save_every=2,
    precision="fp32", device="cpu",
)  # fmt: skip


def losses(run) -> list[float]:
    return [r["loss"] for r in read_metrics(run / "metrics.jsonl")]


@pytest.fixture(scope="module")
def small(preset):
    return dataclasses.replace(preset, instruction="table")


@pytest.fixture(scope="module")
def trained(store, small, tmp_path_factory):
    """The run of all four updates, for all to read; who changes it takes a copy."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(store, small, SHORT, out, command="foreact train …", progress=False)


@pytest.fixture(scope="module")
def dropping(small):
    """Experts that are drawn, and dropout, which draws from PyTorch's own generator."""
    backbone = dataclasses.replace(small.backbone, experts=ExpertsConfig(), attention_dropout=0.2, mlp_dropout=0.2)
    return dataclasses.replace(small, backbone=backbone)


def cut_off(run, out):
    """A copy of a run of four updates as it was when it had saved two and logged a third."""
    part = shutil.copytree(run, out)
    shutil.rmtree(part / "checkpoints" / "00000004")
    (part / "checkpoints" / "latest").write_text("00000002")
    lines = (part / "metrics.jsonl").read_text().splitlines(keepends=True)
    (part / "metrics.jsonl").write_text("".join(lines[:3]))
    return part


@pytest.mark.parametrize("kind", [pytest.param("small", marks=pytest.mark.slow), "dropping"])
def test_two_steps_then_resume_equals_four(store, request, kind, tmp_path):
    preset = request.getfixturevalue(kind)
    whole = train(store, preset, SHORT, tmp_path / "whole", progress=False)
    part = train(store, preset, SHORT, cut_off(whole, tmp_path / "part"), progress=False)
    assert losses(whole) == losses(part)
    for name in ("model", "training/weights", "training/optimizer", "training/ema"):
        a, b = (checkpoint.load_file(checkpoint.find_checkpoint(r) / f"{name}.safetensors") for r in (whole, part))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_from_before_weights_were_renamed_goes_on(store, small, trained, tmp_path):
    half = tmp_path / "half"
    train(store, small, dataclasses.replace(SHORT, steps=2), half, progress=False)
    about = json.loads((half / "run.json").read_text())
    about["config"]["train"]["steps"] = 4
    del about["config"]["model"]["noise_token"], about["config"]["model"]["backbone"]["experts"]
    (half / "run.json").write_text(json.dumps(about))
    for file in checkpoint.find_checkpoint(half).rglob("*.safetensors"):
        tensors = checkpoint.load_file(file)
        save_file({name.replace(".mlp.", "."): value for name, value in tensors.items()}, file)
    assert losses(train(store, small, SHORT, half, progress=False))[:2] == losses(trained)[:2]
    assert losses(half)[2] == pytest.approx(losses(trained)[2], rel=0.2)  # the rate fell in two steps, not in four


def test_a_policy_begins_from_another(store, small, dropping, trained, tmp_path):
    still = dataclasses.replace(SHORT, steps=1, lr=0.0)
    firsts = []
    for name, preset in (("again", small), ("experts", dropping)):
        backbone = dataclasses.replace(preset.backbone, attention_dropout=0.0, mlp_dropout=0.0)
        preset = dataclasses.replace(preset, backbone=backbone, draws={"policy": 2})  # of one query: the same noise
        run = train(store, preset, still, tmp_path / name, init=trained, progress=False)
        firsts.append(read_metrics(run / "metrics.jsonl")[0]["loss/action"])
    assert firsts[0] == pytest.approx(firsts[1], rel=1e-5)
    other = dataclasses.replace(small, backbone=dataclasses.replace(small.backbone, activation="silu"))
    with pytest.raises(UserError, match=r"differ in model\.backbone\.activation: gelu and silu"):
        train(store, other, still, tmp_path / "other", init=trained, progress=False)


def test_a_patched_policy_acts_like_any_other(store, small, dropping, trained, tmp_path):
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
        train(store, small, patched, tmp_path / "alone", progress=False)


def test_mean_frames_travel_with_the_checkpoint(store, trained):
    model = load_policy(trained, device="cpu").model
    with Store.open(store) as opened:
        frames = torch.from_numpy(opened.read("image/front")[:]).float() / 127.5 - 1
    assert abs(model.mean_frame[0].mean() - frames.mean()) < 0.02
    assert model.frame_spread.item() == pytest.approx(frames.std().item(), rel=0.1)


def test_inference_after_an_update_uses_the_new_weights(store, small):
    """A fused optimiser step leaves PyTorch's count of changes as it was."""
    trainer = Trainer(store, small, SHORT)
    layer, x = trainer.model.from_state, torch.randn(2, trainer.model.from_state.in_features)
    with torch.no_grad():
        before = layer(x)
    trainer.update(trainer.batches())
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
        assert not torch.equal(layer(x), before)


def test_accumulation_draws_the_same_samples(store, small):
    trainer = Trainer(store, small, dataclasses.replace(SHORT, accumulate=2))
    assert trainer.update(trainer.batches())["loss"] > 0
    assert trainer.step == 1


@pytest.mark.parametrize("name", ["action/tiny", "joint/tiny", "pad/tiny", "tokenizer/kl"])
def test_sizes_before_training(store, name, capsys):
    assert main(["train", f"data={store}", f"model={name}", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert name in text
    assert "parameters" in text
    assert "1 joint" in text or "pad" not in name


def test_co_training_on_films_of_one_camera(store, small, tmp_path):
    """Demonstrations of two cameras, their frames alone, and a film that shows one: three sources in every step."""
    frames = np.random.default_rng(0).integers(0, 256, (30, 40, 40, 3), dtype=np.uint8)
    write_video(tmp_path / "film.mp4", frames, 20)
    import_clips([tmp_path / "film.mp4"], tmp_path / "films", instruction="go up", camera="side", pixels=32)
    data = [str(store), {"path": str(store), "actions": False}, {"path": str(tmp_path / "films"), "actions": False}]
    run = train(data, small, dataclasses.replace(SHORT, batch_size=6), tmp_path / "run", progress=False)
    assert len(losses(run)) == 4
    assert load_policy(run, "cpu").sentences.known == ("go left", "go right", "go up")


@pytest.mark.slow
def test_killed_and_run_again_equals_uninterrupted(store, tmp_path):
    def command(out):
        settings = ["model=joint/tiny", "model.pixels=32", "model.image.channels=[8,8,8]", "model.instruction=table"]
        short = ["steps=12", "batch_size=4", "save_every=2", "log_every=1", "val_every=0", "held_out=0.3"]
        return [sys.executable, "-m", "foreact", "train", f"data={store}", f"out={out}", *settings, *short]

    subprocess.run(command(tmp_path / "whole"), check=True)
    process = subprocess.Popen(command(tmp_path / "part"))
    deadline = time.monotonic() + 120
    while len(losses(tmp_path / "part")) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(losses(tmp_path / "part")) < 12
    subprocess.run(command(tmp_path / "part"), check=True)
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")


def test_interrupt_saves_first(store, small, tmp_path):
    def interrupt(policy, step):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    config = dataclasses.replace(SHORT, rollout_every=1, save_every=100)
    with pytest.raises(KeyboardInterrupt, match="saved at step 1 of 4"):
        train(store, small, config, tmp_path / "run", progress=False, evaluate=interrupt)
    assert checkpoint.find_checkpoint(tmp_path / "run").name == "00000001"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(store, small, tmp_path, monkeypatch):
    original = Trainer.update

    def poison(self, batches):
        if self.step == 2:
            next(iter(self.model.parameters())).data[:] = float("nan")
        return original(self, batches)

    monkeypatch.setattr(Trainer, "update", poison)
    with pytest.raises(UserError, match=r"not finite at step 2; its batch is in .*not_finite_00000002"):
        train(store, small, SHORT, tmp_path / "run", progress=False)
    batch = checkpoint.load_file(tmp_path / "run" / "not_finite_00000002.safetensors")
    assert batch["action"].shape == (3, 6, 4)
    assert checkpoint.find_checkpoint(tmp_path / "run").name == "00000002"


def test_another_configuration_in_the_same_folder_is_an_error(store, small, trained):
    with pytest.raises(UserError, match=r"train.lr: 0.001 there, 0.5 asked for"):
        train(store, small, dataclasses.replace(SHORT, lr=0.5), trained, progress=False)


def test_the_run_folder_tells_what_was_done(trained):
    about = json.loads((trained / "run.json").read_text())
    assert about["versions"]["torch"] == torch.__version__
    assert about["config"]["model"]["horizon"] == 6
    assert (trained / "commands.txt").read_text() == "foreact train …\n"
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").iterdir())
    record = read_metrics(trained / "metrics.jsonl")[-1]
    assert {"loss/action", "loss/future", "loss/align", "val/action", "val/future", "samples_per_s"} <= record.keys()
    assert 0 <= record["waiting_for_data"] < 1


def test_checkpoint_round_trip(small, trained):
    policy, again = load_policy(trained), load_policy(checkpoint.find_checkpoint(trained))
    assert policy.tasks == ["toy/l", "toy/r"]
    assert policy.config == small
    for a, b in zip(policy.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not [p for p in trained.rglob("*") if p.suffix in (".pt", ".pkl", ".pth")]


class TestDamage:
    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(UserError, match="does not exist; give a run folder"):
            load_policy(tmp_path / "nowhere")
        with pytest.raises(UserError, match="has no checkpoint yet"):
            load_policy(tmp_path)

    def test_torn_weights_and_other_format(self, trained, tmp_path):
        folder = shutil.copytree(checkpoint.find_checkpoint(trained), tmp_path / "torn")
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(UserError, match=r"checkpoint .* is damaged"):
            load_policy(folder)
        about = json.loads((folder / "policy.json").read_text()) | {"format_version": 99}
        (folder / "policy.json").write_text(json.dumps(about))
        with pytest.raises(UserError, match="has format 99, this foreact reads 1"):
            load_policy(folder)

    def test_frames_too_small_for_the_preset(self, store, small, tmp_path):
        with pytest.raises(UserError, match=r"takes 64 pixels, but camera 'front' .* has 32"):
            train(store, dataclasses.replace(small, pixels=64), SHORT, tmp_path / "run", progress=False)


def test_learning_rate_schedule():
    config = TrainConfig(steps=100, warmup=10)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == 1
    assert rates[-1] < 0.001
    assert learning_rate(50, dataclasses.replace(config, schedule="constant")) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_steps_match(store, small):
    plain, compiled = (Trainer(store, small, dataclasses.replace(SHORT, compile=c)) for c in (False, True))
    for _ in range(2):
        a, b = (t.update(t.batches())["loss"] for t in (plain, compiled))
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.gpu
def test_two_steps_on_a_gpu(store, small, tmp_path):
    config = dataclasses.replace(SHORT, device="cuda", precision="bf16")
    run = train(store, small, config, tmp_path / "run", progress=False)
    assert load_policy(run, "cuda").device == "cuda"
