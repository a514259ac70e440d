import sys
from importlib.resources import files

import numpy as np
import pytest
import yaml
from foreact.envs.errors import UserError
from foreact.eval.bench.act import PLAIN, act_arms, bench_act
from foreact.eval.bench.model import _work, bench_train, fake_policy
from foreact.eval.bench.peers import lerobot
from foreact.policy.config import ModelConfig, build

TINY = build(ModelConfig, yaml.safe_load(files("foreact.configs").joinpath("model/joint/tiny.yaml").read_text()))


def test_the_baseline_computes_the_same_actions():
    side = TINY.pixels
    seen = [{"images": {"main": np.full((side, side, 3), 9, np.uint8)}, "state": np.ones(4, np.float32)}]
    arms = act_arms(TINY)
    a, b = (fake_policy(arms[name]).act(seen, ["go"], [(0, 0, 0)]) for name in list(arms)[:2])
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert len(arms) == 3


def test_tokens_and_flops_are_counted():
    tokens, flops = _work(TINY)
    context = 16 + 1 + 1 + 1  # cells, summary, state, instruction
    assert tokens == context + 3 * 16 + 0.5 * (16 + 16)
    weights = sum(p.numel() for p in fake_policy(TINY).model.backbone.blocks.parameters())
    assert flops == 6 * tokens * weights


def test_both_end_with_their_ratio(capsys, monkeypatch):
    monkeypatch.setattr("foreact.eval.bench.act.find_spec", lambda name: None)  # exporting is tested elsewhere
    bench_act(TINY, device="cpu", rounds=1, tokens=[4], steps=3)
    out = capsys.readouterr().out
    assert PLAIN in out
    assert "3 control steps: median" in out
    assert "against actions alone: " in out
    assert out.strip().splitlines()[-1].startswith("ratio ")
    bench_train(TINY, device="cpu", batch_size=2, rounds=1)
    out = capsys.readouterr().out
    assert "samples/s" in out
    assert out.strip().splitlines()[-1].startswith("ratio ")


def test_peers_say_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="give an interpreter that has lerobot"):
        lerobot(str(tmp_path / "python"), "act", 1)
    sizes = {"pixels": 32, "state": 2, "action": 2, "rounds": 1, "settings": {}}
    with pytest.raises(UserError, match=r"ended with status 1:(.|\n)*No module named 'lerobot'"):
        lerobot(sys.executable, "act", 1, **sizes)
