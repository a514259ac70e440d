"""Presets and their settings: every one builds, and what is wrong is told."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from foreact.envs.errors import UserError
from foreact.policy.config import ModelConfig
from foreact.policy.nn.config import BackboneConfig
from foreact.policy.settings import build
from foreact.policy.train import build_preset

FOLDER = Path(str(files("foreact.configs"))) / "model"
PRESETS = sorted(str(p.relative_to(FOLDER).with_suffix("")) for p in FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name):
    assert build_preset(yaml.safe_load(FOLDER.joinpath(f"{name}.yaml").read_text(encoding="utf-8"))).name == name


class TestConfigErrors:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"horizon": -1}, "horizon must be at least 1, got -1"),
            ({"n_action_steps": 9}, "n_action_steps 9 > horizon 6"),
            ({"future": (0,)}, "at least one step ahead"),
            ({"future": ()}, "needs future frames"),
            ({"coupling": "tight"}, "unknown coupling 'tight'; choose one of: action_blind"),
            ({"draws": {"predict": 1}, "future": (4,)}, "'predict' shows some of the future frames, so it needs two"),
            ({"draws": {"dream": 1}}, "unknown query 'dream'"),
            ({"draws": {}}, "draws is empty"),
            ({"draws": {"policy": 1.5}}, "whole number, got 1.5"),
            ({"pixels": 40}, "does not divide|do not divide"),
        ],
    )
    def test_contradictions(self, preset, changes, message):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(preset, **changes)

    def test_unknown_missing_and_mistyped_keys(self):
        backbone = {"width": 32, "depth": 2, "heads": 2}
        with pytest.raises(UserError, match="unknown setting of BackboneConfig: 'widht'"):
            build(BackboneConfig, {**backbone, "widht": 3})
        with pytest.raises(UserError, match="lacks name"):
            build(ModelConfig, {"backbone": backbone})
        with pytest.raises(UserError, match="horizon must be int, got 'long'"):
            build(ModelConfig, {"name": "x", "backbone": backbone, "horizon": "long"})


def test_a_setting_of_a_process_keeps_the_rest_of_its_default():
    values = yaml.safe_load((FOLDER / "joint" / "tiny.yaml").read_text(encoding="utf-8"))
    plain = build(ModelConfig, values)
    lighter = build(ModelConfig, {**values, "future_process": {"weight": 0.5}})
    assert lighter.future_process == dataclasses.replace(plain.future_process, weight=0.5)
    assert lighter.future_process.target == "x0"


def test_no_draws_leave_a_query_out():
    values = yaml.safe_load((FOLDER / "joint" / "tiny.yaml").read_text(encoding="utf-8"))
    assert build(ModelConfig, {**values, "draws": {"policy": 3, "continue": 0, "joint": 0}}).draws == {"policy": 3}
