import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from foreact.__main__ import main
from foreact.data.clips import import_clips
from foreact.data.video import write_video
from foreact.envs.errors import UserError
from foreact.policy import checkpoint, load_policy, train
from foreact.policy.fitting import TrainConfig, learning_rate
from foreact.policy.run_folder import read_metrics
from foreact.policy.trainer import Trainer

from .runs import SHORT, cut_off, losses


@pytest.fixture(scope="module", params=[pytest.param("preset", marks=pytest.mark.slow), "dropping"])
def run_of(request, store, tmp_path_factory):
    """A preset and its run of all four updates."""
    preset = request.getfixturevalue(request.param)
    return preset, train(store, preset, SHORT, tmp_path_factory.mktemp(request.param) / "run", progress=False)


def test_two_steps_then_resume_equals_four(store, run_of, tmp_path):
    preset, whole = run_of
    assert (whole / "experts.png").is_file() == (preset.backbone.experts is not None)
    part = train(store, preset, SHORT, cut_off(whole, tmp_path / "part"), progress=False)
    assert losses(whole) == losses(part)
    for name in ("model", "training/weights", "training/optimizer", "training/ema"):
        a, b = (checkpoint.load_file(checkpoint.find_checkpoint(r) / f"{name}.safetensors") for r in (whole, part))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_inference_after_an_update_uses_the_new_weights(store, preset):
    """A fused optimiser step leaves PyTorch's count of changes as it was."""
    trainer = Trainer(store, preset, SHORT)
    layer, x = trainer.model.from_state, torch.randn(2, trainer.model.from_state.in_features)
    with torch.no_grad():
        before = layer(x)
    trainer.update(trainer.batches())
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
        assert not torch.equal(layer(x), before)


def test_accumulation_draws_the_same_samples(store, preset):
    trainer = Trainer(store, preset, dataclasses.replace(SHORT, accumulate=2))
    assert trainer.update(trainer.batches())["loss"] > 0
    assert trainer.step == 1


@pytest.mark.parametrize("name", ["action/tiny", "joint/tiny", "pad/tiny", "tokenizer/kl"])
def test_sizes_before_training(store, name, capsys):
    assert main(["train", f"data={store}", f"model={name}", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert name in text
    assert "parameters" in text
    assert "1 joint" in text or "pad" not in name


def test_co_training_on_films_of_one_camera(store, preset, tmp_path):
    """Demonstrations of two cameras, their frames alone, and a film that shows one: three sources in every step."""
    frames = np.random.default_rng(0).integers(0, 256, (30, 40, 40, 3), dtype=np.uint8)
    write_video(tmp_path / "film.mp4", frames, 20)
    import_clips([tmp_path / "film.mp4"], tmp_path / "films", instruction="go up", camera="side", pixels=32)
    data = [str(store), {"path": str(store), "actions": False}, {"path": str(tmp_path / "films"), "actions": False}]
    run = train(data, preset, dataclasses.replace(SHORT, batch_size=6), tmp_path / "run", progress=False)
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


def test_interrupt_saves_first(store, preset, tmp_path):
    def interrupt(policy, step):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    config = dataclasses.replace(SHORT, rollout_every=1, save_every=100)
    with pytest.raises(KeyboardInterrupt, match="saved at step 1 of 4"):
        train(store, preset, config, tmp_path / "run", progress=False, evaluate=interrupt)
    assert checkpoint.find_checkpoint(tmp_path / "run").name == "00000001"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(store, preset, tmp_path, monkeypatch):
    original = Trainer.update

    def poison(self, batches):
        if self.step == 2:
            next(iter(self.model.parameters())).data[:] = float("nan")
        return original(self, batches)

    monkeypatch.setattr(Trainer, "update", poison)
    with pytest.raises(UserError, match=r"not finite at step 2; its batch is in .*not_finite_00000002"):
        train(store, preset, SHORT, tmp_path / "run", progress=False)
    batch = checkpoint.load_file(tmp_path / "run" / "not_finite_00000002.safetensors")
    assert batch["action"].shape == (3, 6, 4)
    assert checkpoint.find_checkpoint(tmp_path / "run").name == "00000002"


def test_another_configuration_in_the_same_folder_is_an_error(store, preset, trained):
    with pytest.raises(UserError, match=r"train.lr: 0.001 there, 0.5 asked for"):
        train(store, preset, dataclasses.replace(SHORT, lr=0.5), trained, progress=False)


def test_the_run_folder_tells_what_was_done(trained):
    about = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    assert about["versions"]["torch"] == torch.__version__
    assert about["config"]["model"]["horizon"] == 6
    assert (trained / "commands.txt").read_text(encoding="utf-8") == "foreact train …\n"
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").iterdir())
    record = read_metrics(trained / "metrics.jsonl")[-1]
    assert {"loss/action", "loss/future", "loss/align", "val/action", "val/future", "samples_per_s"} <= record.keys()
    assert 0 <= record["waiting_for_data"] < 1


def test_frames_too_small_for_the_preset(store, preset, tmp_path):
    with pytest.raises(UserError, match=r"takes 64 pixels, but camera 'front' .* has 32"):
        train(store, dataclasses.replace(preset, pixels=64), SHORT, tmp_path / "run", progress=False)


def test_learning_rate_schedule():
    config = TrainConfig(steps=100, warmup=10)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == 1
    assert rates[-1] < 0.001
    assert learning_rate(50, dataclasses.replace(config, schedule="constant")) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_steps_match(store, preset):
    plain, compiled = (Trainer(store, preset, dataclasses.replace(SHORT, compile=c)) for c in (False, True))
    for _ in range(2):
        a, b = (t.update(t.batches())["loss"] for t in (plain, compiled))
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.gpu
def test_two_steps_on_a_gpu(store, preset, tmp_path):
    config = dataclasses.replace(SHORT, device="cuda", precision="bf16")
    run = train(store, preset, config, tmp_path / "run", progress=False)
    assert load_policy(run, "cuda").device == "cuda"
