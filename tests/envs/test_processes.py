"""An episode is the same in any process, whatever went before it there."""

import hashlib
import os
import subprocess
import sys

import pytest
from foreact import envs

pytestmark = pytest.mark.sim


def digests(names) -> list[str]:
    """Of the pictures and states of the first 30 steps of one episode of each task, after another episode."""
    found = []
    for name in names:
        env = envs.make(name, privileged=True)
        env.reset(seed=int(os.environ.get("OTHER_SEED", "1")))
        for _ in range(20):
            env.advance(env.embodiment.action_high)
        digest = hashlib.sha256()
        obs, _ = env.reset(seed=42)
        for _ in range(30):
            for part in (*obs["images"].values(), obs["state"], obs["privileged"]):
                digest.update(part.tobytes())
            obs, *_ = env.step(env.expert_action())
        env.close()
        found.append(digest.hexdigest())
    return found


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["window-close-v3", "pusht-v0"], id="two"),
        pytest.param(envs.tasks(), id="all", marks=pytest.mark.slow),
    ],
)
def test_an_episode_is_the_same_in_any_process(names):
    env = {**os.environ, "OTHER_SEED": "2", "PYTHONHASHSEED": "7"}
    run = [sys.executable, __file__, *names]
    elsewhere = subprocess.run(run, capture_output=True, text=True, check=True, env=env).stdout.split()
    assert elsewhere == digests(names)


if __name__ == "__main__":
    print(*digests(sys.argv[1:]))
