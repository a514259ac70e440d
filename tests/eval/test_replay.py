import numpy as np
import pytest
from foreact.data.schema import Episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.eval.replay import _cameras, replay

QUIET = {"progress": False, "registry": "fake_worlds"}


def demonstration(worlds, task, seed, *, noise=0.3, success=True):
    """An episode of the toy expert, with noise on what is executed."""
    env, rng = worlds.make(task), np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    rows = {"images": [], "state": [], "action": [], "action_executed": []}
    done = False
    while not done and len(rows["state"]) < (60 if success else 3):
        action = env.expert_action()
        executed = np.clip(action + rng.normal(0, noise, 2), -1, 1).astype(np.float32)
        for name, value in {"state": obs["state"], "action": action, "action_executed": executed}.items():
            rows[name].append(value)
        rows["images"].append(obs["images"]["main"])
        _, done, _ = env.advance(executed)
        obs = env.observe()
    assert done == success
    images = {"main": np.stack(rows.pop("images"))}
    about = {"task": f"fake/{task}", "instruction": worlds.task(task).instruction, "source": "expert"}
    arrays = {name: np.stack(values) for name, values in rows.items()}
    return Episode(images=images, **arrays, **about, seed=seed, success=success)


@pytest.fixture
def make_store(worlds, tmp_path):
    def build(*episodes):
        with Store.create(tmp_path / "store", worlds.EMBODIMENT, privileged=False) as store:
            for episode in episodes:
                store.append(episode)
        return tmp_path / "store"

    return build


def test_a_clean_store_replays_exactly(worlds, make_store, tmp_path):
    episodes = [demonstration(worlds, task, seed) for seed in range(2) for task in ("near", "far")]
    path = make_store(*episodes, demonstration(worlds, "far", 9, success=False))
    results = replay(path, out=tmp_path / "out", workers=2, **QUIET)
    assert results["task_mean"] == 1.0
    assert [e["seed"] for e in results["per_task"]["near"]["episodes"]] == [0, 1]
    found = results["replay"]
    assert found["frames"] == sum(len(e) for e in episodes) + 3
    assert found["max_frame_diff"] == 0
    assert found["max_state_diff"] == 0
    assert found["differing"] == []
    assert found["stored_failures"] == {"n": 1, "failed_again": 1}
    assert replay(path, out=tmp_path / "out", **QUIET)["replay"] == found  # resumed: nothing left to do
    assert replay(path, every=4, workers=1, **QUIET)["replay"]["frames"] < found["frames"]


def test_faults_are_found(worlds, make_store, tmp_path):
    flipped, negated, shifted = (demonstration(worlds, "far", seed) for seed in (1, 2, 3))
    flipped.images["main"] = flipped.images["main"][:, ::-1].copy()
    negated.action_executed = -negated.action_executed
    shifted.seed = 77
    results = replay(make_store(flipped, negated, shifted), out=tmp_path / "out", workers=1, **QUIET)
    outcomes = [e["success"] for e in results["per_task"]["far"]["episodes"]]
    assert outcomes == [True, False, False]
    differing = {e["episode"]: e for e in results["replay"]["differing"]}
    assert set(differing) == {0, 1, 2}
    assert differing[0]["mismatch"] == {"step": 0, "camera": "main", "diff": 255}
    assert differing[0]["state_diff"] == 0
    assert differing[1]["mismatch"]["step"] > 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Episodes that came out otherwise than stored (3)" in page


def test_episodes_without_a_seed_are_reported(worlds, make_store, capsys):
    outside = demonstration(worlds, "near", 5)
    outside.seed = -1
    results = replay(make_store(outside), registry="fake_worlds")
    assert results["replay"]["skipped"] == {"no seed is stored": 1}
    assert results["task_mean"] is None
    assert "1 episodes not replayed: no seed is stored" in capsys.readouterr().out


def test_each_episode_is_drawn_in_its_own_look(worlds):
    cameras = worlds.EMBODIMENT.cameras
    assert _cameras(cameras, "expert") == _cameras(cameras, "expert@home") == cameras
    assert [c.look for c in _cameras(cameras, "expert@reference")] == ["reference"]


def test_bad_input(worlds, make_store, tmp_path):
    with pytest.raises(UserError, match="no store at"):
        replay(tmp_path / "nowhere", **QUIET)
    path = make_store(demonstration(worlds, "near", 1))
    with pytest.raises(UserError, match="at least 1"):
        replay(path, every=0, **QUIET)
