"""Benchmarks that read stores and roll out: both sides do the same work."""

import dataclasses
import sys
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml
from foreact import envs
from foreact.data.dataset import Dataset
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.data.windows import Windows
from foreact.envs.metaworld_tasks import CAMERA, EMBODIMENT
from foreact.eval.bench import loader, rollouts
from foreact.eval.bench.model import fake_policy
from foreact.eval.bench.rollouts import Drawn, Ran, bench_eval
from foreact.policy.config import ModelConfig
from foreact.policy.settings import build

TINY = build(
    ModelConfig, yaml.safe_load(files("foreact.configs").joinpath("model/joint/tiny.yaml").read_text(encoding="utf-8"))
)


@pytest.fixture
def store(tmp_path):
    robot = dataclasses.replace(EMBODIMENT, cameras=(dataclasses.replace(CAMERA, height=16, width=16),))
    with Store.create(tmp_path / "store", robot, privileged=False) as made:
        for i in range(2):
            made.append(fake_episode(robot, steps=14, seed=i, task="toy/a"))
    return tmp_path / "store"


def test_loader_reads_the_same_windows_faster(store, capsys, monkeypatch):
    windows = Windows(n_obs_steps=2, horizon=16)
    with Store.open(store) as opened:
        first = Dataset(opened, windows).batch(np.array([3]))
        plain = loader.PlainWindows(store.parent / "plain", opened, windows)[3]
    for camera, frames in first.images.items():
        assert torch.equal(plain[camera], frames[0])
    assert first.state is not None
    assert first.action is not None
    assert torch.equal(plain["state"], first.state[0])
    assert torch.equal(plain["action"], first.action[0])
    monkeypatch.setattr(loader, "_torch", lambda dataset, size, workers: iter(lambda: None, 0))  # has its own tests
    for name, value in {"SECONDS": 0, "BATCHES": (2,), "FRAMES": (1, 2)}.items():
        monkeypatch.setattr(loader, name, value)
    loader.bench_loader(store, batch_size=2, rounds=1, batches=2, out=store.parent / "plots")
    assert (store.parent / "plots" / "loader.png").stat().st_size > 1000
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("ratio ")


@pytest.mark.slow
@pytest.mark.sim
def test_both_loops_do_the_same(capsys):
    policy = fake_policy(TINY, sentence=envs.task("reach-v3").instruction)
    bench_eval(policy, ["reach-v3"], episodes=2, rounds=1, max_steps=12, growth=False)
    out = capsys.readouterr().out
    assert out.count("0 of 2") == 2
    assert out.strip().splitlines()[-1].startswith("ratio ")


def test_loops_take_turns_and_growth_is_plotted(capsys, monkeypatch, tmp_path):
    met = []

    def loop(name):
        return lambda actor, tasks, max_steps, seeds: met.append((name, list(seeds))) or Ran(len(seeds), 9)

    monkeypatch.setattr(rollouts, "LOOPS", {name: loop(name) for name in rollouts.LOOPS})
    policy = fake_policy(TINY, sentence=envs.task("reach-v3").instruction)
    bench_eval(policy, ["reach-v3"], episodes=2, rounds=2, seed=5, out=tmp_path)
    assert met[:4] == [(name, seeds) for seeds in ([5, 6], [7, 8]) for name in rollouts.LOOPS]
    assert [seeds for _, seeds in met[4:]] == [[5]] * 2 + [[5, 6]] * 2 + [[5, 6, 7, 8]] * 2
    assert "4 of 4" in capsys.readouterr().out
    assert (tmp_path / "eval.png").stat().st_size > 1000


def test_lerobots_own_loop_is_timed_by_the_step(capsys, monkeypatch, tmp_path):
    side = tmp_path / "side.py"
    side.write_text(
        "import sys\nprint('foreact: {}', flush=True)\n"
        "for _ in sys.stdin: print('foreact: {\"steps\": 4}', flush=True)",
        encoding="utf-8",
    )
    monkeypatch.setattr("foreact.eval.bench.peers.SIDE", side)
    monkeypatch.setattr(rollouts, "LOOPS", dict.fromkeys(rollouts.LOOPS, lambda actor, tasks, steps, seeds: Ran(1, 9)))
    policy = fake_policy(TINY, sentence=envs.task("reach-v3").instruction)
    bench_eval(policy, ["reach-v3"], rounds=1, growth=False, peer=sys.executable, device="cpu")
    assert rollouts.LEROBOT[:20] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.sim
def test_the_slow_loop_shows_the_policy_the_same():
    camera = dataclasses.replace(CAMERA, height=24, width=24)
    env, slow = envs.make("reach-v3", cameras=[camera]), Drawn("reach-v3", [camera], every=2)
    seen, (theirs, _) = env.reset(seed=1000)[0], slow.reset(seed=1000)
    for step in range(1, 4):
        assert theirs["frame"].shape == (480, 480, 3)
        if step % 2:
            assert np.array_equal(theirs[camera.name], seen["images"][camera.name])
        action = np.full(4, 0.5, np.float32)
        env.advance(action)
        seen, theirs = env.observe(), slow.step(action)[0]
        assert np.allclose(slow.sim.data.qpos, env._sim.data.qpos)
    env.close()
    slow.close()
