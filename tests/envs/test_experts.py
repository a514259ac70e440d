"""Experts do their tasks and random motion does not, in the suites whose experts are not the simulator's own tests'."""

import numpy as np
import pytest
from foreact import envs
from foreact.eval.reports.metrics import wilson

from .conftest import succeeds

pytestmark = pytest.mark.sim

LEAST = {"aloha": 90, "fetch": 95, "ogbench": 95, "pusht": 80}  # of 100 seeds
QUICK = ("pusht-v0", "fetch-reach-v4", "fetch-push-v4", "fetch-pick-and-place-v4")
ROBOTS = [task_id for suite in LEAST for task_id in envs.tasks(suite)]


def test_every_suite_is_tested():
    assert {*LEAST, "metaworld"} == set(envs.SUITES)  # Metaworld's experts: test_metaworld.py


def successes(env, seeds, act) -> int:
    return sum(succeeds(env, seed, act) for seed in seeds)


def expert(env) -> np.ndarray:
    return env.expert_action()


def random(seed: int):
    """Uniform actions, the same at each call with that seed."""
    rng = np.random.default_rng(seed)
    return lambda env: rng.uniform(env.embodiment.action_low, env.embodiment.action_high)


def some(names, quick):
    marks = {name: () if name.split("/")[1] in quick else pytest.mark.slow for name in names}
    return pytest.mark.parametrize("name", [pytest.param(n, id=n.split("/")[1], marks=marks[n]) for n in names])


@some(ROBOTS, QUICK)
def test_the_expert_succeeds_where_random_motion_fails(name, make):
    env = make(name, cameras=())
    assert successes(env, range(1000, 1003), expert) >= 2
    assert successes(env, range(1000, 1002), random(0)) == 0


@pytest.mark.slow
@some(ROBOTS, [n.split("/")[1] for n in ROBOTS])
def test_a_hundred_seeds(name, make):
    env = make(name, cameras=())
    done = successes(env, range(1000, 1100), expert)
    assert done >= LEAST[name.split("/")[0]], f"{done} of 100, {wilson(done, 100)}"
    assert successes(env, range(1000, 1100), random(0)) <= 5


@some(ROBOTS, ())
def test_asking_the_expert_changes_nothing(name, make):
    """Neither the episode nor the expert's next answer: it may be asked beside another driver, once or often."""
    env = make(name, cameras=())
    rng = np.random.default_rng(3)
    actions = rng.uniform(env.embodiment.action_low, env.embodiment.action_high, (20, env.embodiment.action_dim))

    def drive(times: int) -> list[np.ndarray]:
        env.reset(seed=5)
        seen = []
        for action in actions:
            answers = [env.expert_action() for _ in range(times)]
            assert all(np.array_equal(answers[0], answer) for answer in answers)
            env.advance(action)
            seen.append(env.privileged())
        return seen

    assert np.array_equal(drive(0), drive(3))
