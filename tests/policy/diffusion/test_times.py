"""Laws of training times, and acting grids."""

import math

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.diffusion.path import PATHS, SIGMA_DATA
from foreact.policy.diffusion.times import GRIDS, TIMES, sample_times, time_grid
from hypothesis import given, settings
from hypothesis import strategies as st

N = 40_000


def draw(kind: str, shape=(N,), seed: int = 0, **options):
    return sample_times(kind, shape, torch.Generator().manual_seed(seed), **options)


def log_sigma(t: torch.Tensor) -> torch.Tensor:
    return torch.logit(t.double())


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("kind", TIMES)
def test_a_draw_depends_on_its_generator_alone(kind, stratified):
    first = draw(kind, (5, 3), stratified=stratified)
    torch.rand(7)
    again, other = draw(kind, (5, 3), stratified=stratified), draw(kind, (5, 3), 1, stratified=stratified)
    assert first.shape == (5, 3)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", TIMES)
def test_times_are_in_the_unit_interval(kind):
    t = draw(kind)
    assert t.isfinite().all()
    assert 0 <= t.min() < t.max() <= 1


@pytest.mark.parametrize("kind", TIMES)
def test_strata_keep_the_law_and_fill_every_slice(kind):
    plain, even = draw(kind).sort().values, draw(kind, stratified=True).sort().values
    assert (plain - even).abs().max() < 0.03
    n = 64
    u = draw("uniform", (n,), stratified=True)
    assert torch.equal((u.sort().values * n).floor(), torch.arange(n).float())
    assert not torch.equal(u, u.sort().values)


def test_moments_of_the_laws():
    assert draw("uniform", stratified=True).mean().item() == pytest.approx(0.5, abs=1e-3)
    normal = log_sigma(draw("logit_normal", stratified=True, loc=0.4, scale=0.7))
    assert (normal.mean().item(), normal.std().item()) == pytest.approx((0.4, 0.7), abs=2e-3)
    beta = draw("beta", stratified=True)  # the mean of Beta(1.5, 1) is 0.6
    assert beta.mean().item() == pytest.approx(0.001 + 0.999 * 0.6, abs=1e-3)
    assert beta.min() >= 0.001
    karras = log_sigma(draw("edm_lognormal", stratified=True))
    assert (karras.mean().item(), karras.std().item()) == pytest.approx((-1.2, 1.2), abs=5e-3)
    mode = log_sigma(draw("log_logistic", stratified=True))
    spread = 0.5 * math.pi / math.sqrt(3)  # of a logistic of scale 0.5
    assert (mode.mean().item(), mode.std().item()) == pytest.approx((math.log(SIGMA_DATA), spread), abs=5e-3)


def test_laws_of_sigma_are_truncated():
    for kind in ("log_logistic", "edm_lognormal"):
        sigma = log_sigma(draw(kind, scale=3.0, sigma_min=0.01, sigma_max=5.0)).exp()
        assert 0.01 * (1 - 1e-5) <= sigma.min() < 0.02
        assert 3 < sigma.max() <= 5 * (1 + 1e-5)


def test_unknown_names_list_the_choices():
    with pytest.raises(UserError, match=r"'gauss'.*beta, edm_lognormal, log_logistic, logit_normal, uniform"):
        draw("gauss")
    with pytest.raises(UserError, match=r"'cosine'.*exponential, karras, log_snr, uniform"):
        time_grid("cosine", 5, PATHS["flow"])
    with pytest.raises(UserError, match="at least 1 step, not 0"):
        time_grid("uniform", 0, PATHS["flow"])


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("kind", GRIDS)
@settings(max_examples=10)
@given(n=st.integers(1, 100))
def test_grids_fall_to_zero(kind, name, n):
    grid = time_grid(kind, n, PATHS[name])
    assert grid.dtype == torch.float64
    assert len(grid) == n + 1
    assert grid[-1] == 0
    assert grid[0] <= PATHS[name].t_max
    assert (grid.diff() < 0).all()


def sigmas(kind: str, n: int, name: str, **options):
    t = time_grid(kind, n, PATHS[name], **options)
    return (PATHS[name].sigma(t) / PATHS[name].alpha(t))[:-1]


@pytest.mark.parametrize("name", PATHS)
def test_grids_in_sigma(name):
    root = sigmas("karras", 10, name, rho=5.0) ** (1 / 5)
    assert torch.allclose(root.diff(), root.diff().mean().expand(9), rtol=1e-6)
    least = 0.001 if name == "edm_mode" else 0.002
    for kind, last in (("exponential", least), ("log_snr", 80 * (least / 80) ** 0.9)):
        scale = sigmas(kind, 10, name)
        assert torch.allclose(scale.log().diff(), scale.log().diff().mean().expand(9), rtol=1e-6)
        assert (scale[0].item(), scale[-1].item()) == pytest.approx((80, last), rel=1e-6)
    assert sigmas("karras", 4, name, sigma_max=1.0)[0].item() == pytest.approx(1)  # MoDE acts with small scales


def test_uniform_grid():
    assert time_grid("uniform", 4, PATHS["flow"]).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert time_grid("uniform", 2, PATHS["flow"], t_max=0.5).tolist() == [0.5, 0.25, 0]
    assert time_grid("uniform", 2, PATHS["edm"])[0].item() == 80 / 81
