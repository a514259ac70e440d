"""What a policy is shown and told in an evaluation."""

import inspect
import re
import sys
from dataclasses import replace
from importlib.resources import files

import pytest
import yaml
from foreact import envs
from foreact.cli import compose
from foreact.configs import __name__ as configs
from foreact.envs.errors import UserError
from foreact.envs.render import import_mujoco
from foreact.envs.spec import Camera, Embodiment
from foreact.eval import evaluate
from foreact.eval.protocol import Protocol

QUIET = {"progress": False, "registry": "fake_worlds"}
MAIN = Camera(name="main", mount="top", height=12, width=12)
NAMES = sorted(p.name.removesuffix(".yaml") for p in files(configs).joinpath("protocol").iterdir())


def protocol_of(*overrides: str) -> Protocol:
    config = compose.config_of("eval", overrides)
    return Protocol(name=config["protocol"], **{k: config[k] for k in ("views", "look", "source", "instructions")})


def test_ours_changes_nothing():
    ours, tasks = protocol_of(), (envs.task("push-v3"), envs.task("reach-v3"))
    assert ours == Protocol()
    assert ours.told(tasks) == tasks
    assert ours.cameras([MAIN]) == (MAIN,)
    assert ours.describe(tasks) == {}


def test_lerobots_is_data():
    theirs = protocol_of("protocol=lerobot")
    config = compose.config_of("eval", ["protocol=lerobot"])
    assert (config["episodes"], config["seed"], config["max_steps"]) == (10, 1000, 500)
    tasks = theirs.told([envs.task(name) for name in envs.tasks("metaworld")])
    assert len({task.instruction for task in tasks}) == 49
    ((camera,), view) = theirs.cameras(envs.views("push-v3", ["main"], 64)), envs.views("push-v3", ["main"], 64)[0]
    assert camera == replace(view, look="stock", source=480)
    assert camera.drawn == (480, 480)
    found = theirs.describe(tasks)
    assert (found["protocol"], found["look"], found["source"]) == ("lerobot", "stock", 480)
    assert found["instructions"]["push-v3"] == found["instructions"]["push-back-v3"]
    assert compose.config_of("eval", ["protocol=lerobot", "episodes=3"])["episodes"] == 3


def test_another_camera_than_the_protocols_is_an_error():
    with pytest.raises(UserError, match=r"'lerobot' shows the cameras main, and the checkpoint sees main, top"):
        protocol_of("protocol=lerobot").cameras(envs.views("push-v3", ["main", "top"]))


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_is_one(name):
    assert protocol_of(f"protocol={name}").name == name
    text = files(configs).joinpath(f"protocol/{name}.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text).keys() <= compose.config_of("eval", []).keys()


def test_shuffled_sentences_are_those_of_the_scene():
    names = ["reach-v3", "drawer-open-v3", "push-v3", "pick-place-v3", "drawer-close-v3", "hammer-v3"]
    tasks = [envs.task(name) for name in names]
    told = {task.name: task.instruction for task in protocol_of("instructions=shuffled").told(tasks)}
    own = {task.name: task.instruction for task in tasks}
    assert told["drawer-open-v3"] == own["drawer-close-v3"]
    assert told["drawer-close-v3"] == own["drawer-open-v3"]
    assert told["hammer-v3"] == own["hammer-v3"]
    assert sorted(told.values()) == sorted(own.values())
    assert all(told[name] != own[name] for name in ("reach-v3", "push-v3", "pick-place-v3"))


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ("shuffled", "of push-v3, hammer-v3 none do"),
        ("backwards", "unknown instructions .* 'backwards'; choose one of: own, shuffled"),
        ({"push-v3": "shove it"}, "unknown task in the instructions of protocol 'foreact': 'hammer-v3'"),
    ],
)
def test_sentences_that_cannot_be_had(instructions, message):
    with pytest.raises(UserError, match=message):
        Protocol(instructions=instructions).told([envs.task("push-v3"), envs.task("hammer-v3")])


