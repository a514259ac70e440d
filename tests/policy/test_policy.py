import dataclasses

import numpy as np
import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy.tokens.images import ConvStem, ImageConfig, shift, spatial_softmax


def observations(policy, n: int) -> list[dict]:
    rng = np.random.default_rng(0)
    steps = policy.n_obs_steps
    return [
        {
            "images": {
                c.name: rng.integers(0, 256, (steps, c.height, c.width, 3), dtype=np.uint8)
                for c in policy.embodiment.cameras
            },
            "state": rng.standard_normal((steps, policy.embodiment.state_dim)).astype(np.float32),
        }
        for _ in range(n)
    ]


def keys(n: int) -> list[tuple[int, int, int]]:
    return [(1000, i, 0) for i in range(n)]


@pytest.fixture
def policy(make_policy, preset):
    return make_policy(preset)


def test_chunks_are_in_bounds_and_repeatable(policy):
    seen = observations(policy, 3)
    chunk = policy.act(seen, ["go left"] * 3, keys(3))
    assert chunk.shape == (3, policy.horizon, 4)
    assert chunk.dtype == np.float32
    assert np.abs(chunk).max() <= 1
    assert np.array_equal(chunk, policy.act(seen, ["go left"] * 3, keys(3)))


def test_a_row_does_not_depend_on_its_neighbours(policy):
    seen = observations(policy, 4)
    together = policy.act(seen, ["go left"] * 4, keys(4), 4)
    for i in range(4):
        alone = policy.act(seen[i : i + 1], ["go left"], keys(4)[i : i + 1], 4)
        assert np.array_equal(together[i], alone[0])


def test_noise_comes_from_the_key(policy):
    seen = observations(policy, 1)
    a, b = (policy.act(seen, ["go left"], [key]) for key in ((1, 0, 0), (1, 0, 8)))
    assert not np.array_equal(a, b)


def test_instruction_matters_and_an_unknown_one_lists_the_known(policy):
    seen = observations(policy, 1)
    assert not np.array_equal(policy.act(seen, ["go left"], keys(1)), policy.act(seen, ["go right"], keys(1)))
    with pytest.raises(UserError, match="does not know 'fly'; it knows: go left; go right"):
        policy.act(seen, ["fly"], keys(1))


def test_imagined_frames(policy):
    frames = policy.imagine(observations(policy, 2), ["go left"] * 2, keys(2))
    assert {k: v.shape for k, v in frames.items()} == {"front": (2, 2, 32, 32, 3), "side": (2, 2, 32, 32, 3)}
    assert all(v.dtype == np.uint8 for v in frames.values())


def test_a_policy_without_future_says_so(make_policy, preset):
    blind = make_policy(dataclasses.replace(preset, future=(), draws={"policy": 1}))
    with pytest.raises(UserError, match="foresees no frames"):
        blind.imagine(observations(blind, 1), ["go left"], keys(1))


class TestBadObservations:
    def test_missing_camera(self, policy):
        seen = observations(policy, 1)
        del seen[0]["images"]["side"]
        with pytest.raises(UserError, match=r"has cameras \['front'\], the policy needs \['front', 'side'\]"):
            policy.act(seen, ["go left"], keys(1))

    def test_wrong_size(self, policy):
        seen = observations(policy, 1)
        seen[0]["images"]["front"] = seen[0]["images"]["front"][:, :16]
        with pytest.raises(UserError, match=r"gave uint8 \(16, 32, 3\), the policy was trained on uint8 \(32, 32, 3\)"):
            policy.act(seen, ["go left"], keys(1))

    def test_wrong_history(self, policy):
        seen = observations(policy, 1)
        seen[0]["state"] = seen[0]["state"][:1]
        with pytest.raises(UserError, match="has 1 observation steps, the policy needs n_obs_steps=2"):
            policy.act(seen, ["go left"], keys(1))

    def test_nan_state(self, policy):
        seen = observations(policy, 1)
        seen[0]["state"][0, 1] = np.nan
        with pytest.raises(UserError, match="state of observation 0 has NaN"):
            policy.act(seen, ["go left"], keys(1))

    def test_too_many_rows(self, policy):
        with pytest.raises(UserError, match="3 observations do not fit the batch shape 2"):
            policy.act(observations(policy, 3), ["go left"] * 3, keys(3), 2)


class TestTransforms:
    def test_future_round_trip(self, policy):
        now = torch.rand(2, 2, 1, 32, 32, 3) * 2 - 1
        ahead = torch.rand(2, 2, 2, 32, 32, 3) * 2 - 1
        back = policy.transforms.pictures("future", policy.transforms.ahead("future", ahead, now), now)
        torch.testing.assert_close(back, ahead, atol=1e-5, rtol=0)

    def test_shift_moves_and_repeats_the_edge(self):
        frames = torch.arange(2 * 4 * 4).reshape(2, 1, 4, 4, 1)
        moved = shift(frames, torch.tensor([[1, 0], [0, -2]]))
        assert moved[0, 0, :3].equal(frames[0, 0, 1:])
        assert moved[0, 0, 3].equal(frames[0, 0, 3])
        assert moved[1, 0, :, 2:].equal(frames[1, 0, :, :2])
        assert moved[1, 0, :, 0].equal(frames[1, 0, :, 0])

    def test_one_token_summarises_each_frame(self):
        plain, whole = (ImageConfig(channels=(8, 8, 8), summary=n) for n in (0, 4))
        assert whole.count(32, 32) == plain.count(32, 32) + 1
        stem = ConvStem(whole, 16, 16).eval()
        frame = torch.zeros(1, 3, 32, 32)
        moved = frame.clone()
        moved[:, :, 28:, 28:] = 1  # a corner that the first token does not see
        change = (stem(moved) - stem(frame))[0].abs().sum(dim=-1)
        assert stem(frame).shape == (1, 17, 16)
        assert change[-1] > 0.01

    def test_keypoints_find_a_peak(self):
        maps = torch.full((1, 1, 9, 9), -50.0)
        maps[0, 0, 2, 6] = 50
        torch.testing.assert_close(spatial_softmax(maps), torch.tensor([[-0.5, 0.5]]))
