import dataclasses
import sys
from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml
from foreact.data.batch import fake_batch
from foreact.envs.errors import UserError
from foreact.eval.bench import timing
from foreact.eval.bench.act import PLAIN, act_arms, bench_act
from foreact.eval.bench.frozen import FrozenBackbone
from foreact.eval.bench.model import fake_policy
from foreact.eval.bench.peers import check_peer, diffusion, lerobot
from foreact.eval.bench.train import FROZEN, RECOMPUTED, TUNED, Rehearsal, bench_train
from foreact.policy.config import ModelConfig
from foreact.policy.settings import build

PRESET = build(
    ModelConfig, yaml.safe_load(files("foreact.configs").joinpath("model/joint/tiny.yaml").read_text(encoding="utf-8"))
)
TINY = dataclasses.replace(
    PRESET,
    pixels=32,
    solver=dataclasses.replace(PRESET.solver, steps=3),
    backbone=dataclasses.replace(PRESET.backbone, width=64, depth=2),
)


def test_the_baseline_computes_the_same_actions():
    side = TINY.pixels
    seen = [{"images": {"main": np.full((side, side, 3), 9, np.uint8)}, "state": np.ones(4, np.float32)}]
    arms = act_arms(TINY)
    a, b = (fake_policy(arms[name]).act(seen, ["go"], [(0, 0, 0)]) for name in list(arms)[:2])
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert len(arms) == 3


def test_the_frozen_backbone_computes_the_same():
    tuned = fake_policy(TINY).model.backbone
    torch.nn.init.normal_(tuned.to_modulation.weight, std=0.1)
    frozen, d = FrozenBackbone(tuned), tuned.config.width
    seen, x, t = torch.randn(2, 5, d), torch.randn(2, 3, 4, d), torch.rand(2, 3, 2)
    selector, mask = torch.eye(2)[[0, 0, 1, 1]].expand(2, 3, 4, 2), torch.ones(4, 9, dtype=torch.bool)
    mask[:2, 7:] = False
    outs = []
    for net in (tuned, frozen):
        timed, context = net.timed(t), net.encode(seen, whole=True)
        hidden = net.denoise(x, timed, context, selector=selector, mask=mask)
        outs.append(torch.cat([net.finish(hidden, timed.rows, selector).flatten(), context.tokens.flatten()]))
    torch.testing.assert_close(*outs, rtol=2e-2, atol=2e-3)  # GELU is not approximated in the same way


@pytest.mark.parametrize("arm", [FROZEN, RECOMPUTED])
def test_arms_of_training_learn_the_same(arm):
    norms = []
    for name in (TUNED, arm):
        run = Rehearsal(TINY, 2, name, "cpu")
        run.batch = fake_batch(run.policy.embodiment, size=2, n_obs_steps=TINY.n_obs_steps, horizon=TINY.horizon)
        run.precision = "fp32"
        norms.append(run.update(iter([(run.batch,)] * 2))["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-6 if arm == RECOMPUTED else 1e-2)


def test_act_ends_with_its_ratio(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("foreact.eval.bench.act.find_spec", lambda name: None)  # exporting is tested elsewhere
    monkeypatch.setattr("foreact.eval.bench.act.SOLVER_STEPS", (2,))
    monkeypatch.setattr("foreact.eval.bench.act.CAMERAS", (2,))
    bench_act(TINY, device="cpu", rounds=1, tokens=[4], steps=3, out=tmp_path)
    out = capsys.readouterr().out
    assert PLAIN in out
    assert "3 control steps: median" in out
    assert "against actions alone: " in out
    assert out.strip().splitlines()[-1].startswith("ratio ")
    assert (tmp_path / "act.png").stat().st_size > 1000


@pytest.mark.slow
def test_train_ends_with_its_ratio(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("foreact.eval.bench.train.BATCHES", (2,))
    monkeypatch.setattr("foreact.eval.bench.train.DRAWS", (1,))
    monkeypatch.setattr("foreact.eval.bench.train._show_memory", lambda *_: None)  # a process for each arm
    bench_train(TINY, device="cpu", batch_size=2, rounds=1, out=tmp_path)
    out = capsys.readouterr().out
    assert "frozen" in out
    assert "GFLOP an update" in out
    assert out.strip().splitlines()[-1].startswith("ratio ")
    assert (tmp_path / "train.png").stat().st_size > 1000


def test_runs_take_turns():
    order = []
    times = timing.alternating({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert "".join(order) == "ab" * 4
    assert [len(values) for values in times.values()] == [2, 2]


def test_a_table_tells_how_much_faster(capsys):
    timing.show("title", {"slow": [10, 10, 10], "fast": [4, 5, 6]}, "slow", {"note": {"fast": "indeed"}})
    line = next(line for line in capsys.readouterr().out.splitlines() if "fast" in line)
    assert "2.00" in line
    assert "4.5 to 5.5" in line
    assert "indeed" in line


def test_peers_say_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="is timed on the CPU, and this bench runs on cuda"):
        check_peer("python", "cuda")
    with pytest.raises(UserError, match="give an interpreter that has lerobot"), lerobot(str(tmp_path / "x"), "act", 1):
        pass


@pytest.mark.slow
def test_an_interpreter_without_lerobot_says_so():
    with pytest.raises(UserError, match=r"ended with status 1:(.|\n)*No module named 'lerobot'"):  # noqa: SIM117
        with lerobot(sys.executable, "act", 1, **diffusion(TINY)):
            pass


def test_a_peer_works_when_it_is_asked(tmp_path, monkeypatch):
    """The protocol alone, with another script in the place of lerobot's side."""
    side = tmp_path / "side.py"
    side.write_text(
        "import json, sys\n"
        "print('a banner')\n"
        "print('foreact: ' + json.dumps({'parameters': 7}), flush=True)\n"
        "for i, _ in enumerate(sys.stdin):\n"
        "    open(sys.argv[0] + f'.{i}', 'w').close()\n"
        "    assert i < 2, 'tired'\n"
        "    print('noise\\nforeact: [7]', flush=True)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("foreact.eval.bench.peers.SIDE", side)
    with lerobot(sys.executable, "act", 1) as peer:
        assert peer.about == {"parameters": 7}
        for n in (1, 2):
            assert peer() == [7]
            assert len(list(tmp_path.glob("side.py.*"))) == n
        with pytest.raises(UserError, match=r"ended with status 1:(.|\n)*tired"):
            peer()


def test_a_peer_has_the_presets_frames_and_chunks():
    asked = diffusion(TINY, down_dims=[32])
    assert asked["pixels"] == TINY.pixels
    assert asked["settings"]["horizon"] % 8 == 0
    assert asked["settings"]["horizon"] >= TINY.horizon
    assert asked["settings"]["n_obs_steps"] == TINY.n_obs_steps
    assert asked["settings"]["down_dims"] == [32]
