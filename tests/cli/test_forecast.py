"""What an experiment says at its start of the time it will take."""

import pytest
from foreact.cli import compose, experiment, forecast
from foreact.common import machine

SECONDS = 3 / 2 * forecast.SIDE_BY_SIDE  # of a demonstration of three, by two workers


@pytest.fixture
def stages(tmp_path):
    """Of the quickstart: ten demonstrations by two workers, 40 updates of two batches, five episodes."""
    settings = ["collect.episodes=10", "collect.workers=2", "train.steps=40", "train.accumulate=2", "eval.episodes=5"]
    config = compose.config_of("run", ["experiment=quickstart", f"out={tmp_path / 'run'}", *settings])
    asked = experiment.stages(config, experiment.experiment_folder(config))
    return {stage: compose.config_of(stage, compose.as_overrides(values)) for stage, values in asked.items()}


@pytest.fixture
def timed(monkeypatch):
    """A demonstration takes three seconds and an update of one batch half of one."""
    monkeypatch.setattr(forecast, "time_attempt", lambda task, collect: forecast.Attempt(3.0, 2))
    monkeypatch.setattr(forecast, "time_update", lambda train, cameras: 0.5 * train["accumulate"])


def test_from_nothing(stages, timed):
    found = forecast.forecast(stages)
    assert (found["collect"], found["train"]) == (pytest.approx(10 * SECONDS), 40 * 2 * 0.5)
    assert found["eval"] == pytest.approx(forecast.START + 5 * SECONDS)


def test_what_is_there_is_not_counted(stages, timed, monkeypatch, tmp_path):
    monkeypatch.setattr(forecast, "_collected", lambda store: 4)
    latest = tmp_path / "run" / "checkpoints" / "latest"
    latest.parent.mkdir(parents=True)
    latest.write_text("00000030", encoding="utf-8")
    found = forecast.forecast(stages)
    assert (found["collect"], found["train"]) == (pytest.approx(6 * SECONDS), 10 * 2 * 0.5)
    monkeypatch.setattr(forecast, "_collected", lambda store: 12)
    assert forecast.forecast(stages)["collect"] == 0


def test_it_names_the_machine(stages, timed):
    stages["train"]["device"] = "cpu"
    text = forecast.describe_forecast(stages)
    assert text.startswith("About ")
    assert machine.processor_name() in text
    assert "fp32" in text or "bf16" in text


def test_an_update_is_timed(stages):
    stages["train"]["batch_size"] = 2
    assert 0 < forecast.time_update(stages["train"], 2) < 60


@pytest.mark.sim
def test_a_demonstration_is_timed(stages):
    attempt = forecast.time_attempt("reach-v3", stages["collect"])
    assert attempt.cameras == 2
    assert 0 < attempt.seconds < 60
