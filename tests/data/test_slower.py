"""A store read at a lower rate: what of it is read, and that it is the same motion."""

from dataclasses import replace

import numpy as np
import pytest
from foreact.data.cache import fingerprint
from foreact.data.dataset import READERS, Dataset
from foreact.data.mixture import Mixture
from foreact.data.normalize import fit_normalizers
from foreact.data.schema import fake_episode
from foreact.data.slower import at_rate, at_rate_of
from foreact.data.sources import sources_of
from foreact.data.store import Store
from foreact.data.windows import Windows
from foreact.envs.errors import UserError
from foreact.envs.limits import Limit
from foreact.envs.slot_maps import slot_map
from foreact.envs.slot_tables import with_slots
from foreact.envs.slot_tables.fakes import ROBOTS

LENGTHS = [5, 1, 6, 2, 7]
SAWYER = ROBOTS["metaworld-sawyer"]


@pytest.fixture
def store(tmp_path, robot):
    """Episodes of a robot whose actions are changes, by its limits."""
    robot = replace(robot, limits=(Limit(field="hand_velocity", kind="delta", drives="hand"),))
    with Store.create(tmp_path / "store", robot, privileged=True) as made:
        for i, steps in enumerate(LENGTHS):
            made.append(fake_episode(robot, steps=steps, seed=i, task=f"fake/t{i % 2}", privileged=True))
    return Store.open(tmp_path / "store")


def test_its_own_rate_is_the_store_itself(store):
    assert at_rate(store, 1) is store
    assert store.recorded is store
    assert store.recorded_rows.tolist() == list(range(store.n_steps))


