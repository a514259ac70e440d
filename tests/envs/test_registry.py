"""The list of tasks, and what happens where a name, or the simulator, is not there. No simulator needed."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from foreact import envs


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
    with pytest.raises(
        envs.UserError, match=r"choose one of: aloha/.*metaworld/assembly-v3, .*metaworld/window-open-v3"
    ):
        call(name)


def test_named_views_of_a_suite():
    default = list(envs.embodiment("reach").cameras)
    assert envs.views("reach") == default
    main, top = envs.views("metaworld/push-v3", ["main", "top"], pixels=32)
    assert main == replace(default[0], height=32, width=32)
    assert (top.name, top.mount, top.width) == ("top", "topview", 32)
    with pytest.raises(
        envs.UserError, match="unknown camera 'ceiling'; choose one of: main, near, near_top, top, wrist"
    ):
        envs.views("reach", ["ceiling"])


def test_an_unknown_suite_lists_the_choices():
    with pytest.raises(
        envs.UserError, match="unknown suite 'mars'; choose one of: aloha, fetch, metaworld, ogbench, pusht"
    ):
        envs.tasks("mars")


@pytest.mark.parametrize(
    ("suite", "state", "action", "privileged"),
    [("aloha", 14, 14, 3), ("fetch", 4, 4, 6), ("metaworld", 4, 4, 9), ("ogbench", 6, 5, 6), ("pusht", 2, 2, 4)],
)
def test_the_embodiment_survives_json(suite, state, action, privileged):
    robot = envs.SUITES[suite].embodiment
    assert envs.Embodiment.from_dict(json.loads(json.dumps(robot.to_dict()))) == robot
    assert (robot.state_dim, robot.action_dim, robot.privileged_dim) == (state, action, privileged)


def test_a_suite_is_whole():
    for name, suite in envs.SUITES.items():
        robot = suite.embodiment
        assert all(task.id == f"{name}/{bare}" for bare, task in suite.tasks.items())
        assert all(suite.views[camera.name] == camera for camera in robot.cameras)
        for field in (*robot.state, *robot.action, *robot.privileged):
            assert all(low < high for low, high in zip(field.low, field.high, strict=True)), field
    assert len({suite.embodiment.name for suite in envs.SUITES.values()}) == len(envs.SUITES)


def test_what_nobody_has_said_of_a_field_is_not_stored():
    """As in stores from before it could be said, which are still read."""
    stored = envs.embodiment("reach").to_dict()
    for kind in ("state", "action", "privileged"):
        assert all({"per_step", "place"}.isdisjoint(field) for field in stored[kind])
    assert envs.Embodiment.from_dict(stored) == envs.embodiment("reach")


def test_per_step_has_a_number_for_each_bound():
    with pytest.raises(envs.UserError, match="'x': 2 bounds but per_step has 1 numbers"):
        envs.Field(name="x", unit="m", low=(0.0, 0.0), high=(1.0, 1.0), per_step=(0.1,))


@pytest.mark.parametrize(
    ("missing", "task", "extra"),
    [
        ("gymnasium", "reach-v3", "sim"),
        ("mujoco", "reach-v3", "sim"),
        ("metaworld", "reach-v3", "sim"),
        ("ogbench", "cube-single", "robots"),
        ("gym_pusht", "pusht", "robots"),
        ("gym_aloha", "transfer-cube", "robots"),
        ("gymnasium_robotics", "fetch-push", "robots"),
    ],
)
def test_without_the_simulator_the_names_work_and_make_says_what_to_install(missing, task, extra):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from foreact import envs
assert len(envs.tasks()) >= 50
try:
    envs.make({task!r})
except envs.UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f'pip install "foreact[{extra}]"' in done.stdout, done.stderr


def test_importing_envs_imports_no_simulator():
    code = "import sys, foreact.envs; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"mujoco", "metaworld", "gymnasium", "pygame", "dm_control", "torch"}.isdisjoint(loaded)
