"""What every registered environment must hold. A new one is tested here without being told."""

import numpy as np
import pytest
from foreact import envs

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def env(every_env):
    made = envs.make(every_env, privileged=True)
    yield made
    made.close()


def play(env, seed: int, steps: int, act=None) -> list[np.ndarray]:
    """State, privileged state and rewards of the first steps, and the first and last pictures."""
    obs, _ = env.reset(seed=seed)
    seen = [*obs["images"].values()]
    for _ in range(steps):
        reward, _, _ = env.advance(env.expert_action() if act is None else act)
        seen += [env.privileged(), np.float64(reward)]
    last = env.observe()
    return [*seen, obs["state"], last["state"], *last["images"].values()]


def test_observations_are_what_the_embodiment_says(env):
    obs, info = env.reset(seed=7)
    assert info == {"seed": 7, "success": False}
    assert set(obs) == {"images", "state", "privileged"}
    assert env.observation_space.contains(obs)
    assert set(obs["images"]) == {camera.name for camera in env.embodiment.cameras}
    for camera in env.embodiment.cameras:
        picture = obs["images"][camera.name]
        assert picture.shape == (camera.height, camera.width, 3)
        assert picture.flags.c_contiguous
        assert picture.std() > 10, "an empty picture"
    assert obs["state"].shape == (env.embodiment.state_dim,)
    assert obs["privileged"].shape == (env.embodiment.privileged_dim,)
    assert np.array_equal(env.privileged(), obs["privileged"])


def test_a_step_is_advance_and_observe(env):
    env.reset(seed=7)
    obs, reward, terminated, truncated, info = env.step(env.expert_action())
    assert env.observation_space.contains(obs)
    assert isinstance(reward, float)
    assert (terminated, truncated, info) == (False, False, {"success": False})
    env.reset(seed=7)
    assert env.advance(env.expert_action()) == (reward, False, False)
    again = env.observe()
    assert np.array_equal(obs["state"], again["state"])
    assert all(np.array_equal(obs["images"][name], again["images"][name]) for name in obs["images"])


def test_a_longer_control_step_repeats_its_action(env, monkeypatch):
    rng, low, high = np.random.default_rng(0), env.embodiment.action_low, env.embodiment.action_high
    actions = rng.uniform(low, high, (4, len(low))).astype(np.float32)
    env.reset(seed=7)
    wanted = []
    for action in actions:
        rewards = [env.advance(action)[0] for _ in range(3)]
        wanted.append((env.state(), env.privileged(), sum(rewards)))
    monkeypatch.setattr(env, "embodiment", env.embodiment.at(3))
    env.reset(seed=7)
    for action, (state, privileged, reward) in zip(actions, wanted, strict=True):
        assert env.advance(action)[0] == pytest.approx(reward)
        assert np.array_equal(env.state(), state)
        assert np.array_equal(env.privileged(), privileged)


def test_a_seed_names_an_episode_whatever_went_before(env):
    first = play(env, 11, 25)
    play(env, 12, 40, act=env.embodiment.action_high)  # another draw, and the hand driven into a corner
    for a, b in zip(first, play(env, 11, 25), strict=True):
        assert np.array_equal(a, b)


def test_seeds_differ(env):
    starts = [env.reset(seed=seed)[0] for seed in (1, 2, 3)]
    assert len({obs["state"].tobytes() + obs["privileged"].tobytes() for obs in starts}) == 3
    assert len({picture.tobytes() for obs in starts for picture in obs["images"].values()}) == 3 * len(
        env.embodiment.cameras
    )


def test_without_a_seed_episodes_follow_from_the_last_one(env):
    def seeds():
        return [env.reset(seed=5)[1]["seed"], *(env.reset()[1]["seed"] for _ in range(2))]

    assert seeds() == seeds()
    assert len(set(seeds())) == 3


def test_the_expert_keeps_within_the_bounds(env):
    env.reset(seed=3)
    for _ in range(30):
        action = env.expert_action()
        assert action.dtype == np.float32
        assert env.action_space.contains(action)
        env.advance(action)


def test_actions_are_clipped_to_the_bounds(env):
    low, high = env.embodiment.action_low, env.embodiment.action_high
    within = play(env, 4, 5, act=high)
    beyond = play(env, 4, 5, act=high + (high - low))
    assert all(np.array_equal(a, b) for a, b in zip(within, beyond, strict=True))


@pytest.mark.parametrize("length", [0, 1, 99])
def test_a_wrong_shape_names_both_sides(env, length):
    env.reset(seed=0)
    with pytest.raises(envs.UserError, match=rf"action has shape \({length},.*{env.embodiment.name} takes"):
        env.advance(np.zeros(length))


def test_nan_names_both_sides(env):
    env.reset(seed=0)
    action = env.embodiment.action_low.copy()
    action[-1] = np.nan
    with pytest.raises(envs.UserError, match=f"nan.* has NaN; {env.embodiment.name} takes"):
        env.advance(action)


def test_a_step_too_many_is_an_error(env):
    env.reset(seed=0)
    action = np.zeros(env.embodiment.action_dim)
    for n in range(1, env.task.max_steps + 1):
        *_, truncated = env.advance(action)
        assert truncated == (n == env.task.max_steps)
    with pytest.raises(envs.UserError, match=f"limit of {env.task.max_steps}; call reset"):
        env.advance(action)
    env.reset(seed=0)
    env.advance(action)


def test_a_new_one_wants_a_reset_hides_privileged_state_unless_asked_and_may_be_closed_twice(every_env, make):
    env = make(every_env)
    with pytest.raises(envs.UserError, match="before the first reset"):
        env.advance(np.zeros(env.embodiment.action_dim))
    with pytest.raises(envs.UserError, match="before the first reset"):
        env.observe()
    obs, _ = env.reset(seed=0)
    assert set(obs) == {"images", "state"}
    assert env.observation_space.contains(obs)
    env.close()
    env.close()
