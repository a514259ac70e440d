"""Identities of paths and targets: exact inverses, ends, and the tables they come from."""

import math

import numpy as np
import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.diffusion.path import (
    PATHS,
    SIGMA_DATA,
    TARGETS,
    estimate,
    expand,
    input_scale,
    noise,
    target,
    x0_weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st

EVERY = [(kind, name) for kind in TARGETS for name in PATHS]
TIMES = st.floats(0, 1, width=32)


def singular(kind: str, name: str, t: float) -> str | None:
    """Which of x0 and ε cannot be known from the target at t."""
    if kind == "x0" and t == 0:
        return "eps"
    return "x0" if kind == "eps" and t == 1 and name in ("flow", "edm", "edm_mode") else None


def pair(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(4, 3, 2, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


@pytest.mark.parametrize(("kind", "name"), EVERY)
@settings(max_examples=50)
@given(t=TIMES)
def test_estimate_inverts_target(kind, name, t):
    x0, eps = pair()
    path = PATHS[name]
    found = estimate(kind, path, noise(path, x0, eps, t), target(kind, path, x0, eps, t), t)
    lost = singular(kind, name, t)
    for label, value, truth in zip(("x0", "eps"), found, (x0, eps), strict=True):
        if label == lost:
            assert torch.equal(value, torch.zeros_like(value))
        else:
            # A quantity that has a share α or σ of x_t loses that many digits.
            share = {"x0": path.alpha, "eps": path.sigma}[label](torch.tensor(t, dtype=torch.float64)).item()
            exact = kind in ("v", "edm", label)
            tolerance = 1e-13 if exact else 1e-12 / max(share, 1e-300) + 1e-10
            assert (value - truth).abs().max() <= tolerance


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", PATHS)
@given(t=st.floats(0, 1))
@settings(max_examples=10)
def test_x0_weights_are_the_estimate_in_numbers(kind, name, t):
    x, prediction = torch.randn(2, 3, dtype=torch.float64)
    kept, new = x0_weights(kind, PATHS[name], t)
    torch.testing.assert_close(kept * x + new * prediction, estimate(kind, PATHS[name], x, prediction, t)[0])


@pytest.mark.parametrize(("kind", "name"), EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_everything_is_finite_at_both_ends(kind, name, dtype):
    x0, eps = pair(dtype)
    path = PATHS[name]
    ends = torch.tensor([0.0, 1.0, 0.5, 1e-30])
    for t in (0.0, 1e-8, 1 - 1e-7, 1.0, ends, ends.bfloat16()):
        x_t, aim = noise(path, x0, eps, t), target(kind, path, x0, eps, t)
        values = [x_t, aim, *estimate(kind, path, x_t, aim, t), torch.as_tensor(input_scale(kind, path, t))]
        assert all(v.isfinite().all() for v in values)
        assert all(v.dtype == dtype for v in values[:-1])


@pytest.mark.parametrize("name", PATHS)
def test_ends_of_a_path(name):
    path, (x0, eps) = PATHS[name], pair()
    assert torch.equal(noise(path, x0, eps, 0.0), x0)
    assert (noise(path, x0, eps, 1.0) - eps).abs().max() < 0.02  # DDPM's linear table keeps α = 0.006
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    log_snr = 2 * (path.alpha(t).log() - path.sigma(t).log())
    assert log_snr[0] == math.inf
    assert not log_snr.isnan().any()
    assert (log_snr.diff() < 0).all()


@pytest.mark.parametrize("name", ["ddpm_linear", "ddpm_cosine"])
def test_variance_is_preserved(name):
    t, path = torch.linspace(0, 1, 101, dtype=torch.float64), PATHS[name]
    total = path.alpha(t) ** 2 + path.sigma(t) ** 2
    assert (total - 1).abs().max() < 1e-8  # 2.4e-9 is DDPM's cap on the last cosine β


@pytest.mark.parametrize("name", PATHS)
def test_rates_are_the_derivatives(name):
    path, h = PATHS[name], 1e-6
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    for rate, curve in zip(path.rates(t), (path.alpha, path.sigma), strict=True):
        assert torch.allclose(rate, (curve(t + h) - curve(t - h)) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", PATHS)
def test_time_at_inverts_level(name):
    path = PATHS[name]
    t = torch.cat([torch.logspace(-6, -1, 50), torch.linspace(0.1, 0.999, 50)]).double()
    assert torch.allclose(path.time_at(path.level(t)), t, rtol=1e-9, atol=1e-12)
    assert path.time_at(torch.zeros(1, dtype=torch.float64)).item() == 0


def test_velocity_on_the_linear_path():
    x0, eps = pair()
    assert torch.equal(target("velocity", PATHS["flow"], x0, eps, 0.3), eps - x0)


@pytest.mark.parametrize("name", PATHS)
def test_float32_agrees_with_float64(name):
    t = torch.cat([torch.logspace(-8, -1, 50), 1 - torch.logspace(-6, -1, 50), torch.tensor([0.0, 1.0])])
    for curve in (PATHS[name].alpha, PATHS[name].sigma):
        assert torch.allclose(curve(t).double(), curve(t.double()), rtol=2e-5, atol=1e-12)


@given(sigma=st.floats(1e-3, 80), seed=st.integers(0, 9))
def test_edm_target_is_the_preconditioning_of_karras(sigma, seed):
    """Table 1 of Karras et al. 2022, written as it stands there."""
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    total = sigma**2 + SIGMA_DATA**2
    c_skip, c_out, c_in = SIGMA_DATA**2 / total, sigma * SIGMA_DATA / math.sqrt(total), 1 / math.sqrt(total)
    x_sigma, path, t = x0 + sigma * eps, PATHS["edm"], sigma / (1 + sigma)
    x_t = noise(path, x0, eps, t)
    assert torch.allclose(x_t, x_sigma / (1 + sigma), rtol=1e-12)
    aim = target("edm", path, x0, eps, t)
    assert torch.allclose(aim, (x0 - c_skip * x_sigma) / c_out, rtol=1e-7, atol=1e-9)
    assert torch.allclose(input_scale("edm", path, t) * x_t, c_in * x_sigma, rtol=1e-12)
    prediction = torch.randn(5, generator=generator, dtype=torch.float64)
    x0_hat = estimate("edm", path, x_t, prediction, t)[0]
    assert torch.allclose(x0_hat, c_skip * x_sigma + c_out * prediction, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_edm_inputs_and_targets_have_unit_variance(name):
    generator = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(200_000, generator=generator) for _ in range(2))
    for t in (0.02, 0.4, 0.9):
        aim = target("edm", PATHS[name], SIGMA_DATA * x0, eps, t)
        fed = input_scale("edm", PATHS[name], t) * noise(PATHS[name], SIGMA_DATA * x0, eps, t)
        assert aim.std().item() == pytest.approx(1, abs=0.01)
        assert fed.std().item() == pytest.approx(1, abs=0.01)


def test_input_scale_of_other_targets_is_one():
    t = torch.rand(3, 2)
    assert torch.equal(input_scale("v", PATHS["flow"], t), torch.ones(3, 2))
    assert input_scale("velocity", PATHS["flow"], 0.5) == 1
    assert input_scale("edm", PATHS["flow"], t).shape == t.shape


def test_ddpm_tables():
    step = torch.arange(1, 1001, dtype=torch.float64) / 1000
    linear = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert np.allclose(PATHS["ddpm_linear"].alpha(step).numpy() ** 2, linear, rtol=1e-9)
    bar = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    cosine = np.cumprod(1 - np.minimum(1 - bar[1:] / bar[:-1], 0.999))
    assert np.allclose(PATHS["ddpm_cosine"].alpha(step).numpy() ** 2, cosine, rtol=1e-9)


SCHEDULES = {"ddpm_linear": "linear", "ddpm_cosine": "squaredcos_cap_v2"}


@pytest.mark.parametrize(("name", "schedule"), SCHEDULES.items())
def test_ddpm_tables_of_diffusers(diffusers, name, schedule):
    scheduler = diffusers.DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule=schedule)
    step = torch.arange(1, 1001, dtype=torch.float64) / 1000
    theirs = scheduler.alphas_cumprod.double()
    assert torch.allclose(PATHS[name].alpha(step) ** 2, theirs, rtol=2e-4, atol=1e-7)


def test_times_may_be_a_number_per_sample_or_per_token():
    x0, eps = pair()
    path = PATHS["ddpm_cosine"]
    per_token = torch.rand(4, 3, dtype=torch.float64)
    whole = noise(path, x0, eps, per_token)
    for b in range(4):
        for token in range(3):
            alone = noise(path, x0[b, token], eps[b, token], per_token[b, token].item())
            assert torch.allclose(whole[b, token], alone, atol=1e-15)
    assert torch.equal(noise(path, x0, eps, per_token[:, 0])[1], noise(path, x0[1], eps[1], per_token[1, 0]))
    assert expand(0.5, x0).shape == (1, 1, 1)
    assert expand(torch.zeros(4, dtype=torch.bfloat16), x0).dtype == torch.float32
    with pytest.raises(ValueError, match=r"\(3,\).*\(4, 3, 2\)"):
        expand(torch.zeros(3), x0)


def test_observed_tokens_stay_clean():
    x0, eps = pair(torch.float32)
    t = torch.full((4, 3), 0.7)
    t[:, 0] = 0
    assert torch.equal(noise(PATHS["flow"], x0, eps, t)[:, 0], x0[:, 0])


def test_unknown_target_lists_the_choices():
    x0, eps = pair()
    with pytest.raises(UserError, match=r"'noise'.*edm, eps, v, velocity, x0"):
        target("noise", PATHS["flow"], x0, eps, 0.5)


@pytest.mark.parametrize(("name", "least"), [("edm", 0.002), ("edm_mode", 0.001)])
def test_clamp_keeps_the_trained_range(name, least):
    ends = PATHS[name].clamp(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (ends / (1 - ends)).tolist() == pytest.approx([least, 80])
