import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from foreact.data import layout
from foreact.data.schema import FORMAT_VERSION, fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera

LENGTHS = [30, 1, 70]


def assert_same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, dict):
            assert x.keys() == y.keys()
            x, y = list(x.values()), list(y.values())
        for u, v in zip(x, y, strict=True) if isinstance(x, list) else [(x, y)]:
            np.testing.assert_array_equal(u, v, err_msg=field.name)
            assert getattr(u, "dtype", type(u)) == getattr(v, "dtype", type(v)), field.name


def episode(robot, i, steps):
    return fake_episode(robot, steps=steps, seed=i, task="fake/task-0", privileged=True)


# -- what goes in comes out


def test_every_episode_comes_back_as_it_was(robot, make_store):
    store = Store.open(make_store(LENGTHS))
    assert (len(store), store.n_steps) == (3, 101)
    np.testing.assert_array_equal(store.episode_ends, [30, 31, 101])
    assert store.embodiment == robot
    assert store.has_privileged
    for i, steps in enumerate(LENGTHS):
        assert_same(store.episode(i), episode(robot, i, steps))


def test_meta_and_tasks(make_store):
    store = Store.open(make_store([2, 3, 4], tasks=2))
    assert store.meta.task == ["fake/task-0", "fake/task-1", "fake/task-0"]
    assert store.meta.source == ["fake"] * 3
    assert store.meta.seed.tolist() == [0, 1, 2]
    assert store.meta.success.tolist() == [True] * 3
    assert store.tasks == ["fake/task-0", "fake/task-1"]
    assert store.instructions == {t: f"do {t}" for t in store.tasks}


def test_rows_are_read_in_any_order_with_repeats(make_store):
    store = Store.open(make_store(LENGTHS))
    rows = np.array([100, 0, 31, 31, 5])
    for name in store.names:
        np.testing.assert_array_equal(store.read(name, rows), store.read(name)[rows])
        np.testing.assert_array_equal(store.read(name, slice(3, 40)), store.read(name)[3:40])
    assert store.read("image/main", np.zeros(0, int)).shape == (0, 32, 48, 3)


def test_an_empty_store_is_readable(robot, tmp_path):
    Store.create(tmp_path / "s", robot, privileged=False).close()
    store = Store.open(tmp_path / "s")
    assert (len(store), store.n_steps, store.tasks, store.has_privileged) == (0, 0, [], False)
    assert store.read("state").shape == (0, 4)


def test_black_frames_and_zeros_are_data(robot, tmp_path):
    blank = fake_episode(robot, steps=5)
    for images in blank.images.values():
        images[:] = 0
    blank.action[:] = 0
    with Store.create(tmp_path / "s", robot, privileged=False) as store:
        store.append(blank)
    assert_same(Store.open(tmp_path / "s").episode(0), blank)


def test_appending_goes_on_after_reopening(robot, make_store):
    path = make_store(LENGTHS)
    with Store.open(path, mode="a") as store:
        assert store.append(episode(robot, 3, 9)) == 3
        assert_same(store.episode(3), episode(robot, 3, 9))
    store = Store.open(path)
    for i, steps in enumerate([*LENGTHS, 9]):
        assert_same(store.episode(i), episode(robot, i, steps))


def test_a_reader_keeps_its_snapshot(robot, make_store):
    path = make_store(LENGTHS)
    before = Store.open(path)
    with Store.open(path, mode="a") as writer:
        writer.append(episode(robot, 3, 9))
    assert (len(before), before.n_steps, before.read("state").shape) == (3, 101, (101, 4))
    assert_same(before.episode(2), episode(robot, 2, 70))


# -- other zarr readers


def test_plain_zarr_reads_it(make_store):
    path = make_store(LENGTHS)
    store = Store.open(path)
    group = zarr.open_group(path, mode="r")
    assert group.attrs["format_version"] == FORMAT_VERSION
    assert group.attrs["embodiment"]["name"] == "fake"
    assert "action" in group.attrs["conventions"]
    for name in store.names:
        alone = zarr.open_array(path / "data" / name, mode="r")  # by its own zarr.json
        np.testing.assert_array_equal(group[f"data/{name}"][:], store.read(name))
        np.testing.assert_array_equal(alone[:], store.read(name))
        assert alone.metadata.dimension_names[0] == "step"
    assert group["meta/instruction"][:].tolist() == store.meta.instruction
    np.testing.assert_array_equal(group["meta/episode_ends"][:], store.episode_ends)


