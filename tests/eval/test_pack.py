"""A run as a folder to give away, found by its name."""

import json
import shutil

import numpy as np
import pytest
import torch
from foreact import envs
from foreact.__main__ import main
from foreact.envs.errors import UserError
from foreact.eval import pack as packing
from foreact.eval.casting import about_checkpoint
from foreact.eval.pack import pack
from foreact.policy import checkpoint, load_policy
from foreact.policy.fingerprint import fingerprint
from safetensors.torch import load_file

TASKS = ("metaworld/button-press-v3", "metaworld/reach-v3")


@pytest.fixture
def run(metaworld_run):
    return metaworld_run


def results_of(run, policy, task_rows=None) -> dict:
    rows = task_rows or {"button-press-v3": 1.0, "reach-v3": 0.5}
    per_task = {task: {"success": rate, "n": 2, "ci95": [0.1, 1.0], "episodes": []} for task, rate in rows.items()}
    means = {"task_mean": 0.75, "task_mean_ci95": [0.5, 1.0], "group_mean": 0.75, "group_mean_ci95": [0.5, 1.0]}
    settings = {"seed": 1000, "episodes": 2, "max_steps": 500}
    about = {"policy": {"fingerprint": fingerprint(policy.model)}, "settings": settings, "command": "foreact eval …"}
    return about | {"per_task": per_task} | means


def write_results(folder, results):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def test_a_packed_policy_acts_nearly_as_before_and_is_half_the_size(run, tmp_path):
    folder = pack(run, tmp_path / "pretrained" / "tiny")
    names = {"README.md", "model.safetensors", "normalizers.json", "policy.json", "run.json"}
    assert {file.name for file in folder.iterdir()} == names
    before, after = load_policy(run, "cpu"), load_policy(folder, "cpu")
    tensors = load_file(folder / "model.safetensors")
    assert all(tensors[f"model.{name}"].dtype == torch.bfloat16 for name, _ in before.model.named_parameters())
    assert all(p.dtype == torch.float32 for p in after.model.parameters())
    large = (checkpoint.find_checkpoint(run) / "model.safetensors").stat().st_size
    assert (folder / "model.safetensors").stat().st_size < 0.6 * large
    seen = {"images": {"main": np.zeros((1, 32, 32, 3), np.uint8)}, "state": np.zeros((1, 4), np.float32)}
    words = [envs.task(TASKS[0]).instruction]
    a, b = (policy.act([seen], words, [(1, 2)]) for policy in (before, after))
    np.testing.assert_allclose(a, b, atol=0.05)
    assert about_checkpoint(folder)["alignment"] == 0


def test_the_card_says_what_it_is_and_names_no_folder_of_this_machine(run, tmp_path):
    card = (pack(run, tmp_path / "pretrained" / "tiny") / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# tiny\n")
    for line in (
        "foreact eval checkpoint=pretrained/tiny tasks=[button-press-v3]",
        "| learned from | 2 episodes of 2 tasks |",
        "| updates | 2, batches of 4 |",
        "| simulator state in training | no |",
        "foreact train data=data",
        "Not measured yet. Tasks: button-press-v3, reach-v3.",
    ):
        assert line in card
    for file in ("README.md", "run.json", "policy.json"):
        assert str(tmp_path.parent) not in (tmp_path / "pretrained" / "tiny" / file).read_text(encoding="utf-8")


def test_results_are_of_these_weights_or_of_those_before_rounding_or_an_error(run, tmp_path):
    out = tmp_path / "pretrained" / "tiny"
    before = write_results(tmp_path / "before", results_of(run, load_policy(run, "cpu")))
    card = (pack(run, out, results=before) / "README.md").read_text(encoding="utf-8")
    assert "Success of the weights before they were rounded to bf16, seeds 1000 to 1001" in card
    after = write_results(tmp_path / "after", results_of(run, load_policy(out, "cpu")))
    card = (pack(run, out, results=after) / "README.md").read_text(encoding="utf-8")
    assert "Success of these weights" in card
    assert "| reach-v3 | 50 % [10, 100] |" in card
    assert "| group mean | 75 % [50, 100] |" in card
    other = results_of(run, load_policy(run, "cpu"))
    other["policy"]["fingerprint"] = "0" * 16
    with pytest.raises(UserError, match=r"results are of weights 0{16}"):
        pack(run, out, results=write_results(tmp_path / "other", other))
    assert "Success of these weights" in (out / "README.md").read_text(encoding="utf-8")  # what was there stays


def test_a_run_that_is_not_at_its_end_and_folders_of_others_are_refused(run, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(run, half)
    about = json.loads((half / "run.json").read_text(encoding="utf-8"))
    about["config"]["train"]["steps"] = 9
    (half / "run.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(UserError, match="is trained to step 2 of 9"):
        pack(half, tmp_path / "pretrained" / "half")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine exists and was not made by `foreact pack`"):
        pack(run, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "pretrained").glob("*")] == []


def test_all_packed_folders_together_are_small(run, tmp_path, monkeypatch):
    first = pack(run, tmp_path / "pretrained" / "one")
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setattr(packing, "MOST_BYTES", int(1.5 * size))
    with pytest.raises(UserError, match=r"two would be [\d.]+ MB, beside one [\d.]+; together at most"):
        pack(run, tmp_path / "pretrained" / "two")
    assert [p.name for p in (tmp_path / "pretrained").iterdir()] == ["one"]
    pack(run, first)  # again, in its place


@pytest.fixture
def packaged(run, tmp_path, monkeypatch):
    """A policy as if it had come with foreact, seen from another folder."""
    monkeypatch.setattr(checkpoint, "PACKAGED", tmp_path / "site" / "pretrained")
    monkeypatch.setenv("FOREACT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return pack(run, tmp_path / "site" / "pretrained" / "tiny")


def test_a_policy_that_comes_with_foreact_is_found_by_its_name(packaged, tmp_path):
    assert load_policy("pretrained/tiny", "cpu").tasks == list(TASKS)
    with pytest.raises(UserError, match="unknown pretrained policy 'large'; choose one of: tiny"):
        load_policy("pretrained/large")
    shutil.rmtree(packaged)
    with pytest.raises(UserError, match="unknown pretrained policy 'tiny'; choose one of: none yet"):
        load_policy("pretrained/tiny")


def test_a_folder_of_that_name_here_comes_first(packaged, run, tmp_path):
    pack(run, tmp_path / "pretrained" / "tiny")
    assert checkpoint.find_checkpoint("pretrained/tiny") == (tmp_path / "pretrained" / "tiny").relative_to(tmp_path)


@pytest.mark.sim
def test_it_is_evaluated_right_away(packaged, tmp_path):
    small = ["tasks=[button-press]", "episodes=1", "max_steps=8", "video=0", "workers=1"]
    assert main(["eval", "checkpoint=pretrained/tiny", *small]) == 0
    results = json.loads((tmp_path / "home" / "eval-tiny" / "results.json").read_text(encoding="utf-8"))
    assert results["policy"]["alignment"] == 0
    assert results["per_task"]["button-press-v3"]["n"] == 1
    assert not (tmp_path / "pretrained").exists()
    assert main(["pack", f"checkpoint={packaged}", "out=out/copy", f"results={tmp_path / 'home' / 'eval-tiny'}"]) == 0
    assert "Success of these weights" in (tmp_path / "out" / "copy" / "README.md").read_text(encoding="utf-8")
