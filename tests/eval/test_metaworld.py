"""Rollouts in the real simulator."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from foreact import envs
from foreact.data.store import Store
from foreact.data.video import read_video
from foreact.eval import evaluate
from foreact.eval.actors import PolicyActor
from foreact.eval.policies import Asked
from foreact.eval.replay import replay

from .test_rollout import records

pytestmark = pytest.mark.sim


@pytest.mark.slow  # the fast ones: in toy worlds in test_rollout.py, and of the expert alone in envs/test_experts.py
def test_expert_succeeds_and_random_fails():
    tasks = ["button-press-v3", "drawer-open-v3"]
    expert = evaluate("expert", tasks, episodes=2, workers=1, progress=False)
    assert expert["task_mean"] == 1.0
    assert expert["groups"]["easy"]["tasks"] == 2
    random = evaluate("random", tasks[:1], episodes=2, workers=1, max_steps=60, progress=False)
    assert random["task_mean"] == 0.0


@pytest.fixture(scope="module")
def policy():
    """A policy with random weights at 32 pixels: it does nothing useful, and every input counts."""
    torch = pytest.importorskip("torch")
    from foreact.data.normalize import Normalizer
    from foreact.envs.metaworld_tasks import EMBODIMENT
    from foreact.policy.config import ModelConfig
    from foreact.policy.model import Model
    from foreact.policy.nn.config import BackboneConfig
    from foreact.policy.policy import Policy
    from foreact.policy.sentences import Sentences
    from foreact.policy.tokens.images import ImageConfig
    from foreact.policy.transforms import Transforms

    spec = EMBODIMENT.to_dict()
    spec["cameras"][0] |= {"height": 32, "width": 32}
    embodiment = type(EMBODIMENT).from_dict(spec)
    config = ModelConfig(
        name="toy",
        backbone=BackboneConfig(width=32, depth=2, heads=2),
        image=ImageConfig(channels=(8, 16, 32)),
        pixels=32,
        n_obs_steps=2,
        horizon=8,
        n_action_steps=4,
        future=(4, 8),
        draws={"joint": 1},
        instruction="table",
    )
    tasks = ["metaworld/button-press-v3", "metaworld/reach-v3"]
    sentences = Sentences.learn([envs.task(t).instruction for t in tasks], "table")
    torch.manual_seed(0)
    model = Model(config, embodiment, len(tasks))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    rng = np.random.default_rng(0)
    sizes = {"state": embodiment.state_dim, "action": embodiment.action_dim}
    normalizers = {k: Normalizer.fit(rng.normal(size=(50, n)), "gaussian") for k, n in sizes.items()}
    return Policy(model, Transforms(config, embodiment, normalizers), sentences, tasks, "cpu")


def test_a_row_does_not_depend_on_its_neighbours(policy):
    rng = np.random.default_rng(0)
    asked = [
        Asked(
            observation={
                "images": {"main": rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)},
                "state": rng.normal(size=(2, 4)).astype(np.float32),
            },
            instruction=policy.sentences.known[i % 2],
            key=(1000, i, 0),
            task="reach-v3",
        )
        for i in range(6)
    ]
    actor = PolicyActor(policy=policy, batch_shape=6)
    together, _ = actor.act(asked)
    backwards, _ = actor.act(asked[::-1])
    assert np.array_equal(together, backwards[::-1])
    for rows in ([0], [5, 2], [3, 1, 4]):
        some, _ = actor.act([asked[i] for i in rows])
        assert np.array_equal(some, together[rows])
    assert len(np.unique(together.reshape(6, -1), axis=0)) == 6


@pytest.mark.slow  # the toy worlds of test_rollout.py have the same engine, and the rows of this policy the test above
def test_records_are_bit_identical_for_any_workers_and_environments(policy, tmp_path):
    options = {"episodes": 2, "max_steps": 8, "batch_size": 3, "progress": False}
    one = evaluate(policy, workers=1, n_envs=1, **options)
    many = evaluate(policy, workers=2, n_envs=4, out=tmp_path, video=1, **options)
    assert records(one) == records(many)
    assert set(one["per_task"]) == {"button-press-v3", "reach-v3"}
    videos = sorted((tmp_path / "videos").iterdir())
    assert len(videos) == 2
    assert read_video(videos[0]).shape[2] >= 3 * 3 * 32


@pytest.fixture(scope="module")
def deep_store(tmp_path_factory):
    """Two demonstrations with depth, at 32 pixels."""
    from foreact.data.collect import collect

    path = tmp_path_factory.mktemp("deep") / "store"
    cameras = envs.views("button-press-v3", ["main"], 32, depth=True)
    collect(["button-press-v3"], 2, path, workers=1, cameras=cameras, progress=False).close()
    return path


def test_a_collected_store_replays_exactly(deep_store):
    results = replay(deep_store, workers=1, every=3, progress=False)
    assert results["task_mean"] == 1.0
    assert results["replay"]["frames"] > 20
    assert results["replay"]["differing"] == []


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("joint", {"depth": 2.0}), pytest.param("pad", {}, marks=pytest.mark.slow), ("pad", {"depth": 2.0})],
)
def test_depth_and_poses_from_the_store_to_the_simulator(deep_store, tmp_path, preset, changes):
    import yaml
    from foreact.configs import __path__ as folders
    from foreact.policy import ModelConfig, TrainConfig, load_policy, train
    from foreact.policy.settings import build

    text = (Path(next(iter(folders))) / "model" / preset / "tiny.yaml").read_text(encoding="utf-8")
    config = build(ModelConfig, yaml.safe_load(text) | {"pixels": 32, "instruction": "table"})
    config = dataclasses.replace(config, solver=dataclasses.replace(config.solver, steps=2), **changes)
    short = TrainConfig(steps=1, batch_size=4, warmup=1, held_out=0.5, precision="fp32", device="cpu")
    policy = load_policy(train(deep_store, config, short, tmp_path / "run", progress=False), "cpu")
    assert ("depth" in policy.model.segments) == bool(changes)
    results = evaluate(policy, episodes=1, workers=1, max_steps=24, out=tmp_path, video=1, progress=False)
    (episode,) = results["per_task"]["button-press-v3"]["episodes"]
    assert episode["length"] == 24 or episode["success"]
    assert len(list((tmp_path / "videos").iterdir())) == 1


def test_stored_depth_is_what_the_hand_is_away_from_the_camera(deep_store):
    """Metres along the view: the table is about 1.1 m from lerobot's camera, and nothing is nearer than the arm."""
    with Store.open(deep_store) as store:
        depth = store.read("depth/main", slice(0, 4))
    assert depth.dtype == np.float32
    assert 0.2 < depth.min() < 1.5
    assert 0.5 < np.median(depth) < 2.5


def test_fresh_episodes_are_recorded_and_foreseen(policy, tmp_path):
    from foreact.eval.imagine import imagine
    from foreact.eval.recording import record

    with record(policy, "button-press-v3", 1, tmp_path / "live", driver="expert") as store:
        assert store.meta.success.tolist() == [True]
        found = imagine(policy, store, queries=["joint"], every=20, out=tmp_path, progress=False)
    assert found["queries"]["joint"]["looks"] > 0


@pytest.mark.slow
def test_expert_solves_the_tasks():
    tasks = envs.tasks("metaworld")
    results = evaluate("expert", tasks, episodes=5, progress=False)
    assert len(results["per_task"]) == 50
    assert results["task_mean"] >= 0.95
    random = evaluate("random", tasks, episodes=1, max_steps=100, progress=False)
    assert random["task_mean"] <= 0.06
