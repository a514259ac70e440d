"""Samples of a store, the cache of its decoded frames, and which episodes are held out."""

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from foreact.data import cache
from foreact.data.batch import Batch, fake_batch
from foreact.data.cache import cached_frames
from foreact.data.dataset import READERS, Dataset, split_episodes
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.data.windows import Windows
from foreact.envs.errors import UserError
from hypothesis import given
from hypothesis import strategies as st

WINDOWS = Windows(n_obs_steps=2, horizon=3, future=(1, 4))
LENGTHS = [7, 3, 12, 5]


@pytest.fixture
def store(make_store):
    return Store.open(make_store(LENGTHS, tasks=2))


TENSORS = [field for field in dataclasses.fields(Batch) if field.name != "robot"]


def assert_same(a: Batch, b: Batch):
    assert a.robot == b.robot
    for field in TENSORS:
        x, y = getattr(a, field.name), getattr(b, field.name)
        for u, v in zip(x.values(), y.values(), strict=True) if isinstance(x, dict) else [(x, y)]:
            assert (u is None) == (v is None), field.name
            assert u is None or torch.equal(u, v), field.name


# -- dataset


@pytest.mark.parametrize("reader", READERS)
def test_every_sample_is_what_the_store_holds(store, reader):
    dataset = Dataset(store, WINDOWS, episodes=[0, 2, 3], reader=reader)
    assert len(dataset) == 7 + 12 + 5
    order = np.random.default_rng(0).permutation(len(dataset))
    batch = dataset.batch(order)
    at = WINDOWS.at(store.episode_ends, dataset.rows[order])
    for camera in ("main", "main-left"):
        frames = torch.from_numpy(store.read(f"image/{camera}"))
        assert torch.equal(batch.images[camera], frames[at.obs])
        assert torch.equal(batch.future[camera], frames[at.future])
    assert np.array_equal(batch.state, store.read("state")[at.obs])
    assert np.array_equal(batch.action, store.read("action")[at.action])
    assert np.array_equal(batch.action_executed, store.read("action_executed")[at.action])
    assert np.array_equal(batch.privileged, store.read("privileged")[dataset.rows[order]])
    assert np.array_equal(batch.step, at.step)
    for name in ("obs_pad", "action_pad", "future_pad"):
        assert np.array_equal(getattr(batch, name), getattr(at, name))
    task = np.array([store.tasks.index(t) for t in store.meta.task])
    assert np.array_equal(batch.task, task[dataset.episode[order]])
    assert np.array_equal(dataset.task[order], batch.task)
    assert np.array_equal(dataset.step[order], batch.step)
    assert dataset.rows[dataset.step == 0].tolist() == [0, 10, 22]


def test_shapes_and_types_are_those_of_the_fake(store, robot):
    batch = Dataset(store, WINDOWS).batch(np.arange(4))
    fake = fake_batch(robot, size=4, n_obs_steps=2, horizon=3, n_future=2)
    for field in TENSORS:
        x, y = getattr(batch, field.name), getattr(fake, field.name)
        for u, v in zip(x.values(), y.values(), strict=True) if isinstance(x, dict) else [(x, y)]:
            assert (u.shape, u.dtype) == (v.shape, v.dtype), field.name


def test_without_future_and_privileged(robot, tmp_path):
    with Store.create(tmp_path / "s", robot, privileged=False) as store:
        store.append(fake_episode(robot))
        batch = Dataset(store, Windows(horizon=2)).batch(np.arange(3))
    assert (batch.future, batch.future_pad, batch.privileged) == ({}, None, None)
    assert batch.images["main"].shape == (3, 1, 32, 48, 3)


def test_bad_requests(store, robot, tmp_path):
    dataset = Dataset(store, WINDOWS)
    for rows in ([-1], [27], []):
        with pytest.raises(UserError, match="asked of a dataset of 27"):
            dataset.batch(np.array(rows, int))
    with pytest.raises(UserError, match="episodes 4 to 4 asked of 4"):
        Dataset(store, WINDOWS, episodes=[4])
    with pytest.raises(UserError, match="no episodes to learn from"):
        Dataset(store, WINDOWS, episodes=[])
    with pytest.raises(UserError, match="unknown reader of frames 'ram'"):
        Dataset(store, WINDOWS, reader="ram")
    with (
        Store.create(tmp_path / "empty", robot, privileged=False) as empty,
        pytest.raises(UserError, match="it holds 0"),
    ):
        Dataset(empty, WINDOWS)


def test_a_damaged_store_is_named_and_leaves_no_cache(store):
    (store.path / "data/image/main/c.0.0.0.0").write_bytes(b"")
    with pytest.raises(UserError, match="'data/image/main' of episode 0"):
        Dataset(store, WINDOWS)
    assert not list(store.path.with_name("store.zarr.cache").glob("main-2*"))
    for reader in ("zarr", "tensorstore"):
        dataset = Dataset(store, WINDOWS, reader=reader)
        assert len(dataset) == 27  # until a frame is asked for
        with pytest.raises(UserError, match=r"array '(data/)?image/main'.* cannot be read"):
            dataset.batch(np.array([0]))


# -- cache of decoded frames


def contents(files):
    return {camera: np.load(file) for camera, file in files.items()}


