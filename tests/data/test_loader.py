"""The order of samples, batches made ahead by a thread or by processes, and the memory that they take."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from foreact.data.dataset import READERS, Dataset
from foreact.data.loader import Loader
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from hypothesis import given
from hypothesis import strategies as st

from .test_dataset import LENGTHS, WINDOWS, assert_same


@pytest.fixture
def store(make_store):
    return Store.open(make_store(LENGTHS, tasks=2))


# -- order


@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 3))
def test_each_epoch_is_a_permutation(n, batch_size, seed):
    loader = Loader(Rows(n), batch_size=batch_size, seed=seed)
    steps = -(-3 * n // batch_size)
    stream = np.concatenate([loader.rows_at(s) for s in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))
    again = Loader(Rows(n), batch_size=batch_size, seed=seed)
    for step in reversed(range(steps)):  # whatever was asked before
        np.testing.assert_array_equal(again.rows_at(step), loader.rows_at(step))


class Rows(Dataset):
    """A dataset that has a length and nothing else."""

    def __init__(self, n):
        self.rows = np.arange(n)


def test_seeds_and_epochs_differ():
    first = [Loader(Rows(50), batch_size=50, seed=s).rows_at(e).tolist() for s in (0, 1) for e in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(first, 2))


def test_weights_favour():
    weights = np.array([0, 1, 3, 0], float)
    loader = Loader(Rows(4), batch_size=100, seed=0, weights=weights)
    drawn = np.concatenate([loader.rows_at(s) for s in range(40)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / len(drawn), weights / 4, atol=0.02)
    np.testing.assert_array_equal(loader.rows_at(7), drawn[700:800])


def test_bad_loaders():
    for settings in ({"batch_size": 0}, {"workers": -1}, {"seed": -1}):
        with pytest.raises(UserError, match="the loader needs"):
            Loader(Rows(3), **({"batch_size": 2, "seed": 0} | settings))
    for weights, message in [
        (np.ones(2), "the dataset has 3 samples"),
        (np.array([1, -1, 1.0]), "not negative"),
        (np.zeros(3), "not all zero"),
        (np.array([1, np.nan, 1]), "finite"),
    ]:
        with pytest.raises(UserError, match=message):
            Loader(Rows(3), batch_size=2, seed=0, weights=weights)
    with pytest.raises(UserError, match="numbered from 0, got -1"):
        Loader(Rows(3), batch_size=2, seed=0).rows_at(-1)


# -- ahead


@pytest.mark.parametrize("reader", READERS)
def test_a_thread_gives_the_same_batches_and_ends(store, reader):
    loader = Loader(Dataset(store, WINDOWS, reader=reader), batch_size=8, seed=3)
    batches = loader.iterate(start=5)
    for step in range(5, 15):
        assert_same(next(batches), loader.batch_at(step))
    assert [t.name for t in threading.enumerate()].count("foreact-loader") == 1
    batches.close()
    assert "foreact-loader" not in [t.name for t in threading.enumerate()]


def test_an_error_in_the_thread_arrives(store, monkeypatch):
    loader = Loader(Dataset(store, WINDOWS), batch_size=8, seed=3)
    monkeypatch.setattr(loader, "batch_at", lambda step: loader.dataset.batch(np.array([99])))
    with pytest.raises(UserError, match="samples 99 to 99 asked of a dataset of 27"):
        next(loader.iterate())
    assert "foreact-loader" not in [t.name for t in threading.enumerate()]


@pytest.mark.slow
def test_workers_give_the_same_batches(store):
    loader = Loader(Dataset(store, WINDOWS), batch_size=8, seed=3, workers=2)
    batches = loader.iterate(start=5)
    for step in range(5, 15):
        assert_same(next(batches), loader.batch_at(step))
    batches.close()


ORPHANS = """
import multiprocessing, os, sys
from foreact.data.dataset import Dataset
from foreact.data.loader import Loader
from foreact.data.store import Store
from foreact.data.windows import Windows
if __name__ == "__main__":
    dataset = Dataset(Store.open(sys.argv[1]), Windows(), reader="zarr")
    batches = Loader(dataset, batch_size=2, seed=0, workers=1).iterate()
    next(batches)
    print(*(p.pid for p in multiprocessing.active_children()), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed(store, tmp_path, alive):
    script = tmp_path / "train.py"
    script.write_text(ORPHANS, encoding="utf-8")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, script, store.path], stdin=pipe, stdout=pipe, stderr=pipe) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        workers = [int(pid) for pid in run.stdout.readline().split()]
        assert workers, run.stderr.read().decode()
        os.kill(run.pid, signal.SIGKILL)
        assert b"Traceback" not in run.stderr.read()  # ends with the last process that could write there
    assert not any(alive(pid) for pid in workers)


# -- memory


GROWTH = """
import sys
from pathlib import Path
from foreact.data import tensor_rows
from foreact.data.dataset import Dataset
from foreact.data.loader import Loader
from foreact.data.store import Store
from foreact.data.windows import Windows

def own_memory():  # bytes that no file stands behind: pages of mapped files are the system's to take back
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])

tensor_rows.CACHE_BYTES = int(sys.argv[3])
with Store.open(sys.argv[1]) as store:
    loader = Loader(Dataset(store, Windows(n_obs_steps=2, horizon=3), reader=sys.argv[2]), batch_size=8, seed=0)
    batches = loader.iterate()
    next(batches)
    before, most = own_memory(), 0
    for _ in range(300):  # each frame three times
        next(batches)
        most = max(most, own_memory() - before)
    batches.close()
print(most)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of a process")
@pytest.mark.parametrize("reader", READERS)
def test_a_store_of_four_times_the_cache_is_read_without_growth(tmp_path, robot, reader):
    """What is allowed, and the chunks of a batch that are being decoded."""
    allowed, camera = 16 * 2**20, dataclasses.replace(robot.cameras[0], height=128, width=128)
    robot = dataclasses.replace(robot, cameras=(camera,))
    with Store.create(tmp_path / "large", robot, privileged=False) as large:
        for seed in range(40):
            large.append(fake_episode(robot, steps=4 * allowed // (128 * 128 * 3) // 40 + 1, seed=seed))
        assert large.n_steps * 128 * 128 * 3 >= 4 * allowed
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "large"), reader, str(allowed)]
    env = os.environ | {"MALLOC_ARENA_MAX": "1"}  # what the allocator keeps for each thread is not the reader's
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < allowed + 40 * 2**20
