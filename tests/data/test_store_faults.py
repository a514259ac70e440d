"""A store after crashes, on full disks, when damaged, and what is no store at all."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr
from foreact.data import layout
from foreact.data.schema import FORMAT_VERSION
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera

from .conftest import episode
from .test_store import LENGTHS, assert_same

# -- crashes, locks, full disks


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


# -- damage


def damage_bits(file):
    content = bytearray(file.read_bytes())
    for place in range(len(content) // 8, len(content), max(1, len(content) // 8)):
        content[place] ^= 0x55
    file.write_bytes(content)


def damage_end(file):
    file.write_bytes(file.read_bytes()[:-7])


def damage_all(file):
    file.write_bytes(b"")


@pytest.fixture(scope="module")
def long_store(robot, tmp_path_factory):
    """Episodes of 600, 400 and 60 steps: the frames of the last one lie in two files."""
    path = tmp_path_factory.mktemp("long") / "s"
    with Store.create(path, robot, privileged=True) as store:
        for i, steps in enumerate([600, 400, 60]):
            store.append(episode(robot, i, steps))
    return path


@pytest.mark.parametrize("damage", [damage_bits, damage_end, damage_all, Path.unlink])
@pytest.mark.parametrize(
    ("name", "file", "number"),
    [("image/main", "c.1.0.0.0", 2), ("depth/main-left", "c.0.0.0", 0), ("state", "c.0.0", 0)],
)
def test_damage_is_found_and_named(long_store, tmp_path, damage, name, file, number):
    path = shutil.copytree(long_store, tmp_path / "s")
    damage(path / "data" / name / file)
    store = Store.open(path)
    with pytest.raises(UserError) as raised:
        store.read(name)
    assert f"array 'data/{name}' of episode {number} " in str(raised.value)
    assert str(path / "data" / name / file) in str(raised.value)
    if name == "image/main":
        assert len(store.episode(1)) == 400  # the other episodes stay readable


def test_damaged_meta_is_named(make_store):
    path = make_store(LENGTHS)
    damage_bits(path / "meta/task/c.0")
    with pytest.raises(UserError, match=r"'meta/task' of episode 0 .*meta/task/c\.0"):
        Store.open(path)


# -- not a store


def rewrite(path, change):
    root = json.loads((path / "zarr.json").read_text())
    change(root)
    (path / "zarr.json").write_text(json.dumps(root))


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize(
    ("version", "mend"),
    [(FORMAT_VERSION + 1, "update foreact"), (0, "collect or convert"), ("x", "collect or convert")],
)
def test_other_versions_are_refused(make_store, mode, version, mend):
    path = make_store([2])
    rewrite(path, lambda root: root["attributes"].update(format_version=version))
    with pytest.raises(UserError, match=f"format version {version!r}, this foreact reads version 1; {mend}"):
        Store.open(path, mode=mode)


def test_what_is_not_a_store_is_refused(make_store, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Store.open(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="it has no zarr"):
        Store.open(tmp_path / "folder")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a readable foreact store"):
        Store.open(tmp_path / "file")
    zarr.open_group(tmp_path / "other", mode="w")
    with pytest.raises(UserError, match="no format_version"):
        Store.open(tmp_path / "other")
    path = make_store([2])
    rewrite(path, lambda root: root.pop("consolidated_metadata"))
    with pytest.raises(UserError, match=r"lacks.*consolidated_metadata"):
        Store.open(path)
    (path / "zarr.json").write_text('{"zarr_format": 3, ')
    with pytest.raises(UserError, match="not a readable foreact store"):
        Store.open(path)
    with pytest.raises(UserError, match="unknown store mode 'w'"):
        Store.open(path, mode="w")


def test_create_overwrites_nothing(robot, make_store, tmp_path):
    path = make_store([2])
    with pytest.raises(UserError, match="exists already"):
        Store.create(path, robot, privileged=False)
    assert len(Store.open(path)) == 1
    (tmp_path / "empty").mkdir()
    Store.create(tmp_path / "empty", robot, privileged=False).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "store.zarr"]


def test_create_says_what_it_cannot_do(robot, tmp_path):
    plain = dataclasses.replace(robot, privileged=())
    with pytest.raises(UserError, match="no privileged fields"):
        Store.create(tmp_path / "s", plain, privileged=True)
    slash = dataclasses.replace(robot, cameras=(Camera(name="left/hand", mount="x"),))
    with pytest.raises(UserError, match="camera name 'left/hand'"):
        Store.create(tmp_path / "s", slash, privileged=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot create a store"):
        Store.create(tmp_path / "file" / "s", robot, privileged=False)
    assert not (tmp_path / "s").exists()
