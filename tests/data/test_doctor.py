import json
import shutil

import numpy as np
import pytest
import zarr
from foreact import envs
from foreact.data.collect import collect
from foreact.data.doctor import CHECKS, diagnose, report
from foreact.data.store import Store
from foreact.envs.errors import UserError
from rich.console import Console

TASKS = ("pick-place-v3", "reach-v3")
EPISODES = 2
FREEZE = 20  # steps


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A real store: scripted experts with exploration noise, 48-pixel pictures."""
    pytest.importorskip("metaworld")
    path = tmp_path_factory.mktemp("doctor") / "clean"
    collect(TASKS, EPISODES, path, workers=1, cameras=envs.views(TASKS[0], ["main"], 48), progress=False)
    return path


@pytest.fixture
def copy(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "copy")


def _edit(path, name, change, episode=1):
    """Change the rows of one episode in place, with plain zarr."""
    array = zarr.open_array(path / name, mode="r+")
    rows = _rows(path, episode)
    values = np.asarray(array[rows])
    changed = change(values)
    array[rows] = values if changed is None else changed


def _rows(path, episode):
    ends = np.asarray(zarr.open_array(path / "meta/episode_ends", mode="r")[:])
    return slice(int(ends[episode - 1]) if episode else 0, int(ends[episode]))


def nan_action(path):
    def change(values):
        values[7, 1] = np.nan

    _edit(path, "data/action", change)


def frozen_camera(path):
    def change(frames):
        frames[10 : 10 + FREEZE] = frames[10]

    _edit(path, "data/image/main", change)


def clipped_actions(path):
    for name in ("data/action", "data/action_executed"):
        _edit(path, name, lambda values: values.clip(-0.3, 0.3))


def unclipped_actions(path):
    _edit(path, "data/action", lambda values: values * 3)


def constant_action(path):
    for name in ("data/action", "data/action_executed"):
        _edit(path, name, lambda values: values[:1].repeat(len(values), axis=0))


def saturated_gripper(path):
    def change(values):
        values[:, 3] = 1.0

    _edit(path, "data/state", change)


def saturated_gripper_effort(path):
    def change(values):
        values[:, 3] = 1.0

    _edit(path, "data/action_executed", change)


def wrong_length(path):
    ends = zarr.open_array(path / "meta/episode_ends", mode="r+")
    ends[2] = int(np.asarray(ends[1])) - 3


def lost_rows(path):
    array = zarr.open_array(path / "data/state", mode="r+")
    array.resize((array.shape[0] - 4, array.shape[1]))


def time_gap(path):
    for name in ("state", "action", "action_executed", "privileged", "image/main"):

        def change(values):  # 12 steps are missing on the way; the robot rests at the end instead
            values[8:-12] = values[20:].copy()
            values[-12:] = values[-1]

        _edit(path, f"data/{name}", change, episode=EPISODES)  # of reach, which moves from the start


def duplicate_episode(path):
    with Store.open(path, "a") as store:
        store.append(store.episode(2))


def repeated_seed(path):
    seeds = zarr.open_array(path / "meta/seed", mode="r+")
    seeds[1] = int(np.asarray(seeds[0]))


def flipped_action_sign(path):
    def change(values):
        values[:, 1] *= -1

    for name in ("data/action", "data/action_executed"):
        _edit(path, name, change)


def opposed_actions(path):
    def change(values):
        values[:, 1] *= -1

    _edit(path, "data/action", change)


def shifted_actions(path):
    for name in ("data/action", "data/action_executed"):
        _edit(path, name, lambda values: np.roll(values, 8, axis=0))


def flipped_images(path):
    _edit(path, "data/image/main", lambda frames: frames[:, ::-1])


def black_frames(path):
    def change(frames):
        frames[5:9] = 0

    _edit(path, "data/image/main", change)


def corrupted_chunk(path):
    chunk = max((path / "data/image/main").glob("c*"))
    content = bytearray(chunk.read_bytes())
    for i in range(len(content) // 4, len(content) // 4 + 64):
        content[i] ^= 0xFF
    chunk.write_bytes(content)


def lost_chunk(path):
    next((path / "data/action").glob("c*")).unlink()


def missing_instruction(path):
    zarr.open_array(path / "meta/instruction", mode="r+")[1] = " "


def failed_episode(path):
    zarr.open_array(path / "meta/success", mode="r+")[1] = False


FAULTS = {
    nan_action: "not_finite",
    frozen_camera: "frozen_camera",
    clipped_actions: "clipped_action",
    unclipped_actions: "out_of_bounds",
    constant_action: "constant_action",
    saturated_gripper: "saturated_gripper",
    saturated_gripper_effort: "saturated_gripper",
    wrong_length: "wrong_length",
    lost_rows: "wrong_length",
    time_gap: "time_gap",
    duplicate_episode: "duplicate_episode",
    repeated_seed: "duplicate_episode",
    flipped_action_sign: "state_action",
    opposed_actions: "state_action",
    shifted_actions: "state_action",
    flipped_images: "flipped_images",
    black_frames: "blank_frames",
    corrupted_chunk: "unreadable",
    lost_chunk: "unreadable",
    missing_instruction: "instruction",
    failed_episode: "failed_episodes",
}


@pytest.mark.sim
def test_a_clean_store_has_nothing(clean):
    assert diagnose(clean) == []


@pytest.mark.sim
@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(copy, plant):
    plant(copy)
    findings = diagnose(copy, simulate=False)
    assert FAULTS[plant] in {finding.check for finding in findings}, findings
    for finding in findings:
        assert finding.message
        assert finding.remedy


@pytest.mark.sim
@pytest.mark.parametrize("episodes", [[0], range(2 * EPISODES)], ids=["one", "all"])
def test_the_simulator_tells_how_pictures_are_turned(copy, episodes):
    for episode in episodes:
        _edit(copy, "data/image/main", lambda frames: frames[:, ::-1, ::-1], episode)
    found = [finding for finding in diagnose(copy) if finding.check == "simulator"]
    assert len(found) == min(len(episodes), len(TASKS))
    assert "rotated by half a turn" in found[0].message


@pytest.mark.sim
def test_the_simulator_tells_a_wrong_seed(copy):
    zarr.open_array(copy / "meta/seed", mode="r+")[0] = 7
    assert {finding.check for finding in diagnose(copy)} == {"simulator"}


@pytest.mark.sim
def test_statistics_are_compared_to_a_checkpoint(clean, tmp_path):
    with Store.open(clean) as store:
        state = store.read("state").astype(np.float64)
    own = {"mean": state.mean(0).tolist(), "std": state.std(0).tolist()}
    path = tmp_path / "run" / "normalizers.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"state": own}))
    assert diagnose(clean, path.parent, simulate=False) == []
    other = own | {"mean": [own["mean"][0] * 1000, *own["mean"][1:]]}  # millimetres
    path.write_text(json.dumps({"state": other}))
    [finding] = diagnose(clean, path.parent, simulate=False)
    assert finding.check == "checkpoint_statistics"
    assert "dimension 0" in finding.message
    path.write_text(json.dumps({"state": {"mean": [0.0], "std": [1.0]}}))
    [finding] = diagnose(clean, path.parent, simulate=False)
    assert "4 dimensions" in finding.message


def test_what_is_no_store_or_checkpoint_is_told(tmp_path):
    with pytest.raises(UserError, match="no store at"):
        diagnose(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no normalizers\.json"):
        diagnose(tmp_path, tmp_path)
    [finding] = diagnose(tmp_path)
    assert finding.check == "unreadable"


@pytest.mark.sim
def test_a_report_shows_the_worst_first_and_counts(copy, capsys):
    failed_episode(copy)
    nan_action(copy)
    report(copy, diagnose(copy, simulate=False), Console(width=200))
    text = capsys.readouterr().out
    assert text.index("not_finite") < text.index("failed_episodes")
    assert "1 errors, 0 warnings, 1 notes" in text


def test_every_check_but_the_rare_ones_is_planted():
    rare = {"too_short", "checkpoint_statistics", "simulator", "slots"}  # slots: test_slots.py
    assert CHECKS.keys() - set(FAULTS.values()) == rare
