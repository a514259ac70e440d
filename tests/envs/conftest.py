"""Helpers of the environment tests."""

import pytest
from foreact import envs

# Metaworld: plain; a joint moved after the last forward pass; a goal fixed to a body. Of the other suites what is
# quickest to make. The others run with `-m slow`.
QUICK = ("button-press-v3", "window-close-v3", "basketball-v3", "pusht-v0", "fetch-push-v4", "cube-single-v0")


def pytest_generate_tests(metafunc):
    """`every_env`: the id of each registered task, so that a new environment is tested without being told.

    Those in QUICK run always, the others are marked slow.
    """
    if "every_env" in metafunc.fixturenames:
        ids = {task_id: envs.task(task_id).name for task_id in envs.tasks()}
        marks = {task_id: () if name in QUICK else pytest.mark.slow for task_id, name in ids.items()}
        parameters = [pytest.param(task_id, id=name, marks=marks[task_id]) for task_id, name in ids.items()]
        metafunc.parametrize("every_env", parameters, scope="module")


@pytest.fixture
def make():
    """`envs.make`, closed after the test."""
    made = []

    def _make(name, **kwargs):
        made.append(envs.make(name, **kwargs))
        return made[-1]

    yield _make
    for env in made:
        env.close()


def succeeds(env, seed: int, act) -> bool:
    """Does an episode of act(env) → action succeed within its steps?"""
    env.reset(seed=seed)
    success = truncated = False
    while not (success or truncated):
        _, success, truncated = env.advance(act(env))
    return success
