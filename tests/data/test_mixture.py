import dataclasses

import numpy as np
import pytest
import torch
from foreact.data.mixture import Mixture, _sizes, iterate
from foreact.data.schema import fake_episode
from foreact.data.sources import Source, sources_of
from foreact.data.store import Store
from foreact.data.windows import Windows
from foreact.envs.errors import UserError
from foreact.envs.slot_tables.fakes import ROBOTS
from hypothesis import given
from hypothesis import strategies as st

WINDOWS = Windows(horizon=4, future=(2,))
SPLIT = {"held_out": 0.2, "seed": 0}


def test_episodes_are_counted_task_by_task(many):
    mixture = Mixture({"path": str(many), "episodes": [1, 3]}, WINDOWS, **SPLIT)
    assert mixture.datasets[0].episodes.tolist() == [2, 3, 4, 5]
    # nothing that is learned from is validated on
    assert not set(mixture.held_out.episodes) & {2, 3, 4, 5}


def test_a_plain_path_holds_some_of_its_own_episodes_out(many):
    mixture = Mixture(str(many), WINDOWS, **SPLIT)
    assert len(mixture.datasets[0].episodes) == 8
    assert len(mixture.held_out.episodes) == 2


def test_video_of_other_episodes_has_no_actions_and_is_not_validated_on(many):
    data = [
        {"path": str(many), "episodes": [0, 1]},
        {"path": str(many), "episodes": [1, 4], "actions": False, "share": 3},
    ]
    mixture = Mixture(data, WINDOWS, **SPLIT)
    acting, video = (loader.batch_at(0) for loader in mixture.loaders(8, 0, 0, lambda data: None))
    assert (len(acting), len(video)) == (2, 6)
    assert acting.action is not None
    assert video.action is None
    assert video.state is None
    assert video.privileged is None
    assert video.future
    assert mixture.held_out.episodes.tolist() == [8, 9]
    assert [episodes.tolist() for _, episodes in mixture.acting] == [[0, 1]]


def test_frames_of_held_out_episodes_are_not_learned_from_either(many):
    mixture = Mixture([str(many), {"path": str(many), "actions": False}], WINDOWS, **SPLIT)
    held = set(mixture.held_out.episodes)
    assert len(held) == 2
    assert all(not held & set(data.episodes) for data in mixture.datasets)


def test_batches_of_all_sources_come_side_by_side_and_resume(many):
    data = [str(many), {"path": str(many), "actions": False}]
    loaders = Mixture(data, WINDOWS, **SPLIT).loaders(6, 3, 0, lambda data: None)
    whole = iterate(loaders, 0)
    steps = [next(whole) for _ in range(4)]
    whole.close()
    later = iterate(loaders, 3)
    for a, b in zip(steps[3], next(later), strict=True):
        assert torch.equal(a.images["main"], b.images["main"])
    later.close()


def test_tasks_are_numbered_over_all_stores(many, tmp_path, robot):
    other = tmp_path / "other"
    with Store.create(other, robot, privileged=True) as store:
        for i in range(2):
            store.append(fake_episode(robot, seed=i, task="fake/a", privileged=True))
    mixture = Mixture([str(many), str(other)], WINDOWS, **SPLIT)
    assert mixture.tasks == ["fake/a", "fake/task-0", "fake/task-1"]
    assert set(mixture.datasets[0].batch(np.arange(8)).task.tolist()) <= {1, 2}
    assert set(mixture.datasets[1].batch(np.arange(4)).task.tolist()) == {0}


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.integers(5, 64))
def test_shares_fill_the_batch(shares, batch):
    sizes = _sizes(shares, batch)
    assert sum(sizes) == batch
    assert min(sizes) >= 1
    wanted = np.array(shares) / sum(shares) * batch
    assert np.abs(np.array(sizes) - wanted).max() <= len(shares)


