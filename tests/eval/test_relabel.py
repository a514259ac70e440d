"""A policy drives in the simulator, the scripted expert labels what it visits, and the training goes on."""

import json

import numpy as np
import pytest
from foreact import envs
from foreact.__main__ import main
from foreact.data.doctor import diagnose
from foreact.data.store import Store
from foreact.policy import load_policy
from foreact.policy.fingerprint import fingerprint

pytestmark = pytest.mark.sim


def collected(run, out, **settings):
    asked = {
        "tasks": "[reach]",
        "episodes": 2,
        "max_steps": 24,
        "seed": 1,
        "workers": 1,
        "relabel": "expert",
    } | settings
    assert (
        main(["collect", f"policy={run}", f"out={out}", *(f"{k}={v}" for k, v in asked.items() if v is not None)]) == 0
    )
    return Store.open(out)


@pytest.fixture(scope="module")
def visited(metaworld_run, tmp_path_factory):
    """Where the policy went in one episode of each task, for all to read."""
    path = tmp_path_factory.mktemp("labelled") / "visited"
    collected(metaworld_run, path, tasks="[reach,button-press]", episodes=1, beta=0.25).close()
    return path


def test_a_labelled_store_replays(metaworld_run, visited):
    """The expert's action at each visited state is the stored label, and the robot goes where it went."""
    store, by_expert = Store.open(visited), []
    for i in range(len(store)):
        episode = store.episode(i)
        env = envs.make(episode.task, cameras=store.embodiment.cameras)
        obs, _ = env.reset(seed=episode.seed)
        for n in range(len(episode)):
            assert np.array_equal(obs["state"], episode.state[n])
            assert np.array_equal(obs["images"]["main"], episode.images["main"][n])
            assert np.array_equal(env.expert_action(), episode.action[n])
            by_expert.append(np.array_equal(episode.action[n], episode.action_executed[n]))
            obs, *_ = env.step(episode.action_executed[n])
        env.close()
    assert 0.05 < np.mean(by_expert) < 0.5
    record = json.loads((visited / "zarr.json").read_text(encoding="utf-8"))["attributes"]["collect"]
    assert record["policy"] == fingerprint(load_policy(metaworld_run, "cpu").model)
    assert (record["relabel"], record["beta"]) == ("expert", 0.25)
    assert [f for f in diagnose(visited, simulate=False) if "action_executed[" in str(f)] == []


def test_the_training_goes_on_with_both_stores(metaworld_run, visited, tmp_path):
    more = ["model=joint/tiny", "model.pixels=32", "model.instruction=table", "steps=1", "batch_size=4", "held_out=0.5"]
    own = f"{metaworld_run.parent / 'data'}"
    data = f"data=[{own}, {{path: {visited}, share: 0.5}}]"
    assert main(["train", data, f"init={metaworld_run}", f"out={tmp_path / 'more'}", *more]) == 0
    learned = load_policy(tmp_path / "more", "cpu").learned
    assert [one.path.rsplit("/", 1)[-1] for one in learned] == ["data", "data", "visited"]


@pytest.mark.slow
def test_whoever_records_it_is_the_same_store(metaworld_run, tmp_path):
    one = collected(metaworld_run, tmp_path / "one", episodes=3)
    two = collected(metaworld_run, tmp_path / "two", episodes=3, workers=2)
    assert one.meta.seed.tolist() == two.meta.seed.tolist()
    for name in one.names:
        assert np.array_equal(one.read(name), two.read(name)), name
