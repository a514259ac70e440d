"""A policy behind a server, and the questions that it is sent."""

import numpy as np
import pytest
from foreact.envs.errors import UserError
from foreact.eval.actors import PolicyActor
from foreact.eval.serving.client import ServerError
from foreact.eval.serving.messages import question
from foreact.eval.serving.remote import RemotePolicy

from .test_server import look, uri


def test_a_remote_policy_is_a_policy(serving, actor, worlds):
    with serving(actor) as server:
        remote = RemotePolicy(uri(server))
        assert remote.embodiment == actor.policy.embodiment
        assert remote.can_continue
        observation = look(worlds)
        stacked = {"images": {"main": observation["images"]["main"][None]}, "state": observation["state"][None]}
        first = np.full((2, 2), 0.1, np.float32)
        arguments = [stacked] * 2, ["go", "go"], [(1,), (2,)]
        ours = actor.policy.act(*arguments, committed=[None, first])
        np.testing.assert_array_equal(remote.act(*arguments, committed=[None, first]), ours)
        with pytest.raises(ServerError, match="state has NaN"):
            remote.act([stacked | {"state": np.full((1, 2), np.nan)}], ["go"], [(1,)])
        np.testing.assert_array_equal(remote.act(*arguments, committed=[None, first]), ours)  # connected anew
        remote.close()
    with pytest.raises(UserError, match=r"policy=ws://127.0.0.1:1: cannot connect"):
        RemotePolicy("ws://127.0.0.1:1", timeout=2)


def test_a_question_keeps_the_observation_steps_of_the_policy(dot_policy, worlds):
    actor = PolicyActor(policy=dot_policy())
    message = look(worlds)
    with pytest.raises(UserError, match=r"camera 'main' has shape \(12, 12, 3\), the policy needs \(2, 12, 12, 3\)"):
        question(message, actor, (0,))
    with pytest.raises(UserError, match="a message is a map, got list"):
        question([1, 2], actor, (0,))
    twice = {"images": {"main": np.stack([message["images"]["main"]] * 2)}, "state": np.stack([message["state"]] * 2)}
    assert question({**twice, "prompt": "go"}, actor, (4, 2)).key == (4, 2)
