"""The step plan: kept while nothing changes, made anew when something does, refused on another grid.

That it gives the numbers of the plain path is tested with every query, in test_queries.py.
"""

import dataclasses

import numpy as np
import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.diffusion.config import SolverConfig
from foreact.policy.inputs import unbatched
from foreact.policy.nn.timed import Timed
from foreact.policy.plan import StepPlan

from .fakes import batch_of


@pytest.fixture
def policy(make_policy, preset):
    return make_policy(preset)


@pytest.fixture
def seen(policy):
    return unbatched(batch_of(policy, 2))


@pytest.fixture
def made(monkeypatch):
    """The plans that were made, in order."""
    plans, make = [], StepPlan.make

    def noted(*args):
        plans.append(make(*args))
        return plans[-1]

    monkeypatch.setattr(StepPlan, "make", noted)
    return plans


def act(policy, seen, *, words: str = "go left", plan: bool = True, steps: int = 4) -> np.ndarray:
    policy.config = dataclasses.replace(policy.config, solver=SolverConfig(steps=steps, plan=plan))
    return policy.act(seen, [words] * len(seen), [(0, i) for i in range(len(seen))])


def test_one_plan_serves_every_control_step_batch_and_instruction(policy, seen, made):
    for words in ("go left", "go right"):
        act(policy, seen, words=words)
        act(policy, seen[:1], words=words)
    assert len(made) == 1
    assert [timed.rows.shape[:2] for timed in made[0].steps] == [(1, 1)] * 4
    assert made[0].nbytes == 4 * made[0].steps[0].rows.nbytes


def test_it_is_made_anew_for_another_grid(policy, seen, made):
    act(policy, seen)
    act(policy, seen, steps=5)
    assert [len(plan.times) for plan in made] == [4, 5]


def test_it_is_made_anew_when_the_weights_change(policy, seen, made):
    """Rollouts during a training act with averaged weights, which are copied into the same tensors."""
    before = act(policy, seen)
    with torch.no_grad():
        policy.model.backbone.to_modulation.weight.copy_(policy.model.backbone.to_modulation.weight * 1.5)
    after = act(policy, seen)
    assert len(made) == 2
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, act(policy, seen, plan=False), atol=1e-5)


def test_where_the_instruction_joins_the_time_it_is_made_for_the_instruction(make_policy, preset, seen, made):
    backbone = dataclasses.replace(preset.backbone, positions="sincos")
    pad = dataclasses.replace(preset, layout="stacked", draws={"joint": 1}, backbone=backbone)
    policy = make_policy(pad)
    left, right = (act(policy, seen, words=words) for words in ("go left", "go right"))
    act(policy, seen, words="go right")
    assert len(made) == 2
    assert made[0].steps[0].rows.shape[0] == 2  # a row for each sample: each has its instruction
    assert not np.allclose(left, right)


@pytest.mark.parametrize(("step", "t"), [(0, 0.9), (1, 1.0), (2, 0.5), (7, 0.1)])
def test_a_plan_for_another_grid_is_refused(step, t):
    plan = StepPlan([{"action": 1.0}, {"action": 0.5}], [Timed(torch.zeros(1, 1, 1, 4, 8))] * 2, ())
    with pytest.raises(UserError, match=f"another grid: evaluation {step} is at .*{t}.*planned"):
        plan.at(step, {"action": t})
    assert plan.at(1, {"action": 0.5}) is plan.steps[1]


def test_plans_keep_one_of_each_query(policy, seen, made):
    keys = [(0, i) for i in range(len(seen))]
    for _ in range(2):
        policy.act(seen, ["go left"] * 2, keys)
        policy.imagine(seen, ["go left"] * 2, keys)
    assert len(made) == 2