@pytest.mark.parametrize("every", [2, 3, 10])
def test_what_is_read(store, every):
    slow = at_rate(store, every)
    assert slow.embodiment == store.embodiment.at(every)
    assert [len(slow.episode(i)) for i in range(len(slow))] == [-(-n // every) for n in LENGTHS]
    for i in range(len(store)):
        fast, read = store.episode(i), slow.episode(i)
        read.validate(slow.embodiment, privileged=True)
        assert np.array_equal(read.state, fast.state[::every])
        assert np.array_equal(read.privileged, fast.privileged[::every])
        for camera, frames in fast.images.items():
            assert np.array_equal(read.images[camera], frames[::every])
        for name in ("action", "action_executed"):
            groups = [getattr(fast, name)[start : start + every] for start in range(0, len(fast), every)]
            wanted = np.stack([group.mean(0) for group in groups])
            np.testing.assert_allclose(getattr(read, name), wanted, rtol=1e-5, atol=1e-6)
        assert (read.task, read.seed) == (fast.task, fast.seed)


@pytest.mark.parametrize("reader", [name for name in READERS if name != "tensorstore"])
def test_windows_count_its_steps(store, reader):
    windows = Windows(n_obs_steps=2, horizon=3, future=(1, 2))
    slow = at_rate(store, 2)
    data = Dataset(slow, windows, reader=reader)
    assert len(data) == slow.n_steps
    batch = data.batch(np.arange(len(data)))
    episode = store.episode(4)  # 7 steps, read as those of 0, 2, 4 and 6
    start = int(slow.episode_ends[3])
    assert batch.step[start:].tolist() == [0, 1, 2, 3]
    for camera, frames in episode.images.items():
        assert np.array_equal(batch.images[camera][start + 2], frames[[2, 4]])
        assert np.array_equal(batch.future[camera][start + 1], frames[[4, 6]])
    assert np.array_equal(batch.state[start + 1], episode.state[[0, 2]])
    assert batch.action_pad[start + 2].tolist() == [False, False, True]
    assert batch.future_pad[start + 2].tolist() == [False, True]
    assert batch.robot == "fake@10hz"


def test_a_steady_motion_is_the_same_in_slots(tmp_path):
    """The hand goes 1 cm a step, as it is told."""
    episode = fake_episode(SAWYER, steps=12)
    way = np.linspace(0, 0.11, 12, dtype=np.float32)
    episode.state[:, 0], episode.action[:] = way, np.array([1, 0, 0, -1], np.float32)
    episode.action_executed = episode.action
    with Store.create(tmp_path / "s", SAWYER, privileged=False) as made:
        made.append(episode)
    for every in (1, 2, 3):
        read = at_rate(Store.open(tmp_path / "s"), every)
        robot = with_slots(read.embodiment)
        told = slot_map(robot, "action").fill(read.read("action"))
        place = slot_map(robot, "state").fill(read.read("state"))
        np.testing.assert_allclose(told[:, 39], 0.8, rtol=1e-6)  # right_eef_vel_x [m/s]
        np.testing.assert_allclose(np.diff(place[:, 30]) * robot.control_hz, 0.8, rtol=1e-4)


def test_a_mixture_of_both_rates_has_two_robots_and_holds_the_same_episodes_out(store):
    data = [str(store.path), {"path": str(store.path), "every": 2}]
    mixture = Mixture(data, Windows(horizon=8, seconds=0.2), held_out=0.4, seed=0)
    assert {name: robot.control_hz for name, robot in mixture.robots.items()} == {"fake": 20.0, "fake@10hz": 10.0}
    fast, slow = (mixture.held[name] for name in mixture.robots)
    assert fast.episodes.tolist() == slow.episodes.tolist()
    assert (fast.windows.horizon, slow.windows.horizon) == (4, 2)
    for one in mixture.learned:  # numbers of the recording, whoever asks
        assert one.of(store) == one.of(at_rate(store, 2)) == set(mixture.datasets[0].episodes.tolist())
    parts = mixture.stores_of("fake@10hz")
    fitted = fit_normalizers(parts, {"action": "range"})["action"]
    rows = np.concatenate([parts[0][0].episode(i).action for i in mixture.datasets[1].episodes.tolist()])
    assert np.array_equal(fitted.low, rows.min(0))


def test_rows_that_are_not_there(store):
    slow = at_rate(store, 2)
    for rows in ([slow.n_steps], [-1]):
        for name in ("state", "action"):
            with pytest.raises(UserError, match=f"which has {slow.n_steps} steps"):
                slow.read(name, np.array(rows))


def test_the_rate_of_a_robot(store):
    robot = store.embodiment
    assert at_rate_of(store, robot) is store
    assert at_rate_of(store, robot.at(3)).embodiment == robot.at(3)
    slow = at_rate(store, 2)
    assert (
        at_rate_of(slow, robot) is at_rate_of(slow, robot.at(3)) is slow
    )  # no multiple: whoever compares them refuses
    twice = at_rate_of(slow, robot.at(4))
    assert twice.embodiment == robot.at(4)
    for name in ("state", "action", "image/main"):
        np.testing.assert_allclose(twice.read(name)[0], at_rate(store, 4).read(name)[0], atol=1e-6)


def test_files_are_those_of_the_recording(store):
    assert fingerprint(at_rate(store, 3), len(store)) == fingerprint(store, len(store))
    made = sorted(file.name for file in Dataset(store, Windows())._files.values())
    assert sorted(file.name for file in Dataset(at_rate(store, 3), Windows())._files.values()) == made


def test_a_table_of_the_source_tells_what_actions_are(make_store, tmp_path):
    path = make_store([4, 4])
    with pytest.raises(UserError, match="'hand_velocity' of 'fake@10hz' cannot be told at another rate"):
        Mixture({"path": str(path), "every": 2}, Windows(), held_out=0.5, seed=0)
    table = tmp_path / "table.yaml"
    table.write_text("action: {hand_velocity: {slots: right_eef_vel, scale: 0.05, unit: m/step}}", encoding="utf-8")
    mixture = Mixture({"path": str(path), "every": 2, "slots": str(table)}, Windows(), held_out=0.5, seed=0)
    assert list(mixture.robots) == ["fake@10hz"]


def test_a_source_is_read_every_step_or_less_often():
    with pytest.raises(UserError, match="source x: every must be at least 1, got 0"):
        sources_of({"path": "x", "every": 0})
