"""The solvers against the schedulers of diffusers, with the same analytic network."""

import pytest
import torch
from foreact.policy.diffusion.path import PATHS, SIGMA_DATA, estimate, input_scale, target
from foreact.policy.diffusion.solve import Schedule, solve
from foreact.policy.diffusion.times import time_grid

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # NumPy 2

NOISE = torch.randn(16, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
SCHEDULES = {"ddpm_linear": "linear", "ddpm_cosine": "squaredcos_cap_v2"}


def ours(mixture, name, x, grid, rule):
    paths = {"a": PATHS[name]}
    return solve(mixture.denoiser(paths), {"a": x}, Schedule.along({"a": grid}, paths, rule))["a"]


def close(a, b, tolerance=1e-5):
    assert (a - b).abs().max() < tolerance * b.abs().max()


@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize(("name", "schedule"), SCHEDULES.items())
@pytest.mark.parametrize(("kind", "rule"), [("DDIM", "euler"), ("DPMSolverMultistep", "dpmpp_2m")])
def test_ddpm_schedulers(diffusers, plane, kind, rule, name, schedule, n):
    """A schedule of 1000 steps, of which step i is our t = (i + 1)/1000."""
    settings = {"clip_sample": False} if kind == "DDIM" else {"final_sigmas_type": "zero"}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(
        1000, beta_start=1e-4, beta_end=0.02, beta_schedule=schedule,
        prediction_type="sample", timestep_spacing="trailing", **settings,
    )  # fmt: skip
    scheduler.set_timesteps(n)
    steps = scheduler.timesteps
    theirs = NOISE
    for step in steps:
        x0 = plane.x0(PATHS[name], theirs, (step.item() + 1) / 1000)
        theirs = scheduler.step(x0, step, theirs).prev_sample
    grid = torch.cat([(steps.double() + 1) / 1000, torch.zeros(1)])
    close(ours(plane, name, NOISE, grid, rule), theirs, 2e-4 if name == "ddpm_cosine" else 1e-5)


def test_flow_match_euler(diffusers, plane):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(12)
    theirs = NOISE
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        x0 = plane.x0(PATHS["flow"], theirs, sigma)
        velocity = target("velocity", PATHS["flow"], x0, (theirs - (1 - sigma) * x0) / sigma, sigma)
        theirs = scheduler.step(velocity, t, theirs).prev_sample
    close(ours(plane, "flow", NOISE, scheduler.sigmas.double(), "euler"), theirs)


def test_dpm_solver_on_the_linear_path(diffusers, plane):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(20)
    theirs = NOISE
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        velocity = (theirs - plane.x0(PATHS["flow"], theirs, sigma)) / sigma
        theirs = scheduler.step(velocity, t, theirs).prev_sample
    close(ours(plane, "flow", NOISE, scheduler.sigmas.double(), "dpmpp_2m"), theirs)


@pytest.mark.parametrize("grid", ["karras", "exponential"])
@pytest.mark.parametrize(("kind", "rule"), [("EDMEuler", "euler"), ("EDMDPMSolverMultistep", "dpmpp_2m")])
def test_edm_schedulers(diffusers, plane, kind, rule, grid):
    """In EDM's own scaling, x_σ = (1 + σ_e) x_t, and through its preconditioned prediction F."""
    n, path = 18, PATHS["edm"]
    scheduler = getattr(diffusers, f"{kind}Scheduler")(sigma_data=SIGMA_DATA, sigma_schedule=grid)
    scheduler.set_timesteps(n)
    times = time_grid(grid, n, path)
    assert torch.allclose((times / (1 - times)).float(), scheduler.sigmas, rtol=1e-5)

    def network(x_t, t):
        """F of a network whose x̂0 is the mixture's."""
        x0 = plane.x0(path, x_t, t)
        return target("edm", path, x0, (x_t - (1 - t) * x0) / t, t)

    theirs = 80 * NOISE
    for step, sigma in zip(scheduler.timesteps, scheduler.sigmas.double().tolist(), strict=False):
        x_t, t = theirs / (1 + sigma), sigma / (1 + sigma)
        fed = scheduler.scale_model_input(theirs, step)
        assert torch.allclose(fed, input_scale("edm", path, t) * x_t, rtol=1e-5)
        theirs = scheduler.step(network(x_t, t), step, theirs).prev_sample

    def denoise(x, t, step):
        return {"a": estimate("edm", path, x["a"], network(x["a"], t["a"]), t["a"])[0]}

    x = {"a": path.sigma(times[0]) * NOISE}
    close(solve(denoise, x, Schedule.along({"a": times}, {"a": path}, rule))["a"], theirs)