def test_the_policy_is_told_what_the_protocol_says_and_the_results_record_it(dot_policy, tmp_path):
    policy, said = dot_policy(), {"near": "over there", "far": "yonder"}
    options = {"episodes": 1, "workers": 1, "out": tmp_path, **QUIET}
    results = evaluate(policy, ["near", "far"], protocol=Protocol(instructions=said), **options)
    assert {sentence for call in policy.calls for sentence in call[0]} == set(said.values())
    assert results["settings"]["instructions"] == said
    with pytest.raises(UserError, match="instructions"):  # another evaluation: it does not go on from this one
        evaluate(policy, ["near", "far"], **options)


def test_an_evaluation_from_before_protocols_goes_on(dot_policy, tmp_path):
    options = {"episodes": 2, "workers": 1, "out": tmp_path, "cameras": [MAIN], **QUIET}
    evaluate(dot_policy(), ["near"], **options)
    assert '"source"' not in (tmp_path / "eval.json").read_text(encoding="utf-8")
    policy = dot_policy()
    evaluate(policy, ["near"], protocol=Protocol(), **options)
    assert policy.calls == []


def test_a_camera_that_is_averaged_down():
    camera = replace(MAIN, source=60)
    assert camera.drawn == (60, 60)
    assert Camera(**camera.to_dict()) == camera
    robot = envs.embodiment("push-v3")
    drawn = replace(robot, cameras=(replace(robot.cameras[0], source=480, look="stock"),))
    assert robot.differences(drawn) == []
    assert Embodiment.from_dict(drawn.to_dict()) == drawn
    assert "source" not in robot.to_dict()["cameras"][0]
    with pytest.raises(UserError, match="source=8 is drawn and averaged down to 12 pixels"):
        replace(MAIN, source=8)
    with pytest.raises(UserError, match="unknown look 'pretty'; choose one of: fast, reference, stock"):
        Protocol(look="pretty")


class TestDrawn:
    pytestmark = pytest.mark.sim

    def first_frames(self, name: str, *changes: dict):
        """Of one environment: its view, changed in each of these ways."""
        (main,) = envs.views(name, ["main"], 96)
        cameras = [replace(main, name=f"main-{i}", **change) for i, change in enumerate(changes)]
        env = envs.make(name, cameras=cameras)
        try:
            images = env.reset(seed=1000)[0]["images"]
        finally:
            env.close()
        return [images[camera.name].astype(float) for camera in cameras]

    def test_a_large_picture_averaged_is_nearly_the_small_one_and_smoother(self):
        small, large, averaged = self.first_frames("drawer-open-v3", {}, {"height": 480, "width": 480}, {"source": 480})
        mean = large.reshape(96, 5, 96, 5, 3).mean((1, 3))
        assert abs(averaged - mean).max() <= 1
        assert 0 < abs(averaged - small).mean() < 4

    def test_stock_markers_are_metaworlds_own(self):
        """In coffee-pull the goal's marker is drawn larger than Metaworld's, but for the stock look."""
        looks = ("stock", "reference")  # an environment of its own for each: the markers are the scene's
        stock, reference = (self.first_frames("coffee-pull-v3", {"look": look})[0] for look in looks)
        assert (abs(stock - reference).max(-1) > 20).sum() >= 4
        stock, reference = self.first_frames("reach-v3", *({"look": look} for look in looks))
        assert abs(stock - reference).max() == 0


@pytest.mark.sim
def test_tasks_of_a_scene_are_built_from_one_model():
    """But for those with a puck, whose models look alike."""
    import_mujoco()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    scenes: dict[str, set[str]] = {}
    for task in map(envs.task, envs.tasks("metaworld")):
        module = inspect.getsource(sys.modules[ALL_V3_ENVIRONMENTS[task.name].__module__])
        (model,) = set(re.findall(r"[\w/]+\.xml", module))
        scenes.setdefault(task.scene or task.name, set()).add(model)
    assert {scene: models for scene, models in scenes.items() if len(models) > 1 and scene != "puck"} == {}
    assert len(scenes) == len(set.union(*scenes.values())) - 2
