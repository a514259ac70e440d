"""What goes into a store comes out of it, for us and for other readers; bad requests and episodes are refused."""

import dataclasses
import time

import numpy as np
import pytest
import zarr
from foreact.data import layout
from foreact.data.schema import FORMAT_VERSION, fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera

from .conftest import episode

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
