import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.policy import TrainConfig, load_policy, train
from foreact.policy.checkpoint import find_checkpoint
from foreact.policy.latents import TokenizerConfig, load_tokenizer
from foreact.policy.run_folder import read_metrics
from foreact.policy.supervision import present
from foreact.policy.tokens.kl import KLConfig, Tokenizer

SIZES = KLConfig(patch=2, channels=(8, 16), latent=4)
PRESET = TokenizerConfig(name="tokenizer/test", autoencoder=SIZES, pixels=32)
SHORT = TrainConfig(
    steps=4, batch_size=3, warmup=1, held_out=0.3, log_every=1, val_every=4, save_every=4, precision="fp32",
    device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(SIZES)


def test_shapes(tokenizer):
    frames = torch.rand(2, 3, 32, 48, 3) * 2 - 1
    latent = tokenizer.encode(frames)
    assert latent.shape == (2, 3, 8, 12, 4)
    assert tokenizer.decode(latent).shape == frames.shape
    assert tokenizer.decode(latent).abs().max() <= 1


def test_latents_are_normalised_and_decode_takes_it_back(tokenizer):
    frames = torch.rand(4, 32, 32, 3) * 2 - 1
    plain = tokenizer.reconstruct(tokenizer.posterior(frames)[0]).clamp(-1, 1)
    moved = Tokenizer(SIZES)
    moved.load_state_dict(tokenizer.state_dict())
    moved.mean.fill_(0.3)
    moved.std.fill_(2.0)
    torch.testing.assert_close(moved.decode(moved.encode(frames)), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved.encode(frames), (tokenizer.encode(frames) - 0.3) / 2)


def test_the_kl_term_is_that_of_two_gaussians(tokenizer):
    frames = torch.rand(2, 32, 32, 3) * 2 - 1
    mean, log_var = tokenizer.posterior(frames)
    normal = torch.distributions.Normal
    truth = torch.distributions.kl_divergence(normal(mean, (log_var / 2).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(tokenizer.loss(frames, torch.Generator())[1]["kl"], truth.detach())


def test_overfits_a_few_frames():
    torch.manual_seed(0)
    net, frames = Tokenizer(SIZES), torch.rand(4, 4, 4, 3).repeat_interleave(8, 1).repeat_interleave(8, 2) * 2 - 1
    optimizer, generator = torch.optim.AdamW(net.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(80):
        loss, parts = net.loss(frames, generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(parts["error"]))
    assert losses[-1] < 0.2 * losses[0]


def test_bad_sizes():
    with pytest.raises(UserError, match="stride 4 does not divide frames of 30"):
        TokenizerConfig(name="x", autoencoder=SIZES, pixels=30)
    with pytest.raises(UserError, match="at least 0"):
        KLConfig(kl=-1)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A tokenizer's run, for all to read; who changes it takes a copy."""
    return train(store, PRESET, SHORT, tmp_path_factory.mktemp("trained") / "tokenizer", progress=False)


def test_trains_resumes_and_reports_its_psnr(trained, store, tmp_path):
    records = read_metrics(trained / "metrics.jsonl")
    assert np.isfinite(records[-1]["val/psnr"])
    longer = dataclasses.replace(SHORT, save_every=2)
    again = train(store, PRESET, longer, tmp_path / "again", progress=False)
    a, b = (load_tokenizer(run)[0].state_dict() for run in (trained, again))
    assert all(torch.equal(a[k], b[k]) for k in a)
    tokenizer, about = load_tokenizer(trained)
    assert about == PRESET
    with Store.open(store) as opened:
        frames = torch.from_numpy(opened.read("image/front")).float() / 127.5 - 1
    latent = tokenizer.encode(frames)
    assert abs(latent.mean()) < 0.3
    assert 0.5 < latent.std() < 2


@pytest.fixture
def latent_preset(preset):
    return dataclasses.replace(preset, instruction="table", future_patch=2, draws={"policy": 1, "joint": 1})


def test_a_policy_foresees_latents_and_carries_the_tokenizer(trained, store, latent_preset, tmp_path):
    run = train(store, latent_preset, SHORT, tmp_path / "run", tokenizer=trained, progress=False)
    policy = load_policy(run, "cpu")
    ours, _ = load_tokenizer(trained)
    assert policy.model.tokenizer is not None
    assert policy.model.tokenizer.mark() == ours.mark()
    shape = policy.model.segments["future"]
    assert (shape.tokens, shape.width) == (2 * 2 * 16, 4 * 4)  # frames x cameras x cells of 2 x 2, 4 channels
    rng = np.random.default_rng(0)
    seen = {
        "images": {c: rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8) for c in ("front", "side")},
        "state": np.zeros((2, 3), np.float32),
    }
    frames = policy.imagine([seen], ["go left"], [(0, 0, 0)])
    assert frames["front"].shape == (1, 2, 32, 32, 3)
    policy.model.tokenizer.encode = None  # type: ignore[assignment]
    assert policy.act([seen], ["go left"], [(0, 0, 0)]).shape[0] == 1  # to act nothing is encoded for the future


def test_cached_latents_equal_those_made_when_acting(trained, store, latent_preset):
    from foreact.policy.trainer import Trainer

    tokenizer, about = load_tokenizer(trained)
    preset = dataclasses.replace(latent_preset, latent=about.autoencoder)
    trainer = Trainer(store, preset, SHORT, tokenizer)
    (batch,) = next(trainer.batches())
    assert not batch.future  # pixels that nobody looks at are not read
    transforms = trainer.policy.transforms
    seen = transforms.seen(batch.images, batch.depth)
    kept, made = present(transforms, batch, seen)["future"], transforms.maps(seen[:, :, -1:])["future"]
    torch.testing.assert_close(kept, made, rtol=0, atol=5e-3)  # kept in half precision
    assert {p.name.split("-")[0] for p in (store / "derived").iterdir()} == {"latents"}


def test_clear_errors(trained, store, latent_preset, tmp_path):
    with pytest.raises(UserError, match="holds a tokenizer, not a policy"):
        load_policy(trained)
    lost = dataclasses.replace(latent_preset, latent=SIZES)
    with pytest.raises(UserError, match="name the run that trained their tokenizer"):
        train(store, lost, SHORT, tmp_path / "x", progress=False)
    moved = dataclasses.replace(SHORT, image_shift=2)
    with pytest.raises(UserError, match="moves frames"):
        train(store, latent_preset, moved, tmp_path / "y", tokenizer=trained, progress=False)
    assert load_tokenizer(find_checkpoint(trained))


def test_an_unfinished_and_a_damaged_run_are_told(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    about["config"]["train"]["steps"] += 1
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(UserError, match=r"is trained to step 4 of 5: train on"):
        load_tokenizer(run)
    (find_checkpoint(run) / "tokenizer.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="holds no readable tokenizer"):
        load_tokenizer(find_checkpoint(run))


def test_a_run_goes_on_with_its_own_tokenizer_and_data_alone(trained, store, latent_preset, tmp_path):
    store = shutil.copytree(store, tmp_path / "store")

    def learn(tokenizer):
        return train(store, latent_preset, SHORT, tmp_path / "run", tokenizer=tokenizer, progress=False)

    run = learn(trained)
    other = train(store, PRESET, dataclasses.replace(SHORT, seed=5), tmp_path / "other", progress=False)
    with pytest.raises(UserError, match=r"another configuration.*\n  origin\.tokenizer: "):
        learn(other)
    with Store.open(store, mode="a") as opened:
        before = len(opened)
        episode = fake_episode(opened.embodiment, steps=8, seed=99, task=opened.tasks[0], privileged=True)
        opened.append(dataclasses.replace(episode, instruction=opened.instructions[opened.tasks[0]]))
    with pytest.raises(UserError, match=rf"origin\.stores: \['{before} episodes, .* \['{before + 1} episodes"):
        learn(trained)
    policy = load_policy(run)
    with Store.open(store) as opened:  # grown, and still known
        learned = policy.learned[0].of(opened)
    assert 0 < len(learned) < before
    assert max(learned) < before
