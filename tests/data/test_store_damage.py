"""A store that is damaged or of another version, and what is no store at all."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import zarr
from foreact.data.schema import FORMAT_VERSION
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera

from .conftest import episode
from .test_store import LENGTHS


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
    root = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    change(root)
    (path / "zarr.json").write_text(json.dumps(root), encoding="utf-8")


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
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="not a readable foreact store"):
        Store.open(tmp_path / "file")
    zarr.open_group(tmp_path / "other", mode="w")
    with pytest.raises(UserError, match="no format_version"):
        Store.open(tmp_path / "other")
    path = make_store([2])
    rewrite(path, lambda root: root.pop("consolidated_metadata"))
    with pytest.raises(UserError, match=r"lacks.*consolidated_metadata"):
        Store.open(path)
    (path / "zarr.json").write_text('{"zarr_format": 3, ', encoding="utf-8")
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
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="cannot create a store"):
        Store.create(tmp_path / "file" / "s", robot, privileged=False)
    assert not (tmp_path / "s").exists()
