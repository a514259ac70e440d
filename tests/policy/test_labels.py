"""Actions that inverse dynamics tells of frames alone, and learning from them."""

import dataclasses

import numpy as np
import pytest
import torch
from foreact.data.schema import fake_episode
from foreact.data.store import Store
from foreact.envs.errors import UserError
from foreact.policy import TrainConfig, load_policy, train
from foreact.policy.answers import Answer
from foreact.policy.labels import EVERY, infer, labels_of
from foreact.policy.policy import Policy
from foreact.policy.trainer import Trainer

SHORT = TrainConfig(
    steps=2, batch_size=4, warmup=1, held_out=0.3, val_every=0, save_every=2, precision="fp32", device="cpu"
)


@pytest.fixture
def films(store, tmp_path):
    """Four more episodes, whose actions nobody is to see."""
    with (
        Store.open(store) as demonstrations,
        Store.create(tmp_path / "films", demonstrations.embodiment, privileged=False) as made,
    ):
        task = demonstrations.tasks[0]
        for i in range(4):
            episode = fake_episode(demonstrations.embodiment, steps=11, seed=50 + i, task=task)
            made.append(dataclasses.replace(episode, instruction=demonstrations.instructions[task]))
    return tmp_path / "films"


@pytest.fixture
def knowing(preset):
    return dataclasses.replace(preset, instruction="table", draws={"policy": 1, "inverse_dynamics": 1})


def test_each_step_takes_the_mean_of_the_looks_that_tell_it(make_policy, knowing, films, monkeypatch):
    policy = make_policy(knowing)
    asked = []

    def ask(self, query, observations, instructions, keys, given):
        asked.append((query, [o["state"] for o in observations], given.actions))
        told = np.array([[100 * key[1] + k for k in range(self.horizon)] for key in keys], np.float32)
        return Answer(actions=np.repeat(told[..., None], self.embodiment.action_dim, axis=2))

    monkeypatch.setattr(Policy, "ask", ask)
    with Store.open(films) as opened:
        found = infer(policy, opened)
    assert found.shape == (44, policy.embodiment.action_dim)
    for query, states, actions in asked:
        assert query == "inverse_dynamics"
        assert states == [None] * len(states)
        assert actions is None
    for step in range(11):  # of the second episode, which begins at row 11
        looks = [at for at in range(0, step + 1, EVERY) if step - at < policy.horizon]
        expected = np.mean([100 * (11 + at) + step - at for at in looks])
        assert found[11 + step] == pytest.approx(expected)


def test_a_policy_learns_from_labelled_films(knowing, store, films, tmp_path):
    both = [{"path": str(store)}, {"path": str(store), "state": False}]
    labeller = train(both, knowing, SHORT, tmp_path / "labeller", progress=False)
    data = [{"path": str(store)}, {"path": str(films), "actions": False}]
    train(data, knowing, SHORT, tmp_path / "run", labels=labeller, progress=False)
    policy = load_policy(labeller, "cpu")
    trainer = Trainer(data, knowing, SHORT, labels=policy)
    shown, film = next(trainer.batches())
    assert shown.state is not None
    assert film.state is None
    assert film.action is not None
    with Store.open(films) as opened:
        (kept,) = (films / "derived").glob("labels-*/action-*.npy")
        assert labels_of(policy)(opened) == kept
        inferred, real = np.load(kept), opened.read("action")
    assert not np.allclose(inferred, real)
    rows = trainer.loaders[1].rows_at(0)
    np.testing.assert_array_equal(film.action[:, 0].numpy(), inferred[trainer.loaders[1].dataset.rows[rows]])
    with pytest.raises(UserError, match=r"another configuration.*\n  origin\.labels: "):
        train(data, knowing, SHORT, tmp_path / "run", progress=False)


def test_a_source_may_leave_out_the_state(knowing, store):
    trainer = Trainer([{"path": str(store)}, {"path": str(store), "state": False}], knowing, SHORT)
    with_state, without = next(trainer.batches())
    assert with_state.state is not None
    assert without.state is None
    assert without.action is not None
    losses = trainer.losses((with_state, without), torch.Generator().manual_seed(0))
    assert set(losses.parts) == {"action"}


def test_only_inverse_dynamics_can_tell(make_policy, preset):
    policy = make_policy(dataclasses.replace(preset, draws={"policy": 1, "joint": 1}))
    with pytest.raises(UserError, match=r"was trained on policy, joint; train with model\.draws\.inverse_dynamics=1"):
        labels_of(policy)
