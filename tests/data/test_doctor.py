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

from .faults import EPISODES, FAULTS, edit, failed_episode, nan_action

TASKS = ("pick-place-v3", "reach-v3")


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
        edit(copy, "data/image/main", lambda frames: frames[:, ::-1, ::-1], episode)
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
    path.write_text(json.dumps({"state": own}), encoding="utf-8")
    assert diagnose(clean, path.parent, simulate=False) == []
    other = own | {"mean": [own["mean"][0] * 1000, *own["mean"][1:]]}  # millimetres
    path.write_text(json.dumps({"state": other}), encoding="utf-8")
    [finding] = diagnose(clean, path.parent, simulate=False)
    assert finding.check == "checkpoint_statistics"
    assert "dimension 0" in finding.message
    path.write_text(json.dumps({"state": {"mean": [0.0], "std": [1.0]}}), encoding="utf-8")
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
