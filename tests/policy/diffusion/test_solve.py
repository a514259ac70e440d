"""The sampler loop on Gaussian mixtures, where the exact answer is known."""

import itertools
from dataclasses import replace

import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.diffusion.path import PATHS
from foreact.policy.diffusion.solve import RULES, Schedule, evaluations, solve
from foreact.policy.diffusion.times import time_grid

ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "dpmpp_2m": 2}
STARTS = torch.tensor([[0.3], [-0.8], [1.1], [-1.7]], dtype=torch.float64)


def noise_like(x):
    """Fresh noise of each step, for rules that draw some; a segment's does not depend on who else is there."""

    def fresh(step):
        drawn = {}
        for name, value in x.items():
            generator = torch.Generator().manual_seed(1000 * step + len(name))
            drawn[name] = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        return drawn

    return fresh


def run(mixture, name, x, grid, rule):
    """Carry one segment along one grid."""
    paths = {"a": PATHS[name]}
    schedule = Schedule.along({"a": grid}, paths, rule)
    return solve(mixture.denoiser(paths), {"a": x}, schedule, fresh=noise_like({"a": x}))["a"]


def error(mixture, name, grid, rule):
    x = STARTS * PATHS[name].sigma(grid[0])
    exact = mixture.carry(PATHS[name], x, grid[0].item(), grid[-1].item())
    return (run(mixture, name, x, grid, rule) - exact).abs().max().item()


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("rule", ORDER)
def test_order_of_convergence(line, name, rule):
    """On a grid that is even in log-SNR and stops at σ_e = 0.02, before the step to 0."""
    grids = [time_grid("exponential", n, PATHS[name], sigma_min=0.02)[:-1] for n in (81, 161)]
    errors = [error(line, name, grid, rule) for grid in grids]
    assert errors[0] / errors[1] == pytest.approx(2 ** ORDER[rule], rel=0.15)


@pytest.mark.parametrize("rule", ["euler", "midpoint", "heun"])
def test_order_of_convergence_down_to_data(line, rule):
    errors = [error(line, "flow", time_grid("uniform", n, PATHS["flow"]), rule) for n in (80, 160)]
    assert errors[0] / errors[1] == pytest.approx(2 ** ORDER[rule], rel=0.15)


@pytest.mark.parametrize("name", ["ddpm_linear", "ddpm_cosine"])
@pytest.mark.parametrize("rule", ["midpoint", "heun"])
def test_order_where_sigma_is_a_square_root(line, name, rule):
    errors = [error(line, name, time_grid("uniform", n, PATHS[name]), rule) for n in (80, 160)]
    assert errors[0] / errors[1] > (3.5 if rule == "midpoint" else 2.5)


def test_measured_errors(line):
    """Weights 0.4 and 0.6, from x_1 = 0.3: errors that another implementation has after 10 to 160 steps."""
    table = {
        "euler": (1.5e-2, 7.5e-3, 3.8e-3, 1.9e-3, 9.6e-4),
        "midpoint": (1.3e-3, 2.6e-4, 5.8e-5, 1.4e-5, 3.3e-6),
    }
    mixture = replace(line, means=line.means[[0, 0, 1, 1, 1]])
    x = torch.tensor([[0.3]], dtype=torch.float64)
    exact = mixture.carry(PATHS["flow"], x, 1.0, 0.0)
    for rule, expected in table.items():
        for n, value in zip((10, 20, 40, 80, 160), expected, strict=True):
            found = run(mixture, "flow", x, time_grid("uniform", n, PATHS["flow"]), rule)
            assert (found - exact).abs().item() == pytest.approx(value, rel=0.05)


