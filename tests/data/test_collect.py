import numpy as np
import pytest
from foreact.data.collect import FIRST_SEED, SEEDS_PER_RUN
from foreact.data.demonstrate import Noise, Pilot
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera
from hypothesis import given
from hypothesis import strategies as st

from .toys import TOY, Toy, content, run


def test_a_store_holds_what_was_asked_for(toys, tmp_path):
    store = run(tmp_path / "s", ["toy/odd", "toy/go"], 3)
    assert store.meta.task == ["toy/odd"] * 3 + ["toy/go"] * 3
    assert store.meta.seed.tolist() == [FIRST_SEED + k for k in (0, 2, 4, 0, 1, 2)]
    assert store.meta.source == ["expert"] * 6
    assert store.meta.success.all()
    low, high = store.embodiment.action_low, store.embodiment.action_high
    for name in ("action", "action_executed"):
        assert (store.read(name) >= low).all()
        assert (store.read(name) <= high).all()


def test_the_gripper_is_never_disturbed_and_the_arm_in_bursts(toys, tmp_path):
    store = run(tmp_path / "s", episodes=4, noise=Noise(std=0.5, burst=6, rest=6))
    moved = store.read("action") != store.read("action_executed")
    assert not moved[:, 2].any()
    assert 0.2 < moved[:, 0].mean() < 0.8


@given(st.floats(0.01, 2), st.integers(1, 30), st.integers(0, 60), st.integers(0, 2**31))
def test_noise_comes_in_bursts_of_one_direction(std, burst, rest, seed):
    noise = Noise(std=std, burst=burst, rest=rest).draw(TOY, 400, np.random.default_rng(seed))
    assert noise.shape == (400, 3)
    assert not noise[:, 2].any()
    directions = np.unique(noise[:, :2], axis=0)
    assert len(directions) <= 400 / (burst // 2 + 1 + rest // 2) + 2


def test_it_holds_after_success_and_without_noise_acts_as_the_expert(toys, tmp_path):
    short, long = run(tmp_path / "a", noise=0, hold=0), run(tmp_path / "b", noise=0, hold=5)
    np.testing.assert_array_equal(short.read("action"), short.read("action_executed"))
    lengths = [np.diff(store.episode_ends, prepend=0) for store in (short, long)]
    np.testing.assert_array_equal(lengths[0] + 5, lengths[1])


def test_failures_cost_no_pictures_and_can_be_kept(toys, tmp_path):
    Toy.drawn = 0
    store = run(tmp_path / "a", ["toy/odd"], 2)
    assert Toy.drawn <= store.n_steps + 3  # one first picture for each of three rehearsals
    kept = run(tmp_path / "b", ["toy/odd"], 3, successes_only=False)
    assert kept.meta.success.tolist() == [True, False, True]
    assert np.diff(kept.episode_ends, prepend=0)[1] == 60


def test_a_task_that_never_succeeds_is_given_up(toys, tmp_path):
    with pytest.raises(UserError, match="0 of 50 attempts succeeded; lower the noise"):
        run(tmp_path / "s", ["toy/never"])


def test_growing_gives_the_same_store_as_collecting_at_once(toys, tmp_path):
    run(tmp_path / "a", ["toy/odd"], 2)
    grown = run(tmp_path / "a", ["toy/odd"], 5)
    assert content(grown) == content(run(tmp_path / "b", ["toy/odd"], 5))
    with pytest.raises(UserError, match="holds 5 episodes of toy/odd, episodes=4 asks for fewer"):
        run(tmp_path / "a", ["toy/odd"], 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"noise": 0.1}, "noise: {'std': 0.3"),
        ({"tasks": ["toy/odd"]}, r"tasks: \['toy/go'\] there"),
        ({"hold": 9}, "hold: 5 there, 9 now"),
        ({"successes_only": False}, "successes_only"),
        ({"cameras": [Camera(name="main", mount="top", height=9, width=8)]}, "embodiment cameras"),
        (
            {"pilot": Pilot(name="p", begin=lambda task, seed: lambda obs: np.zeros(3))},
            "driver: 'expert' there, 'policy' now",
        ),
    ],
)
def test_other_settings_there_are_told_apart(toys, tmp_path, change, message):
    before = content(run(tmp_path / "s"))
    with pytest.raises(UserError, match=message):
        run(tmp_path / "s", **change)
    with Store.open(tmp_path / "s", "a") as store:  # the lock was given back
        assert content(store) == before


def test_a_store_that_was_not_collected_is_left_alone(toys, tmp_path):
    episode = run(tmp_path / "a").episode(0)
    with Store.create(tmp_path / "b", TOY, privileged=True) as store:
        store.append(episode)
    with pytest.raises(UserError, match="not made by collecting"):
        run(tmp_path / "b")


def test_seeds_depend_on_the_run_and_looks_are_mixed(toys, tmp_path):
    store = run(tmp_path / "s", episodes=8, seed=2, reference=0.5)
    assert store.meta.seed.tolist() == [FIRST_SEED + 2 * SEEDS_PER_RUN + k for k in range(8)]
    bright = {i: store.episode(i).images["main"].min() >= 200 for i in range(8)}
    assert {i: store.meta.source[i] == "expert@reference" for i in range(8)} == bright
    assert 0 < sum(bright.values()) < 8


def test_a_policy_can_drive(toys, tmp_path):
    def act(observation):
        assert observation["images"]["main"].shape == (8, 8, 3)
        return np.float32([1, 0, 0])

    store = run(tmp_path / "s", episodes=2, pilot=Pilot(name="p", begin=lambda task, seed: act))
    assert set(store.meta.source) == {"policy"}
    np.testing.assert_array_equal(store.read("action")[:, :2], np.float32([[1, 0]]).repeat(store.n_steps, 0))


@pytest.mark.parametrize(
    "bad", [{"tasks": []}, {"episodes": 0}, {"workers": -1}, {"seed": -1}, {"noise": -0.1}, {"reference": 2.0}]
)
def test_bad_settings_are_user_errors(toys, tmp_path, bad):
    with pytest.raises(UserError, match="need"):
        run(tmp_path / "s", **bad)
    assert not (tmp_path / "s").exists()
