"""Episodes that a policy drives and the expert labels."""

import json

import numpy as np
import pytest
from foreact import envs
from foreact.data.collect import FIRST_SEED, SEEDS_PER_RUN, collect
from foreact.data.demonstrate import Labels, Pilot
from foreact.data.store import Store
from foreact.envs.base import Env
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera, Embodiment, Field, Task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROBOT = Embodiment(
    name="point",
    cameras=(Camera(name="main", mount="top", height=4, width=4),),
    state=(Field(name="position", unit="m", low=(-1, -1), high=(1, 1)),),
    action=(Field(name="velocity", unit="m/s", low=(-1, -1), high=(1, 1)),),
    control_hz=10.0,
)
TASK = Task(id="toy/go", instruction="go", success="there", max_steps=30)


class Point(Env):
    """A point whose expert goes to a goal, and pulls to one side more with every step: it has a memory."""

    def __init__(self):
        super().__init__(ROBOT, TASK)

    def _restart(self, seed):
        self.position, self.goal = np.random.default_rng(seed).uniform(-0.9, 0.9, (2, 2))
        self.asked = 0

    def _advance(self, action):
        self.position = np.clip(self.position + 0.1 * action, -1, 1)
        return 0.0, bool(np.abs(self.position - self.goal).max() < 0.1)

    def _state(self):
        return self.position

    def expert_action(self):
        self.asked += 1
        return np.float32(5 * (self.goal - self.position) + [0.01 * self.asked, 0])

    def _draw(self, camera):
        return np.zeros((4, 4, 3), np.uint8), None


class Wanderer:
    """Begins episodes in which the point goes to where the seed says, in a circle; picklable, as a pilot must be."""

    def __call__(self, task, seed):
        assert task.instruction == "go"
        steps = iter(range(1000))
        return lambda obs: np.float32([np.sin(seed + 0.3 * next(steps)), 0.8 - obs["state"][0]])


PILOT = Pilot(name="0123456789abcdef", begin=Wanderer())


@pytest.fixture(autouse=True)
def points(monkeypatch):
    monkeypatch.setattr(envs, "resolve", lambda name: name)
    monkeypatch.setattr(envs, "make", lambda name, cameras=None, privileged=False, every=1: Point())
    monkeypatch.setattr(envs, "packages", lambda name: ("mujoco",))


def run(path, episodes=3, **options):
    return collect([TASK.id], episodes, path, **({"workers": 1, "progress": False, "pilot": PILOT} | options))


def bits(store: Store) -> dict[str, bytes]:
    return {name: store.read(name).tobytes() for name in store.names} | {"seed": store.meta.seed.tobytes()}


def visited(store: Store):
    """Each stored step beside the same episode driven anew: (expert's action there, policy's, stored episode, step)."""
    env = Point()
    for i in range(len(store)):
        episode = store.episode(i)
        obs, _ = env.reset(seed=episode.seed)
        act = PILOT.begin(TASK, episode.seed)
        for n in range(len(episode)):
            assert np.array_equal(obs["state"], episode.state[n])
            yield np.clip(env.expert_action(), -1, 1), np.clip(act(obs), -1, 1), episode, n
            obs, *_ = env.step(episode.action_executed[n])


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(beta=st.sampled_from([0.0, 0.3, 1.0]), noise=st.sampled_from([0.0, 0.4]), seed=st.integers(0, 5))
def test_a_labelled_store_replays(tmp_path_factory, beta, noise, seed):
    """At every state that was visited the stored action is the expert's, and what moved the robot is as declared."""
    store = run(tmp_path_factory.mktemp("s") / "s", labels=Labels(beta=beta), noise=noise, seed=seed)
    by_expert = []
    for expert, own, episode, n in visited(store):
        assert np.array_equal(episode.action[n], expert)
        if noise == 0:
            which = [np.array_equal(episode.action_executed[n], moved) for moved in (own, expert)]
            assert any(which)
            by_expert.append(which[1])
    if by_expert:
        assert np.mean(by_expert) == pytest.approx(beta, abs=0.25 if 0 < beta < 1 else 0.05)


def test_without_labels_the_policys_own_actions_are_stored(tmp_path):
    store = run(tmp_path / "s")
    assert all(np.array_equal(episode.action[n], own) for _, own, episode, n in visited(store))


def test_the_store_says_who_acted_and_whose_labels_it_holds(tmp_path):
    store = run(tmp_path / "s", labels=Labels(beta=0.2), seed=2, max_steps=7)
    record = json.loads((tmp_path / "s" / "zarr.json").read_text(encoding="utf-8"))["attributes"]["collect"]
    assert {"driver": "policy", "policy": PILOT.name, "relabel": "expert", "beta": 0.2}.items() <= record.items()
    assert record["fields"]["action"] == "the expert's"
    assert "share `beta`" in record["fields"]["action_executed"]
    assert set(store.meta.source) == {"policy+expert"}
    assert store.meta.seed.tolist() == [FIRST_SEED + 2 * SEEDS_PER_RUN + k for k in range(3)]
    assert not store.meta.success.all()  # failures are what is to be learned from
    assert np.diff(store.episode_ends, prepend=0).max() == 7


def test_it_goes_on_where_it_stopped_and_refuses_another_policy(tmp_path):
    whole, labels = run(tmp_path / "a", 5, labels=Labels()), {"labels": Labels()}
    run(tmp_path / "b", 2, **labels)
    assert bits(run(tmp_path / "b", 5, **labels)) == bits(whole)
    other = Pilot(name="f" * 16, begin=Wanderer())
    with pytest.raises(UserError, match=r"policy: '0123456789abcdef' there, 'f{16}' now"):
        run(tmp_path / "b", 6, pilot=other, **labels)
    with pytest.raises(UserError, match=r"beta: 0.0 there, 0.5 now"):
        run(tmp_path / "b", 6, labels=Labels(beta=0.5))
    with pytest.raises(UserError, match="relabel: 'expert' there, None now"):
        run(tmp_path / "b", 6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"labels": Labels(), "pilot": None}, "give the pilot as well"),
        ({"max_steps": 0}, "max_steps >= 1"),
    ],
)
def test_bad_settings_are_user_errors(tmp_path, bad, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "s", **bad)


@pytest.mark.parametrize("beta", [-0.1, 1.5])
def test_beta_is_a_share(beta):
    with pytest.raises(UserError, match=f"from 0 to 1, got {beta}"):
        Labels(beta=beta)
