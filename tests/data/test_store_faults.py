"""A store after crashes, with several writers, and on full disks."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from foreact.data import layout
from foreact.data.store import Store
from foreact.envs.errors import UserError

from .conftest import episode
from .test_store import LENGTHS, assert_same


def test_killed_at_any_moment(tmp_path):
    command = [sys.executable, Path(__file__).with_name("crash.py"), tmp_path / "s", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    episodes, by_chance, at_operations = map(int, re.findall(r"\d+", done.stdout))
    assert (episodes > 0, by_chance, at_operations > 15) == (True, 6, True)


def test_what_an_unfinished_append_left_is_removed(robot, make_store):
    path = make_store(LENGTHS)
    beyond = path / "data/image/main/c.9.0.0.0"
    half = path / "data/state/c.0.0123abc.partial"
    for file in (beyond, half):
        file.write_bytes(b"torn")
    assert len(Store.open(path)) == 3
    Store.open(path, mode="a").close()
    assert not beyond.exists()
    assert not half.exists()
    assert_same(Store.open(path).episode(2), episode(robot, 2, 70))


def test_one_writer_at_a_time(make_store):
    path = make_store(LENGTHS)
    first = Store.open(path, mode="a")
    with pytest.raises(UserError, match="another process is writing"):
        Store.open(path, mode="a")
    assert len(Store.open(path)) == 3  # readers are welcome
    first.close()
    Store.open(path, mode="a").close()


def test_the_lock_dies_with_its_holder(make_store):
    path = make_store(LENGTHS)
    code = """
import sys, time
from foreact.data.store import Store
store = Store.open(sys.argv[1], "a")
print("locked")
time.sleep(99)
"""
    with subprocess.Popen([sys.executable, "-uc", code, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match="another process is writing"):
            Store.open(path, mode="a")
        holder.kill()
    Store.open(path, mode="a").close()


class FullDisk:
    """Path.replace that fails after `room` files have been put in their place."""

    def __init__(self, room):
        self.room, self.replace = room, Path.replace

    def __call__(self, source, target):
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        self.room -= 1
        return self.replace(source, target)

    def __get__(self, path, _):
        return lambda target: self(path, target)


def test_a_full_disk_at_any_file_is_an_error_and_leaves_the_store_valid(robot, make_store, monkeypatch):
    path, new = make_store(LENGTHS), episode(robot, 3, 9)
    with Store.open(path, mode="a") as store:
        for room in range(len(layout.array_specs(robot, privileged=True)) + 1):  # each array, then the commit
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", FullDisk(room))
                with pytest.raises(UserError, match=r"No space left.* holds the 3 episodes before it"):
                    store.append(new)
            assert len(store) == len(Store.open(path)) == 3
            assert_same(Store.open(path).episode(2), episode(robot, 2, 70))
            assert not list(path.rglob("*.partial"))
        with monkeypatch.context() as patch:  # what comes after the commit is a copy for others, and may fail
            patch.setattr(Path, "replace", FullDisk(room + 1))
            assert store.append(new) == 3
    assert_same(Store.open(path).episode(3), new)


def test_after_an_interrupt_nothing_more_is_appended(robot, make_store, monkeypatch):
    path, new = make_store(LENGTHS), episode(robot, 3, 9)

    def interrupt(*_):
        raise KeyboardInterrupt

    with Store.open(path, mode="a") as store:
        with monkeypatch.context() as patch:
            patch.setattr(layout, "replace_json", interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.append(new)
        with pytest.raises(UserError, match="not open for appending"):
            store.append(new)
    with Store.open(path, mode="a") as store:
        assert store.append(new) == 3


def test_a_write_error_of_the_system(robot, tmp_path):
    """A real one: this process may not make files larger than 16 kB."""
    code = """
import resource, sys
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
store = Store.open(sys.argv[1], "a")
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
try:
    store.append(fake_episode(store.embodiment, steps=50))
except UserError as error:
    print(error)
"""
    path = tmp_path / "s"
    Store.create(path, robot, privileged=False).close()
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "File too large" in done.stdout, done.stderr
    assert len(Store.open(path)) == 0