@pytest.mark.parametrize("name", PATHS)
def test_euler_is_ddim(plane, name):
    path, grid = PATHS[name], time_grid("uniform", 7, PATHS[name])
    x = torch.randn(5, 2, dtype=torch.float64)
    ours = run(plane, name, x, grid, "euler")
    for t, s in itertools.pairwise(grid):
        x0 = plane.x0(path, x, t.item())
        eps = (x - path.alpha(t) * x0) / path.sigma(t)
        x = path.alpha(s) * x0 + path.sigma(s) * eps
    assert torch.allclose(ours, x, atol=1e-12)


def test_euler_follows_the_velocity_on_the_linear_path(plane):
    grid, x = time_grid("uniform", 7, PATHS["flow"]), torch.randn(5, 2, dtype=torch.float64)
    ours = run(plane, "flow", x, grid, "euler")
    for t, s in itertools.pairwise(grid):
        x = x + (s - t) * (x - plane.x0(PATHS["flow"], x, t.item())) / t
    assert torch.allclose(ours, x, atol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_inversion_by_the_reversed_grid(line, name):
    """24 evaluations each way, there and back."""
    path, away = PATHS[name], {}
    data = line.means + torch.linspace(-0.3, 0.3, 7, dtype=torch.float64)
    data = data.reshape(-1, 1)
    for rule, n in (("euler", 24), ("midpoint", 12)):
        level = torch.linspace(0.02, 0.95, n + 1, dtype=torch.float64)
        up = path.time_at(level)
        noisy = run(line, name, data, up, rule)
        away[rule] = (run(line, name, noisy, up.flip(0), rule) - data).abs().mean().item()
    assert away["midpoint"] < 3e-3
    assert away["midpoint"] < away["euler"] / 10


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("rule", RULES)
def test_samples_have_the_distribution_of_the_data(line, name, rule):
    n, grid = 2000, time_grid("log_snr", 400 if rule == "ancestral" else 40, PATHS[name])
    eps = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    samples = run(line, name, PATHS[name].sigma(grid[0]) * eps, grid, rule)
    level = line.cdf(PATHS[name], samples.sort(dim=0).values, 0.0)[:, 0]
    limit = 0.05 if rule == "ancestral" else 0.03  # its samples are random, and 400 steps are few for it
    assert (level - (torch.arange(n) + 0.5) / n).abs().max() < limit  # Kolmogorov's distance


@pytest.mark.parametrize("rule", RULES)
def test_samples_in_the_plane(plane, rule):
    grid = time_grid("karras", {"euler": 80, "ancestral": 400}.get(rule, 30), PATHS["edm"])
    x = run(plane, "edm", PATHS["edm"].sigma(grid[0]) * torch.randn(4000, 2, dtype=torch.float64), grid, rule)
    near = torch.cdist(x, plane.means).argmin(1)
    for mode, mean in enumerate(plane.means):
        own = x[near == mode]
        assert len(own) / len(x) == pytest.approx(1 / 3, abs=0.05)
        assert torch.allclose(own.mean(0), mean, atol=0.05)
        assert torch.allclose(own.std(0), torch.tensor(plane.std, dtype=torch.float64), atol=0.03)


def several():
    """Three segments with their own paths and times; one stands still in noise, one clean."""
    n = 6
    grids = {
        "action": time_grid("uniform", n, PATHS["flow"]),
        "future": time_grid("karras", n, PATHS["ddpm_cosine"]),
        "noise": torch.ones(n + 1),
        "known": torch.zeros(n + 1),
    }
    paths = {name: PATHS["ddpm_cosine" if name == "future" else "flow"] for name in grids}
    return n, grids, paths, {name: torch.randn(3, 2, dtype=torch.float64) for name in grids}


@pytest.mark.parametrize("rule", RULES)
def test_segments_step_together_and_alone(plane, rule):
    n, grids, paths, x = several()
    seen = []

    def denoise(values, t, step):
        assert step == len(seen)
        seen.append(t)
        return plane.denoiser(paths)(values, t, step)

    schedule = Schedule.along(grids, paths, rule)
    together = solve(denoise, x, schedule, fresh=noise_like(x))
    assert tuple(seen) == schedule.times
    assert len(seen) == evaluations(rule, n)
    for name in ("noise", "known"):
        assert torch.equal(together[name], x[name])
    for name in ("action", "future"):
        one = {name: paths[name]}
        fresh = noise_like({name: x[name]})
        own = Schedule.along({name: grids[name]}, one, rule)
        alone = solve(plane.denoiser(one), {name: x[name]}, own, fresh=fresh)
        assert torch.equal(together[name], alone[name])
        assert together[name].isfinite().all()


def test_heun_where_one_segment_is_done_before_another(plane):
    grids = {"done": torch.tensor([0.6, 0.0, 0.0]), "later": torch.tensor([1.0, 0.5, 0.2])}
    paths = dict.fromkeys(grids, PATHS["flow"])
    x = {name: torch.randn(4, 2, dtype=torch.float64) for name in grids}
    schedule = Schedule.along(grids, paths, "heun")
    times = [row["later"] for row in schedule.times]
    assert times == pytest.approx([1.0, 0.75, 0.5, 0.2])
    both = solve(plane.denoiser(paths), x, schedule)
    done = run(plane, "flow", x["done"], grids["done"][:2], "midpoint")
    assert torch.equal(both["done"], done)
    assert both["later"].isfinite().all()


@pytest.mark.parametrize("rule", RULES)
def test_the_last_step_lands_on_the_estimate(rule):
    """A network that knows the answer gets it back, from pure noise (α = 0) to data (σ = 0), in float32."""
    answer = torch.randn(3, 4, 2)
    for name, path in PATHS.items():
        grid = {"a": time_grid("uniform", 5, path)}
        start = {"a": torch.randn(3, 4, 2)}
        schedule = Schedule.along(grid, {"a": path}, rule)
        x = solve(lambda x, t, step: {"a": answer}, start, schedule, fresh=noise_like(start))["a"]
        assert x.dtype == torch.float32, name
        assert torch.allclose(x, answer, atol=1e-5), name


def test_ancestral_needs_noise(line):
    path = {"a": PATHS["flow"]}
    grid = {"a": time_grid("uniform", 2, PATHS["flow"])}
    with pytest.raises(ValueError, match="pass fresh="):
        solve(line.denoiser(path), {"a": STARTS}, Schedule.along(grid, path, "ancestral"))


def test_callback_sees_every_step():
    seen = []
    path = {"a": PATHS["flow"]}
    grid = {"a": time_grid("uniform", 3, PATHS["flow"])}
    final = solve(
        lambda x, t, step: {"a": torch.zeros(2)}, {"a": torch.ones(2)}, Schedule.along(grid, path),
        callback=lambda step, x, x0: seen.append((step, x["a"], x0["a"])),
    )  # fmt: skip
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[-1][1], final["a"])
    assert torch.allclose(seen[0][1], torch.full((2,), 2 / 3))


def test_gradients_pass_through_the_loop(plane):
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    run(plane, "flow", x, time_grid("uniform", 3, PATHS["flow"]), "heun").sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_errors_name_what_is_wrong(plane):
    path, x = {"a": PATHS["flow"]}, {"a": torch.zeros(1, 2)}
    with pytest.raises(UserError, match=r"'rk4'.*dpmpp_2m, euler, heun, midpoint"):
        Schedule.along({"a": torch.tensor([1.0, 0.0])}, path, "rk4")
    with pytest.raises(UserError, match="leaves t = 0"):
        Schedule.along({"a": torch.tensor([0.0, 0.5])}, path)
    with pytest.raises(UserError, match="'a': 1"):
        Schedule.along({"a": torch.tensor([1.0])}, path)
    with pytest.raises(ValueError, match="segments differ"):
        solve(plane.denoiser(path), {"b": x["a"]}, Schedule.along({"a": torch.tensor([1.0, 0.0])}, path))
