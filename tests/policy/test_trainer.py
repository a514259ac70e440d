"""What a policy's training draws, and what it tells of each task."""

import dataclasses

import numpy as np
import pytest
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.policy import train
from foreact.policy.fitting import TrainConfig
from foreact.policy.run_folder import draw_curves, read_metrics
from foreact.policy.trainer import Trainer
from foreact.policy.validate import loss_of_tasks, validation_loss

SHORT = TrainConfig(
    steps=2, batch_size=8, warmup=1, held_out=0.3, log_every=1, val_every=2, precision="fp32", device="cpu"
)


@pytest.fixture
def uneven(tmp_path, embodiment):
    """Three short episodes of one task and three of another that are four times as long."""
    with Store.create(tmp_path / "store", embodiment, privileged=False) as made:
        for i in range(6):
            task, sentence, steps = (("toy/l", "go left", 10), ("toy/r", "go right", 40))[i % 2]
            episode = fake_episode(embodiment, steps=steps, seed=i)
            made.append(dataclasses.replace(episode, task=task, instruction=sentence))
    return tmp_path / "store"


def shares(trainer: Trainer) -> tuple[float, float]:
    """Of the samples drawn: of the short task, and of the first two steps of an episode."""
    (loader,) = trainer.loaders
    rows = np.concatenate([loader.rows_at(step) for step in range(400)])
    return float((loader.dataset.task[rows] == 0).mean()), float((loader.dataset.step[rows] < 2).mean())


@pytest.mark.parametrize(("balance", "wanted"), [(0.0, 0.2), (0.5, 1 / 3), (1.0, 0.5)])
def test_tasks_are_drawn_by_steps_or_alike(uneven, preset, balance, wanted):
    config = dataclasses.replace(SHORT, task_balance=balance)
    short, _ = shares(Trainer(uneven, preset, config))
    assert short == pytest.approx(wanted, abs=0.03)


def test_balanced_tasks_keep_their_likelier_first_steps(uneven, preset):
    config = dataclasses.replace(SHORT, task_balance=1.0, early=3.0, early_steps=2)
    short, early = shares(Trainer(uneven, preset, config))
    assert short == pytest.approx(0.5, abs=0.03)
    assert early == pytest.approx((6 / 14 + 6 / 44) / 2, abs=0.03)


def test_the_loss_of_each_task_is_told(uneven, preset, tmp_path):
    run = train(uneven, preset, dataclasses.replace(SHORT, val_per_task=4), tmp_path / "run", progress=False)
    records = read_metrics(run / "metrics.jsonl")
    last = records[-1]
    assert {name for name in last if name.startswith("task/")} == {"task/l", "task/r"}
    assert last["minutes"] > 0
    draw_curves(records, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_the_loss_of_all_is_the_mean_over_the_tasks_samples(uneven, preset):
    trainer = Trainer(uneven, dataclasses.replace(preset, draws={"policy": 1}), SHORT)
    policy, data = trainer.averaged(), trainer.held_out
    of_tasks = loss_of_tasks(policy, data, most=100, precision="fp32")
    counts = {name: int((data.task == i).sum()) for i, name in enumerate(("l", "r"))}
    mean = sum(of_tasks[name] * n for name, n in counts.items()) / len(data)
    whole = validation_loss(policy, data, batch_size=len(data), batches=1, precision="fp32")["action"]
    assert mean == pytest.approx(whole, rel=0.15)  # other noise for other batches


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"task_balance": 1.5}, "task_balance goes from 0"), ({"val_per_task": -1}, "val_per_task is a number of steps")],
)
def test_bad_settings(bad, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SHORT, **bad)