class TestRobots:
    @pytest.fixture
    def two(self, many, tmp_path, robot):
        """The stores of two robots: 80 steps at 20 Hz, and 24 at 10."""
        other = dataclasses.replace(robot, name="slow", control_hz=10)
        with Store.create(tmp_path / "slow", other, privileged=True) as store:
            for i in range(3):
                store.append(fake_episode(other, steps=8, seed=i, task="slow/t", privileged=True))
        return [str(many), str(tmp_path / "slow")]

    def test_each_has_its_own_episodes_and_rate(self, two):
        mixture = Mixture(two, Windows(horizon=8, seconds=0.3), **SPLIT)
        assert list(mixture.robots) == ["fake", "slow"]
        assert mixture.embodiment.name == "fake"
        for name, horizon in (("fake", 6), ("slow", 3)):
            assert mixture.held[name].windows.horizon == horizon
            batch = mixture.learn[name].batch(np.arange(2))
            assert (batch.robot, batch.action.shape[1]) == (name, horizon)
        assert mixture.held_out is mixture.held["fake"]
        assert [store.embodiment.name for store, _ in mixture.stores_of("slow")] == ["slow"]

    def test_films_of_a_robot_are_its_own_and_others_are_the_main_ones(self, two, tmp_path, robot):
        other = dataclasses.replace(robot, name="film")
        with Store.create(tmp_path / "film", other, privileged=False) as store:
            store.append(fake_episode(other))
        data = [*two, *({"path": path, "actions": False} for path in (two[1], str(tmp_path / "film")))]
        assert [d.robot for d in Mixture(data, WINDOWS, **SPLIT).datasets] == ["fake", "slow", "slow", "fake"]

    def test_mixes(self, two):
        data = [{"path": two[0], "share": 3}, {"path": two[0], "share": 1}, two[1]]
        mixture = Mixture(data, WINDOWS, **SPLIT)
        assert mixture.shares() == [3, 1, 1]
        np.testing.assert_allclose(mixture.shares("balanced"), [0.75, 0.25, 1])
        steps = [sum(len(d) for d in mixture.datasets if d.robot == name) for name in ("fake", "slow")]
        for temperature in (1.0, 3.0):
            first, second, slow = mixture.shares("temperature", temperature)
            assert first == pytest.approx(3 * second)
            assert (first + second) / slow == pytest.approx((steps[0] / steps[1]) ** (1 / temperature))
        assert [loader.batch_size for loader in mixture.loaders(8, 0, 0, lambda data: None, mix="balanced")] == [
            3,
            1,
            4,
        ]

    def test_mixes_that_are_none(self, two):
        mixture = Mixture(two, WINDOWS, **SPLIT)
        with pytest.raises(UserError, match="unknown mix of sources 'even'; choose one of: balanced, shares, temp"):
            mixture.shares("even")
        with pytest.raises(UserError, match="must be above 0, got 0"):
            mixture.shares("temperature", 0.0)

    def test_one_robot_has_one_table(self, tmp_path):
        arm, tables = ROBOTS["pusht-pusher"], []
        for name in ("a", "b"):
            with Store.create(tmp_path / name, arm, privileged=False) as store:
                for i in range(2):
                    store.append(fake_episode(arm, seed=i, task="pusht/t"))
            tables.append(tmp_path / f"{name}.yaml")
            tables[-1].write_text(
                f"action: {{pusher_target: {{slots: {name}}}}}\n".replace(": a", ": base_vel"), encoding="utf-8"
            )
        data = [{"path": str(tmp_path / n), "slots": str(t)} for n, t in zip("ab", tables, strict=True)]
        with pytest.raises(UserError, match=r"another robot or camera .* 'pusht-pusher':\n  action.*base_vel"):
            Mixture(data, WINDOWS, **SPLIT)


class TestErrors:
    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ({"path": "x", "share": 0}, "share must be above 0"),
            ({"path": "x", "weight": -2.0}, "weight must be above 0, got -2"),
            ({"path": "x", "state_noise": -1.0}, "state_noise must be at least 0, got -1"),
            ({"path": "x", "episodes": [3, 3]}, "first < end"),
            ({"path": "x", "episodes": [3]}, "needs path=, and episodes="),
            ({"episodes": [0, 3]}, "needs path="),
            ({"path": "x", "action": False}, "unknown setting of a data source: 'action'"),
        ],
    )
    def test_bad_entries(self, entry, message):
        with pytest.raises(UserError, match=message):
            sources_of([entry])

    def test_too_few_episodes(self, many):
        with pytest.raises(UserError, match=r"has 5 episodes of fake/task-0, episodes=\[0, 9\]"):
            Mixture({"path": str(many), "episodes": [0, 9]}, WINDOWS, **SPLIT)

    def test_video_alone_is_no_policy(self, many):
        with pytest.raises(UserError, match=r"none of .* has actions"):
            Mixture({"path": str(many), "actions": False}, WINDOWS, **SPLIT)

    def test_another_robot(self, many, tmp_path, robot):
        other = tmp_path / "other"
        with Store.create(other, dataclasses.replace(robot, control_hz=1.0), privileged=True) as store:
            store.append(fake_episode(robot, privileged=True))
        with pytest.raises(UserError, match="control_hz"):
            Mixture([str(many), str(other)], WINDOWS, **SPLIT)

    def test_more_sources_than_samples(self, many):
        with pytest.raises(UserError, match="batch_size 1 cannot hold a sample of each of 2"):
            Mixture([str(many), str(many)], WINDOWS, **SPLIT).loaders(1, 0, 0, lambda data: None)


def test_a_source_of_all_is_a_plain_path():
    assert sources_of("a") == sources_of([{"path": "a"}]) == [Source(path="a")]
