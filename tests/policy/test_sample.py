"""When each segment is denoised, and with what weight: the same in training and in sampling."""

import dataclasses

import pytest
import torch
from foreact.policy.diffusion.config import SolverConfig
from foreact.policy.diffusion.path import PATHS
from foreact.policy.diffusion.times import time_grid
from foreact.policy.sample import Network, solver_grid

from .fakes import batch_of, losses


def test_shared_times_are_shared(make_policy, preset, monkeypatch):
    for times in ("shared", "independent"):
        policy = make_policy(dataclasses.replace(preset, times=times, draws={"joint": 1}))
        drawn, real = [], policy.model.denoise

        def spy(segments, encoding, drawn=drawn, real=real, **training):
            drawn.append({name: s.t for name, s in segments.items()})
            return real(segments, encoding, **training)

        monkeypatch.setattr(policy.model, "denoise", spy)
        losses(policy, batch_of(policy))
        assert torch.equal(drawn[0]["action"], drawn[0]["future"]) == (times == "shared")


def test_shared_times_are_sampled_as_they_were_trained(make_policy, preset):
    """All segments reach data on one grid, whatever the end that frames of their own times would have."""
    for times in ("shared", "independent"):
        policy = make_policy(dataclasses.replace(preset, times=times))
        ends = Network(policy.model, preset.solver).schedule(["action", "future"]).times[-1]
        assert (ends["action"] == ends["future"]) == (times == "shared")
        assert policy.config.process("future").target == preset.future_process.target


def test_weights_rise_over_the_ramp(make_policy, preset):
    process = dataclasses.replace(preset.action_process, weight=2.0, ramp=10)
    policy = make_policy(dataclasses.replace(preset, action_process=process, draws={"policy": 1}))
    batch = batch_of(policy)
    parts = [losses(policy, batch, step=step) for step in (0, 5, 10, 50)]
    base = parts[0].parts["action"]
    for found, weight in zip(parts, (0, 1, 2, 2), strict=True):
        torch.testing.assert_close(found.total, weight * base)


@pytest.mark.parametrize("path", PATHS)
def test_sampling_may_end_before_times_that_training_hardly_saw(path):
    solver, path = SolverConfig(steps=5), PATHS[path]
    plain, early = (solver_grid(solver.grid, solver.steps, path, least) for least in (0.0, 0.5))
    torch.testing.assert_close(plain, time_grid("uniform", 5, path))
    assert early[0] == plain[0]
    assert early[-1] == 0
    assert 0.5 < early[-2] < 0.7
    assert (early.diff() < 0).all()
