"""Chunks that go on from decided actions."""

import dataclasses

import numpy as np
import pytest
from foreact.data.schema import fake_episode
from foreact.envs.errors import UserError
from foreact.policy.committed import padded


@pytest.fixture
def seen(embodiment):
    episode = fake_episode(embodiment, steps=4)
    images = {name: frames[:2] for name, frames in episode.images.items()}
    return {"images": images, "state": episode.state[:2]}


def test_a_chunk_begins_with_what_is_committed_to_the_bit_and_follows_from_it(make_policy, preset, seen):
    policy = make_policy(preset)
    first = np.random.default_rng(0).uniform(-1, 1, (2, 4)).astype(np.float32)
    arguments = [seen, seen], ["go left", "go left"], [(0, 0), (0, 0)]
    free, held = policy.act(*arguments, batch_shape=4, committed=[None, first])
    np.testing.assert_array_equal(held[:2], first)
    assert np.abs(held[2:] - free[2:]).max() > 1e-4
    other = policy.act(*arguments, batch_shape=4, committed=[None, -first])[1]
    assert np.abs(held[2:] - other[2:]).max() > 1e-4


def test_without_committed_actions_it_is_the_plain_query(make_policy, preset, seen):
    policy = make_policy(preset)
    plain = policy.act([seen], ["go left"], [(0, 0)])
    np.testing.assert_array_equal(policy.act([seen], ["go left"], [(0, 0)], committed=[None]), plain)


def test_who_did_not_learn_to_continue_says_so(make_policy, preset, seen):
    policy = make_policy(dataclasses.replace(preset, draws={"policy": 1}))
    assert not policy.can_continue
    with pytest.raises(UserError, match="did not learn to continue a chunk"):
        policy.act([seen], ["go left"], [(0, 0)], committed=[np.zeros((1, 4))])


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (np.zeros((6, 4)), "leave at least one"),
        (np.zeros((1, 3)), r"have shape \(1, 3\)"),
        (np.full((1, 4), np.nan), "NaN"),
    ],
)
def test_what_cannot_be_continued_says_so(first, message):
    with pytest.raises(UserError, match=message):
        padded([None, first], 4, 6, 4)