def test_many_episodes_make_few_files(robot):
    robot = dataclasses.replace(robot, cameras=(Camera(name="main", mount="x"),))
    specs = layout.array_specs(robot, privileged=True)
    rows = {"data": 2500 * 80, "meta": 2500}
    files = sum(-(-rows[name[:4]] // (spec.shard or spec.chunk)) for name, spec in specs.items())
    assert files < 1100
    frame = 96 * 96 * 3
    assert specs["data/image/main"].chunk * frame <= 512 * 1024  # decoded to read one frame


# -- crashes, locks, full disks


def test_killed_at_any_moment(tmp_path):
    command = [sys.executable, Path(__file__).with_name("crash.py"), tmp_path / "s", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    episodes, by_chance, at_operations = map(int, re.findall(r"\d+", done.stdout))
    assert (episodes > 0, by_chance, at_operations > 15) == (True, 12, True)


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


# -- bad requests and bad episodes


def test_bad_requests(make_store):
    store = Store.open(make_store([3, 2]))
    with pytest.raises(UserError, match=r"unknown array of store .*'pose'; choose one of: action"):
        store.read("pose")
    for rows in ([5], [-1], [0, 99]):
        with pytest.raises(UserError, match="which has 5 steps"):
            store.read("state", np.array(rows))
    for i in (-1, 2):
        with pytest.raises(UserError, match=f"no episode {i} .* holds 2"):
            store.episode(i)
    with pytest.raises(UserError, match="not open for appending"):
        store.append(store.episode(0))


def spoil(episode, **changes):
    return dataclasses.replace(episode, **changes)


def nan(array):
    array = array.copy()
    array[3, 1] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"action": nan(e.action)}, "episode action has NaN or infinite values .first at step 3"),
        (lambda e: {"privileged": nan(e.privileged)}, "privileged has NaN"),
        (lambda e: {"state": e.state[:-1]}, r"state is float32 \(5, 4\), the store needs float32 \(6, 4\)"),
        (lambda e: {"state": e.state.astype(float)}, "state is float64"),
        (lambda e: {"images": {"main": e.images["main"]}}, "lacks images"),
        (lambda e: {"images": e.images | {"top": e.images["main"]}}, r"has images of \['top'\]"),
        (lambda e: {"images": e.images | {"main": e.images["main"][:, ::2]}}, "needs uint8"),
        (lambda e: {"depth": {}}, "lacks depth"),
        (lambda e: {"privileged": None}, "no privileged state and the store needs it"),
        (lambda e: {"instruction": ""}, "needs both"),
        (lambda e: {"instruction": "do something else"}, "has the instruction 'do fake/task-0' in store"),
        (lambda e: {"action": e.action[:0]}, "no steps"),
    ],
)
def test_bad_episodes_are_refused(robot, make_store, change, message):
    good = episode(robot, 9, 6)
    with Store.open(make_store([2]), mode="a") as store:
        with pytest.raises(UserError, match=message):
            store.append(spoil(good, **change(good)))
        assert len(store) == 1
        assert store.append(good) == 1


def test_privileged_state_has_no_place_in_a_store_without(robot, tmp_path):
    with (
        Store.create(tmp_path / "s", robot, privileged=False) as store,
        pytest.raises(UserError, match="has none"),
    ):
        store.append(episode(robot, 0, 3))


def test_append_is_fast(robot, tmp_path):
    """80 frames of 96 pixels take about 15 ms. Processor time, so that a busy machine does not count."""
    robot = dataclasses.replace(robot, cameras=(Camera(name="main", mount="x"),))
    new, times = episode(robot, 0, 80), []
    with Store.create(tmp_path / "s", robot, privileged=True) as store:
        for _ in range(8):
            start = time.process_time()
            store.append(new)
            times.append(time.process_time() - start)
    assert min(times) < 0.05
