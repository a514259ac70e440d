"""Rollouts that cannot be: bad settings, policies that do not fit, simulators that fail, and interrupts."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera
from foreact.eval import evaluate
from foreact.eval.actors import InsideActor

from .test_rollout import QUIET


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_action_steps": 7}, "n_action_steps is 7, but the checkpoint's chunks have 6"),
        ({"n_action_steps": 0}, "n_action_steps is 0"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"tasks": ["nowhere"]}, "unknown task 'fake/nowhere'; choose one of: fake/crash"),
        ({"tasks": ["near", "fake/near"]}, "a name twice"),
        ({"tasks": []}, "no tasks"),
        ({"batch_size": 0}, "at least one row"),
    ],
)
def test_bad_input(dot_policy, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(dot_policy(), **{"tasks": ["near"], **options}, **QUIET)


def test_expert_takes_no_chunk_options(worlds):
    with pytest.raises(UserError, match="ensemble would be ignored"):
        evaluate("expert", ["near"], ensemble=0.1, **QUIET)
    with pytest.raises(UserError, match="unknown policy"):
        InsideActor("oracle")


def test_nan_actions_are_an_error_that_says_where(dot_policy):
    policy = dot_policy()
    policy._chunk = lambda observation, key: np.full((6, 2), np.nan if key[2] else 0, np.float32)
    with pytest.raises(UserError, match=r"not finite .* task near, seed 1000 \+ 0, step 4"):
        evaluate(policy, ["near"], episodes=1, workers=1, **QUIET)


@pytest.fixture
def two_robots(worlds, dot_policy):
    """A policy of two robots, on the one that has no tasks."""
    own, other = dot_policy(), dot_policy()
    other.embodiment = dataclasses.replace(worlds.EMBODIMENT, name="other", control_hz=1.0)
    other.robots, other.on = ["other", "dot"], {"dot": own, "other": other}.__getitem__
    return other


def test_a_policy_of_many_robots_acts_on_that_of_the_tasks(two_robots):
    assert evaluate(two_robots, ["near"], episodes=2, workers=1, **QUIET)["per_task"]["near"]["success"] == 1.0


def test_tasks_of_two_robots_are_evaluated_apart(two_robots, worlds, monkeypatch):
    theirs = {"near": two_robots.embodiment, "far": worlds.EMBODIMENT}
    monkeypatch.setattr(worlds, "embodiment", theirs.__getitem__)
    with pytest.raises(UserError, match="robots dot, other; evaluate those of one at a time"):
        evaluate(two_robots, ["near", "far"], episodes=1, workers=1, **QUIET)


def test_wrong_embodiment_and_wrong_picture_size(dot_policy):
    policy = dot_policy()
    large = [Camera(name="main", mount="top", height=24, width=24)]
    with pytest.raises(UserError, match=r"cameras\[0\].height: 12 here, 24 there"):
        evaluate(policy, ["near"], cameras=large, **QUIET)
    spec = policy.embodiment.to_dict()
    spec["action"][0]["unit"] = "N"
    policy.embodiment = type(policy.embodiment).from_dict(spec | {"name": "arm"})
    with pytest.raises(UserError, match=r"(?s)name: 'arm' here, 'dot' there.*") as caught:
        evaluate(policy, ["near"], **QUIET)
    assert "action[0].unit: 'N' here, 'm/s' there" in str(caught.value)
    assert policy.calls == []


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("crash", "(?s)ended with status 7.*the simulator fell over"),
        ("raise", "(?s)Traceback.*the simulator divided by zero"),
        ("refuse", "^the simulator has no batteries; put some in$"),
    ],
)
def test_a_failing_simulator_is_a_clear_error(worlds, task, message):
    with pytest.raises(UserError, match=message):
        evaluate("expert", ["near", task], episodes=2, workers=2, **QUIET)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_orphans_after_an_interrupt(worlds, alive, how):
    script = textwrap.dedent(f"""
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in a background job it is ignored
        sys.path.insert(0, {str(worlds.__file__.rsplit("/", 1)[0])!r})
        from foreact.eval.workers import Pool, _Worker
        from foreact.eval import evaluate
        started = _Worker.__init__
        def note(self, registry):
            started(self, registry)
            print(self.process.pid, flush=True)
        _Worker.__init__ = note
        evaluate("random", ["slow"], episodes=5000, workers=2, progress=False, registry="fake_worlds")
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as main:
        assert main.stdout is not None
        pids = [int(main.stdout.readline()) for _ in range(2)]
        time.sleep(1.0)
        # Ctrl-C reaches the whole group; a kill only the main process.
        os.killpg(main.pid, how) if how == signal.SIGINT else main.send_signal(how)
        main.wait(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)
