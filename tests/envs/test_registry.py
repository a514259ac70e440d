"""The list of tasks, and what happens where a name, or the simulator, is not there. No simulator needed."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from foreact import envs
from foreact.envs.metaworld_tasks import EMBODIMENT


def test_fifty_metaworld_tasks_in_four_groups():
    tasks = [envs.task(name) for name in envs.tasks("metaworld")]
    assert len(tasks) == 50
    assert Counter(task.group for task in tasks) == {"easy": 28, "medium": 11, "hard": 6, "very_hard": 5}
    assert {task.max_steps for task in tasks} == {500}


def test_every_instruction_is_a_unique_sentence():
    tasks = [envs.task(name) for name in envs.tasks()]
    assert max(Counter(task.instruction.lower() for task in tasks).values()) == 1
    for task in tasks:
        assert task.instruction[0].isupper()
        assert len(task.instruction.split()) >= 3
        assert task.success


def test_names_resolve_while_unique(monkeypatch):
    assert envs.resolve("reach-v3") == envs.resolve("metaworld/reach-v3") == "metaworld/reach-v3"
    assert envs.task("reach-v3").name == "reach-v3"
    other = {"reach-v3": envs.Task(id="other/reach-v3", instruction="Reach", success="", max_steps=1)}
    monkeypatch.setitem(envs.SUITES, "other", envs.Suite(other, envs.embodiment("reach"), {}, ".nowhere"))
    with pytest.raises(envs.UserError, match="metaworld/reach-v3, other/reach-v3"):
        envs.resolve("reach-v3")
    assert envs.task("other/reach-v3") is other["reach-v3"]
    assert envs.tasks("other") == ["other/reach-v3"]


@pytest.mark.parametrize("call", [envs.make, envs.task, envs.resolve])
@pytest.mark.parametrize("name", ["reach-v9", "metaworld/reech", "nowhere/reach-v3", ""])
def test_an_unknown_task_lists_the_choices(call, name):
    with pytest.raises(envs.UserError, match=r"choose one of: metaworld/assembly-v3, .*metaworld/window-open-v3"):
        call(name)


def test_named_views_of_a_suite():
    default = list(envs.embodiment("reach").cameras)
    assert envs.views("reach") == default
    main, top = envs.views("metaworld/push-v3", ["main", "top"], pixels=32)
    assert main == replace(default[0], height=32, width=32)
    assert (top.name, top.mount, top.width) == ("top", "topview", 32)
    with pytest.raises(envs.UserError, match="unknown camera 'ceiling'; choose one of: main, top, wrist"):
        envs.views("reach", ["ceiling"])


def test_an_unknown_suite_lists_the_choices():
    with pytest.raises(envs.UserError, match="unknown suite 'mars'; choose one of: metaworld"):
        envs.tasks("mars")


def test_the_embodiment_survives_json():
    assert envs.Embodiment.from_dict(json.loads(json.dumps(EMBODIMENT.to_dict()))) == EMBODIMENT
    assert (EMBODIMENT.state_dim, EMBODIMENT.action_dim, EMBODIMENT.privileged_dim) == (4, 4, 9)


@pytest.mark.parametrize("missing", ["gymnasium", "mujoco", "metaworld"])
def test_without_the_simulator_the_names_work_and_make_says_what_to_install(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from foreact import envs
assert len(envs.tasks()) >= 50
try:
    envs.make("reach-v3")
except envs.UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "foreact[sim]"' in done.stdout, done.stderr


def test_importing_envs_imports_no_simulator():
    code = "import sys, foreact.envs; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"mujoco", "metaworld", "gymnasium", "torch"}.isdisjoint(loaded)