def test_decoded_once_then_extended(store, robot, monkeypatch):
    files = cached_frames(store)
    for name, frames in contents(files).items():
        np.testing.assert_array_equal(frames, store.read(name))
    with Store.open(store.path, mode="a") as writer:
        writer.append(fake_episode(robot, steps=9, seed=9, task="fake/task-0", privileged=True))
    grown, read, decoded = Store.open(store.path), Store.read, []

    def spy(self, name, rows=slice(None)):
        if name.startswith("image/"):
            decoded.append((rows.start, rows.stop))
        return read(self, name, rows)

    monkeypatch.setattr(Store, "read", spy)
    assert cached_frames(store) == files
    assert decoded == []
    longer = cached_frames(grown)
    assert decoded == [(27, 36)] * 2  # each camera's new steps alone
    assert not any(file.exists() for file in files.values())
    for name, frames in contents(longer).items():
        np.testing.assert_array_equal(frames, read(grown, name))


def test_blocks_meet_where_the_copy_ends():
    for n_copied, n_steps in [(0, 0), (0, 1), (0, 256), (100, 600), (256, 257), (300, 300)]:
        blocks = list(cache._blocks(n_copied, n_steps))
        covered = [row for block in blocks for row in range(block.start, block.stop)]
        assert covered == list(range(n_steps))
        assert not any(block.start < n_copied < block.stop for block in blocks)


def test_another_store_at_the_same_path_is_decoded_anew(store, robot):
    cached_frames(store)
    shutil.rmtree(store.path)
    with Store.create(store.path, robot, privileged=True) as other:
        for i, steps in enumerate(LENGTHS):
            other.append(fake_episode(robot, steps=steps, seed=100 + i, privileged=True))
        for name, frames in contents(cached_frames(other)).items():
            np.testing.assert_array_equal(frames, other.read(name))


def test_a_dataset_outlives_the_files_it_was_made_with(store, robot):
    dataset = Dataset(store, WINDOWS)
    before = dataset.batch(np.arange(27))
    state = dataset.__getstate__()
    with Store.open(store.path, mode="a") as writer:
        writer.append(fake_episode(robot, task="fake/another", privileged=True))
        Dataset(writer, WINDOWS)
    copy = Dataset.__new__(Dataset)
    copy.__setstate__(state)
    for d in (dataset, copy):
        assert_same(d.batch(np.arange(27)), before)


def test_where_the_store_is_read_only_the_users_cache_serves(store, tmp_path, monkeypatch):
    store.path.with_name("store.zarr.cache").write_text("a file, so no folder can be made here", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    files = cached_frames(store)
    assert all((tmp_path / "user" / "foreact") in file.parents for file in files.values())
    np.testing.assert_array_equal(np.load(files["image/main"]), store.read("image/main"))


def test_where_nothing_can_be_written_frames_are_decoded_when_needed(store, monkeypatch, caplog):
    expected = Dataset(store, WINDOWS, reader="zarr").batch(np.arange(5))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    monkeypatch.setenv("XDG_CACHE_HOME", str(store.path / "nowhere"))
    with caplog.at_level(logging.WARNING):
        dataset = Dataset(store, WINDOWS)
    assert "No space left" in caplog.text
    assert "XDG_CACHE_HOME" in caplog.text
    assert not list(store.path.parent.rglob("*.partial"))
    assert_same(dataset.batch(np.arange(5)), expected)


# -- split


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.floats(0.01, 0.99), st.integers(0, 5))
def test_split(counts, held_out, seed):
    tasks = [f"t{i}" for i, n in enumerate(counts) for _ in range(n)]
    np.random.default_rng(0).shuffle(tasks)
    store = Tasks(tasks)
    if len(tasks) < 2:
        with pytest.raises(UserError, match="1 episodes of store tasks"):
            split_episodes(store, held_out, seed)
        return
    training, validation = split_episodes(store, held_out, seed)
    assert sorted([*training, *validation]) == list(range(len(tasks)))
    assert len(training) >= 1
    assert len(validation) >= 1
    assert all(np.array_equal(a, np.sort(a)) for a in (training, validation))
    for again, first in zip(split_episodes(store, held_out, seed), (training, validation), strict=True):
        np.testing.assert_array_equal(again, first)
    for i, n in enumerate(counts):
        held = sum(tasks[e] == f"t{i}" for e in validation)
        assert held < n or max(counts) == 1  # every task is trained on
        assert held <= held_out * n + 1
        assert held >= min(n - 1, int(held_out * n))


class Tasks(Store):
    """A store that knows the task of each episode and nothing else."""

    def __init__(self, tasks):
        self.path = Path("tasks")
        self._meta = {"episode_ends": range(len(tasks)), "task": tasks}
        self._meta |= {"instruction": tasks, "seed": range(len(tasks)), "source": tasks, "success": [True] * len(tasks)}


def test_split_needs_a_share(store):
    for held_out in (0.0, 1.0, -0.1):
        with pytest.raises(UserError, match="between 0 and 1"):
            split_episodes(store, held_out)
    a, b = (split_episodes(Tasks(["t"] * 20), 0.5, seed)[1].tolist() for seed in (0, 1))
    assert a != b
