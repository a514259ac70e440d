"""The policies that come with foreact: what was promised of them, and that they work."""

import json

import pytest
from foreact import envs
from foreact.__main__ import main
from foreact.eval.pack import MOST_BYTES
from foreact.policy import load_policy
from foreact.policy.checkpoint import PACKAGED

NAMES = sorted(file.parent.name for file in PACKAGED.glob("*/policy.json"))


def test_all_together_are_small():
    assert NAMES
    assert sum(file.stat().st_size for name in NAMES for file in (PACKAGED / name).iterdir()) <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_each_knows_its_tasks_by_their_sentences_and_has_a_card_with_results(name):
    policy = load_policy(PACKAGED / name, "cpu")
    assert sum(p.numel() for p in policy.model.parameters()) <= 15e6
    assert set(policy.sentences.known) == {envs.task(task).instruction for task in policy.tasks}
    card = (PACKAGED / name / "README.md").read_text(encoding="utf-8")
    assert "| task mean |" in card
    for task in policy.tasks:
        assert f"| {envs.task(task).name} | " in card


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.parametrize("name", NAMES)
def test_each_opens_a_drawer(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["tasks=[drawer-open-v3]", "episodes=2", "video=0", "workers=1", "out=eval"]
    assert main(["eval", f"checkpoint=pretrained/{name}", *asked]) == 0
    assert json.loads((tmp_path / "eval" / "results.json").read_text(encoding="utf-8"))["task_mean"] == 1.0
