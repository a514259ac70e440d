"""PAD's preset: its sizes, its variance, its poses."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.metaworld_tasks import EMBODIMENT
from foreact.policy import TrainConfig, load_policy, train
from foreact.policy.config import ModelConfig
from foreact.policy.diffusion.path import PATHS, noise
from foreact.policy.diffusion.solve import Schedule, solve
from foreact.policy.diffusion.times import time_grid
from foreact.policy.diffusion.variance import STEP, bound, log_variance, posterior
from foreact.policy.model import Model
from foreact.policy.settings import build
from foreact.policy.trainer import Trainer

from .test_config import FOLDER

SHORT = TrainConfig(
    steps=2, batch_size=3, warmup=1, held_out=0.3, log_every=1, val_every=2, save_every=2, precision="fp32",
    device="cpu",
)  # fmt: skip


PAPER = [("b", 2, 128), ("l", 2, 449), ("xl", 2, 661), ("xl", 4, 661), ("xl", 8, 661)]


@pytest.mark.parametrize(("size", "patch", "millions"), PAPER)
def test_parameters_are_within_three_percent_of_the_papers(size, patch, millions):
    config = build(ModelConfig, yaml.safe_load((FOLDER / "pad" / f"{size}.yaml").read_text(encoding="utf-8")))
    with torch.device("meta"):
        model = Model(dataclasses.replace(config, future_patch=patch), EMBODIMENT, 1)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    assert count == pytest.approx(millions, rel=0.03)
    assert model.segments["future"].tokens == (32 // patch) ** 2
    assert model.segments["action"].tokens == 1


class TestVariance:
    def test_posterior_is_that_of_the_ddpm_table(self):
        """β and β̃ of Ho et al. 2020, from its table of 1000 steps."""
        betas = np.linspace(1e-4, 0.02, 1000)
        kept = np.cumprod(1 - betas)
        t = torch.arange(2, 1001, dtype=torch.float64) / 1000
        beta, beta_tilde = posterior(PATHS["ddpm_linear"], t, t - STEP)
        np.testing.assert_allclose(beta, betas[1:], rtol=2e-4)
        np.testing.assert_allclose(beta_tilde, betas[1:] * (1 - kept[:-1]) / (1 - kept[1:]), rtol=2e-4)

    def test_the_bound_is_the_divergence_of_two_gaussians(self):
        path = PATHS["ddpm_linear"]
        x0, found, raw = (torch.randn(4, 2, 3, 5) for _ in range(3))
        t = torch.rand(4, 2) * 0.9 + 0.1
        beta, beta_tilde = posterior(path, t.double(), t.double() - STEP)
        wide = (4, 2, 1, 1)
        scale = path.alpha(t.double() - STEP) * beta / path.sigma(t.double()) ** 2
        std = (0.5 * log_variance((raw.double() + 1) / 2, beta.view(wide), beta_tilde.view(wide))).exp()
        normal = torch.distributions.Normal
        truth = torch.distributions.kl_divergence(
            normal(scale.view(wide) * x0.double(), beta_tilde.sqrt().view(wide).expand(x0.shape)),
            normal(scale.view(wide) * found.double(), std),
        ) / np.log(2)
        torch.testing.assert_close(bound(path, x0, found, raw, t).double(), truth, rtol=1e-4, atol=1e-6)

    def test_it_moves_the_variance_and_not_the_mean(self):
        found, raw = torch.randn(2, 1, 3, 4, requires_grad=True), torch.zeros(2, 1, 3, 4, requires_grad=True)
        bound(PATHS["ddpm_linear"], torch.randn(2, 1, 3, 4), found, raw, torch.full((2, 1), 0.5)).sum().backward()
        assert found.grad is None
        assert raw.grad is not None
        assert raw.grad.abs().sum() > 0

    def test_it_is_least_at_the_true_spread(self):
        """The best x̂0 of a Gaussian is wrong by a known amount, and the bound finds the variance to match."""
        path, t = PATHS["ddpm_linear"], torch.full((20000, 1), 0.02)
        x0 = torch.randn(20000, 1, 1, 1)
        x = noise(path, x0, torch.randn_like(x0), t)
        a, s = path.alpha(t[0]).item(), path.sigma(t[0]).item()
        found = x * a / (a * a + s * s)
        values = [bound(path, x0, found, torch.full_like(x0, raw), t).mean().item() for raw in (-1, -0.5, 0, 0.5, 1)]
        assert values.index(min(values)) not in (0,)

    @pytest.mark.parametrize("share", [None, 0.0, 1.0])
    def test_ancestral_steps_keep_the_variance_of_a_gaussian(self, share):
        """x0 ~ N(0, 1) on a variance-preserving path: x̂0 = α x, and every x_t has variance 1."""
        path, grid = PATHS["ddpm_linear"], time_grid("uniform", 200, PATHS["ddpm_linear"])
        generator = torch.Generator().manual_seed(0)

        def denoise(x, t, step):
            found = {"x": x["x"] * float(path.alpha(torch.tensor(t["x"], dtype=torch.float64)))}
            return found if share is None else found | {"x/share": torch.full_like(x["x"], share)}

        def fresh(step):
            return {"x": torch.randn(20000, 1, generator=generator)}

        start = torch.randn(20000, 1, generator=generator)
        schedule = Schedule.along({"x": grid}, {"x": path}, "ancestral")
        end = solve(denoise, {"x": start}, schedule, fresh=fresh)["x"]
        # For unit Gaussians β is the exact variance; β̃ leaves the samples narrower, and by little with many steps.
        expected = 1.0 if share == 1.0 else 0.93
        assert float(end.std()) == pytest.approx(expected, abs=0.08)


@pytest.fixture
def pad(preset):
    config = build(ModelConfig, yaml.safe_load((FOLDER / "pad" / "tiny.yaml").read_text(encoding="utf-8")))
    return dataclasses.replace(
        config, backbone=dataclasses.replace(preset.backbone, positions="sincos"), pixels=32, instruction="table",
        future=(2, 4), horizon=2, solver=dataclasses.replace(config.solver, steps=4),
    )  # fmt: skip


def test_trains_and_tells_poses(store, pad, tmp_path):
    policy = load_policy(train(store, pad, SHORT, tmp_path / "run", progress=False), "cpu")
    assert policy.poses
    with Store.open(store) as opened:
        episode = opened.episode(0)
    seen = {"images": {c: v[:1] for c, v in episode.images.items()}, "state": episode.state[:1]}
    for rule in ("euler", "ancestral"):
        policy.config = dataclasses.replace(pad, solver=dataclasses.replace(pad.solver, rule=rule))
        poses = policy.act([seen], ["go left"], [(0, 0, 0)])
        assert poses.shape == (1, 2, 3)  # foreseen steps, state
        assert np.array_equal(poses, policy.act([seen], ["go left"], [(0, 0, 0)]))
        assert not np.array_equal(poses, policy.act([seen], ["go left"], [(0, 0, 8)]))


def test_noise_that_cannot_pass_is_told(store, pad, caplog):
    Trainer(store, pad, SHORT)
    assert "stays in samples" not in caplog.text
    eps = dataclasses.replace(pad, future_process=dataclasses.replace(pad.future_process, target="eps"))
    Trainer(store, eps, SHORT)
    assert f"predicts eps of {eps.future_patch**2 * 6} numbers a token of future" in caplog.text


def test_targets_begin_one_stride_ahead(store, pad):
    trainer = Trainer(store, pad, SHORT)
    with Store.open(store) as opened:
        state = torch.from_numpy(opened.read("state"))
    batch = trainer.held_out.batch(np.array([0]))
    row = int(trainer.held_out.rows[0])
    assert batch.future_state is not None
    assert torch.equal(batch.future_state[0], state[[row + 2, row + 4]])


def test_raw_actions_need_no_planner(store, pad, tmp_path):
    raw = dataclasses.replace(pad, poses=False, horizon=6, n_action_steps=3)
    policy = load_policy(train(store, raw, SHORT, tmp_path / "run", progress=False), "cpu")
    assert not policy.poses
    assert policy.model.segments["action"].width == 6 * 4


def test_clear_errors(store, pad, tmp_path):
    with pytest.raises(UserError, match="horizon 5 must be 2, the number of future frames"):
        dataclasses.replace(pad, horizon=5)
    with pytest.raises(UserError, match="layout 'stacked' has none"):
        train(store, pad, dataclasses.replace(SHORT, align=0.5), tmp_path / "x", progress=False)
