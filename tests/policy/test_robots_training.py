"""Training one policy of many robots: what each learns, resuming, and beginning from a policy of others."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.envs.slot_tables.fakes import ROBOTS
from foreact.envs.spec import Embodiment
from foreact.policy import TrainConfig, load_policy, train
from foreact.policy.config import ModelConfig
from foreact.policy.run_folder import read_metrics
from foreact.policy.trainer import Trainer

from .test_robots import KINDS, NAMES, on_slots

CONFIG = TrainConfig(
    steps=4, batch_size=9, warmup=1, log_every=1, val_every=2, save_every=2, device="cpu", precision="fp32"
)
FAST = ("action",)


def store_of(path, embodiment: Embodiment, *, privileged: bool = False) -> str:
    """Four episodes of one task."""
    with Store.create(path, embodiment, privileged=privileged) as store:
        for i in range(4):
            task = f"{embodiment.name}/go"
            store.append(fake_episode(embodiment, steps=12 + i, seed=i, task=task, privileged=privileged))
    return str(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[str]:
    """One of each robot, for all to read."""
    home = tmp_path_factory.mktemp("stores")
    return [store_of(home / name, ROBOTS[name]) for name in NAMES]


@pytest.fixture(scope="module", params=[pytest.param(k, marks=() if k in FAST else pytest.mark.slow) for k in KINDS])
def config(request, preset) -> ModelConfig:
    return on_slots(preset, request.param)


def test_a_policy_of_three_robots_trains_logs_each_and_resumes_exactly(config, stores, tmp_path):
    whole = train(stores, config, CONFIG, tmp_path / "whole", progress=False)
    half = tmp_path / "half"
    trainer = Trainer(stores, config, CONFIG)
    batches = trainer.batches()
    for _ in range(2):
        trainer.update(batches)
    half.mkdir()
    trainer.save(half)
    resumed = Trainer(stores, config, CONFIG)
    resumed.resume(half / "checkpoints" / "00000002")
    batches = resumed.batches()
    for _ in range(2):
        resumed.update(batches)
    policy = load_policy(whole, "cpu")
    for key, value in resumed.averaged().model.state_dict().items():
        torch.testing.assert_close(value, policy.model.state_dict()[key], rtol=0, atol=0)
    last = read_metrics(whole / "metrics.jsonl")[-1]
    for name in NAMES:
        assert np.isfinite(last[f"loss/action/{name}"])
        assert np.isfinite(last[f"val/action/{name}"])
    assert policy.robots == list(NAMES)
    normalizers = json.loads((whole / "checkpoints" / "00000004" / "normalizers.json").read_text(encoding="utf-8"))
    assert {f"{name}/{which}" for name in NAMES for which in ("state", "action")} <= normalizers.keys()


def test_each_robot_is_aligned_to_its_own_state(tmp_path, config, caplog):
    if config.layout != "tokens":
        pytest.skip("only an encoded observation can be aligned")
    first, *others = (store_of(tmp_path / n, ROBOTS[n], privileged=n != NAMES[1]) for n in NAMES)
    aligned = dataclasses.replace(CONFIG, align=0.5)
    whole = train([first, *others], config, aligned, tmp_path / "run", progress=False)
    assert [n for n in NAMES if f"robot {n!r}" in caplog.text] == [NAMES[1]]
    last = read_metrics(whole / "metrics.jsonl")[-1]
    assert {n for n in NAMES if f"loss/align/{n}" in last and f"val/align/{n}" in last} == set(NAMES) - {NAMES[1]}
    Trainer([first, *others], config, aligned).resume(whole / "checkpoints" / "00000004")


def test_one_store_at_two_rates_is_two_robots(stores, config, tmp_path):
    data = [stores[0], {"path": stores[0], "every": 2}]
    folder = train(data, config, CONFIG, tmp_path / "run", progress=False)
    policy, own = load_policy(folder, "cpu"), ROBOTS[NAMES[0]]
    assert policy.robots == [own.name, own.at(2).name]
    slow = policy.on(own.at(2).name)
    assert (slow.embodiment.every, slow.embodiment.own_hz) == (2, own.control_hz)
    assert slow.transforms.windows == config.windows.on(own.control_hz / 2)
    assert np.isfinite(read_metrics(folder / "metrics.jsonl")[-1][f"loss/action/{own.at(2).name}"])
    recorded = json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]["data"]
    assert [source.get("every") for source in recorded] == [None, 2]
    with pytest.raises(UserError, match="another configuration"):
        train([stores[0], {"path": stores[0], "every": 3}], config, CONFIG, folder, progress=False)


def test_native_numbers_are_of_one_robot(stores, preset):
    with pytest.raises(UserError, match=r"robots aloha-viperx, ogbench-ur5e, pusht-pusher, .*model.space=slots"):
        Trainer(stores, preset, CONFIG)


def test_a_store_with_a_table_of_its_own(tmp_path, config):
    toy = dataclasses.replace(ROBOTS["pusht-pusher"], name="disc")
    path = store_of(tmp_path / "disc", toy)
    with pytest.raises(UserError, match="nobody has said where the fields of 'disc' lie"):
        Trainer(path, config, CONFIG)
    policy = Trainer({"path": path, "slots": "pusht-pusher"}, config, CONFIG).policy
    assert policy.embodiment.action[0].place is not None


@pytest.fixture(scope="module")
def worded(config) -> ModelConfig:
    """With sentence vectors, as new tasks need them."""
    return dataclasses.replace(config, instruction="minilm")


@pytest.fixture(scope="module")
def first(stores, worded, tmp_path_factory):
    """A run of the first two robots."""
    return train(stores[:2], worded, CONFIG, tmp_path_factory.mktemp("first") / "run", progress=False)


@pytest.mark.parametrize("lora", [0, 4])
def test_another_robot_begins_from_a_policy(stores, tmp_path, worded, first, lora):
    settings = dataclasses.replace(CONFIG, lora=lora)
    second = train(stores[2:], worded, settings, tmp_path / "second", init=first, progress=False)
    before, after = (load_policy(run, "cpu") for run in (first, second))
    assert after.robots == ["pusht-pusher"]
    blocks = [p.model.backbone.blocks[0].mlp.up.weight for p in (before, after)]
    assert not torch.equal(*blocks)
    rank = np.linalg.matrix_rank((blocks[1] - blocks[0]).detach().numpy(), tol=1e-7)
    assert rank <= lora if lora else rank > 4


def test_begin_keeps_cameras_by_name_and_statistics_of_known_robots(stores, worded):
    start = Trainer(stores[:2], worded, CONFIG).policy
    begun = Trainer(stores[1:], worded, CONFIG, start=start).policy
    assert begun.robots == ["ogbench-ur5e", "pusht-pusher"]
    ours, theirs = (p.on("ogbench-ur5e").transforms.normalizers["state"] for p in (begun, start))
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    for camera in ("front", "side", "top"):
        kept = []
        for policy in (begun, start):
            names = [c.name for c in policy.transforms.rig.cameras]
            kept.append(policy.model.image_position.view(len(names), -1)[names.index(camera)])
        torch.testing.assert_close(*kept, rtol=0, atol=0)


def test_without_slots_it_begins_for_other_tasks_of_the_same_robot(stores, worded, tmp_path):
    native = dataclasses.replace(worded, space="native")
    start = Trainer(stores[0], native, CONFIG).policy
    path = tmp_path / "other"
    with Store.create(path, ROBOTS[NAMES[0]], privileged=False) as other:
        for i in range(4):
            episode = fake_episode(ROBOTS[NAMES[0]], steps=12, seed=i, task="toy/stop")
            other.append(dataclasses.replace(episode, instruction="stop"))
    begun = Trainer(str(path), native, CONFIG, start=start).policy
    assert (begun.tasks, list(begun.sentences.known)) == (["toy/stop"], ["stop"])
    torch.testing.assert_close(begun.model.state_dict(), start.model.state_dict(), rtol=0, atol=0)
    with pytest.raises(UserError, match=r"differ in robot: .*"):
        Trainer(stores[1], native, CONFIG, start=start)
    listed = dataclasses.replace(native, instruction="table")
    with pytest.raises(UserError, match=r"differ in instructions: \['do aloha-viperx/go'\] and \['stop'\]"):
        Trainer(str(path), listed, CONFIG, start=Trainer(stores[0], listed, CONFIG).policy)


def test_a_robot_of_the_same_name_must_be_the_same(stores, worded, tmp_path):
    start = Trainer(stores[:2], worded, CONFIG).policy
    other = store_of(tmp_path / "other", dataclasses.replace(ROBOTS["aloha-viperx"], control_hz=30.0))
    with pytest.raises(UserError, match=r"robot 'aloha-viperx' of the policy .* is another:\n  control_hz"):
        Trainer(other, worded, CONFIG, start=start)
