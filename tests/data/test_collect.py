import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from foreact import envs
from foreact.data.agenda import Agenda, Todo
from foreact.data.collect import FIRST_SEED, SEEDS_PER_RUN, collect
from foreact.data.demonstrate import Noise, Pilot
from foreact.data.schema import Episode
from foreact.data.store import Store
from foreact.envs.base import Env
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera, Embodiment, Field, Task
from hypothesis import given
from hypothesis import strategies as st

ARRAYS = ("state", "action", "action_executed", "privileged", "image/main")
TOY = Embodiment(
    name="toy",
    cameras=(Camera(name="main", mount="top", height=8, width=8),),
    state=(Field(name="arm_position", unit="m", low=(-1, -1), high=(1, 1)),),
    action=(
        Field(name="arm_velocity", unit="m/s", low=(-1, -1), high=(1, 1)),
        Field(name="gripper_effort", unit="1", low=(-1,), high=(1,)),
    ),
    privileged=(Field(name="goal", unit="m", low=(-1, -1), high=(1, 1)),),
    control_hz=10.0,
)
TASKS = {f"toy/{n}": Task(id=f"toy/{n}", instruction=n, success="there", max_steps=60) for n in ("go", "odd", "never")}


class Toy(Env):
    """A point that goes to a goal. 'odd' fails at every odd seed, 'never' always. Counts the pictures drawn."""

    drawn = 0
    seconds_a_step = 0.0

    def __init__(self, task, cameras=None):
        spec = TOY.to_dict()
        spec |= {"cameras": [vars(c) for c in cameras]} if cameras else {}
        super().__init__(Embodiment.from_dict(spec), task)

    def _restart(self, seed):
        rng = np.random.default_rng(seed)
        self.position, self.goal = rng.uniform(-0.9, 0.9, (2, 2))
        self.possible = not (self.task.name == "never" or (self.task.name == "odd" and seed % 2))

    def _advance(self, action):
        time.sleep(self.seconds_a_step)
        self.position = np.clip(self.position + 0.1 * action[:2], -1, 1)
        return 0.0, self.possible and np.abs(self.position - self.goal).max() < 0.1

    def _state(self):
        return self.position

    def privileged(self):
        return self.goal.astype(np.float32)

    def expert_action(self):
        return np.float32([*(9 * (self.goal - self.position)), 0.5])  # not clipped: collect must

    def _draw(self, camera):
        Toy.drawn += 1
        shade = np.uint8(200 if camera.look == "reference" else 100)
        return np.full((8, 8, 3), shade) + np.uint8(20 * (1 + self.position[0])), None


def use_toys(setattr_):
    setattr_(envs, "resolve", lambda name: name)
    setattr_(envs, "make", lambda name, cameras=None, privileged=False, every=1: Toy(TASKS[name], cameras))
    setattr_(envs, "packages", lambda name: ("mujoco",))


@pytest.fixture
def toys(monkeypatch):
    use_toys(monkeypatch.setattr)


def content(store):
    meta = store.meta
    return [
        (
            *(meta.task[i], int(meta.seed[i]), meta.source[i]),
            *(x.tobytes() for x in (e.state, e.action, e.action_executed, e.images["main"])),
        )
        for i, e in ((i, store.episode(i)) for i in range(len(store)))
    ]


def run(path, tasks=("toy/go",), episodes=3, **kwargs):
    return collect(tasks, episodes, path, **({"workers": 1, "progress": False} | kwargs))


def test_a_store_holds_what_was_asked_for(toys, tmp_path):
    store = run(tmp_path / "s", ["toy/odd", "toy/go"], 3)
    assert store.meta.task == ["toy/odd"] * 3 + ["toy/go"] * 3
    assert store.meta.seed.tolist() == [FIRST_SEED + k for k in (0, 2, 4, 0, 1, 2)]
    assert store.meta.source == ["expert"] * 6
    assert store.meta.success.all()
    low, high = store.embodiment.action_low, store.embodiment.action_high
    for name in ("action", "action_executed"):
        assert (store.read(name) >= low).all()
        assert (store.read(name) <= high).all()


def test_the_gripper_is_never_disturbed_and_the_arm_in_bursts(toys, tmp_path):
    store = run(tmp_path / "s", episodes=4, noise=Noise(std=0.5, burst=6, rest=6))
    moved = store.read("action") != store.read("action_executed")
    assert not moved[:, 2].any()
    assert 0.2 < moved[:, 0].mean() < 0.8


@given(st.floats(0.01, 2), st.integers(1, 30), st.integers(0, 60), st.integers(0, 2**31))
def test_noise_comes_in_bursts_of_one_direction(std, burst, rest, seed):
    noise = Noise(std=std, burst=burst, rest=rest).draw(TOY, 400, np.random.default_rng(seed))
    assert noise.shape == (400, 3)
    assert not noise[:, 2].any()
    directions = np.unique(noise[:, :2], axis=0)
    assert len(directions) <= 400 / (burst // 2 + 1 + rest // 2) + 2


def test_it_holds_after_success_and_without_noise_acts_as_the_expert(toys, tmp_path):
    short, long = run(tmp_path / "a", noise=0, hold=0), run(tmp_path / "b", noise=0, hold=5)
    np.testing.assert_array_equal(short.read("action"), short.read("action_executed"))
    lengths = [np.diff(store.episode_ends, prepend=0) for store in (short, long)]
    np.testing.assert_array_equal(lengths[0] + 5, lengths[1])


def test_failures_cost_no_pictures_and_can_be_kept(toys, tmp_path):
    Toy.drawn = 0
    store = run(tmp_path / "a", ["toy/odd"], 2)
    assert Toy.drawn <= store.n_steps + 3  # one first picture for each of three rehearsals
    kept = run(tmp_path / "b", ["toy/odd"], 3, successes_only=False)
    assert kept.meta.success.tolist() == [True, False, True]
    assert np.diff(kept.episode_ends, prepend=0)[1] == 60


def test_a_task_that_never_succeeds_is_given_up(toys, tmp_path):
    with pytest.raises(UserError, match="0 of 50 attempts succeeded; lower the noise"):
        run(tmp_path / "s", ["toy/never"])


def test_growing_gives_the_same_store_as_collecting_at_once(toys, tmp_path):
    run(tmp_path / "a", ["toy/odd"], 2)
    grown = run(tmp_path / "a", ["toy/odd"], 5)
    assert content(grown) == content(run(tmp_path / "b", ["toy/odd"], 5))
    with pytest.raises(UserError, match="holds 5 episodes of toy/odd, episodes=4 asks for fewer"):
        run(tmp_path / "a", ["toy/odd"], 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"noise": 0.1}, "noise: {'std': 0.3"),
        ({"tasks": ["toy/odd"]}, r"tasks: \['toy/go'\] there"),
        ({"hold": 9}, "hold: 5 there, 9 now"),
        ({"successes_only": False}, "successes_only"),
        ({"cameras": [Camera(name="main", mount="top", height=9, width=8)]}, "embodiment cameras"),
        (
            {"pilot": Pilot(name="p", begin=lambda task, seed: lambda obs: np.zeros(3))},
            "driver: 'expert' there, 'policy' now",
        ),
    ],
)
def test_other_settings_there_are_told_apart(toys, tmp_path, change, message):
    before = content(run(tmp_path / "s"))
    with pytest.raises(UserError, match=message):
        run(tmp_path / "s", **change)
    with Store.open(tmp_path / "s", "a") as store:  # the lock was given back
        assert content(store) == before


def test_a_store_that_was_not_collected_is_left_alone(toys, tmp_path):
    episode = run(tmp_path / "a").episode(0)
    with Store.create(tmp_path / "b", TOY, privileged=True) as store:
        store.append(episode)
    with pytest.raises(UserError, match="not made by collecting"):
        run(tmp_path / "b")


def test_seeds_depend_on_the_run_and_looks_are_mixed(toys, tmp_path):
    store = run(tmp_path / "s", episodes=8, seed=2, reference=0.5)
    assert store.meta.seed.tolist() == [FIRST_SEED + 2 * SEEDS_PER_RUN + k for k in range(8)]
    bright = {i: store.episode(i).images["main"].min() >= 200 for i in range(8)}
    assert {i: store.meta.source[i] == "expert@reference" for i in range(8)} == bright
    assert 0 < sum(bright.values()) < 8


def test_a_policy_can_drive(toys, tmp_path):
    def act(observation):
        assert observation["images"]["main"].shape == (8, 8, 3)
        return np.float32([1, 0, 0])

    store = run(tmp_path / "s", episodes=2, pilot=Pilot(name="p", begin=lambda task, seed: act))
    assert set(store.meta.source) == {"policy"}
    np.testing.assert_array_equal(store.read("action")[:, :2], np.float32([[1, 0]]).repeat(store.n_steps, 0))


@pytest.mark.parametrize(
    "bad", [{"tasks": []}, {"episodes": 0}, {"workers": -1}, {"seed": -1}, {"noise": -0.1}, {"reference": 2.0}]
)
def test_bad_settings_are_user_errors(toys, tmp_path, bad):
    with pytest.raises(UserError, match="need"):
        run(tmp_path / "s", **bad)
    assert not (tmp_path / "s").exists()


def _stub(job):
    """An episode of which only the place counts."""
    empty = np.zeros((0, 2), np.float32)
    numbers = {"images": {}, "state": empty, "action": empty, "action_executed": empty}
    return Episode(**numbers, task=job[0], instruction="", seed=job[1], source="", success=True)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 8))
def test_any_order_of_finishing_gives_one_order_of_entering(data, workers, tasks, wanted, ahead):
    fails = {(t, k): data.draw(st.booleans()) for t in range(tasks) for k in range(wanted * 3)}
    agenda = Agenda([Todo(str(t), wanted, 100, 0) for t in range(tasks)])
    entered, busy = [], []
    while any(todo.wanted for todo in agenda.tasks):
        while len(busy) < workers and (job := agenda.next_job(ahead=ahead)):
            busy.append(job)
        assert busy, "nobody works, and something is wanted"
        job = busy.pop(data.draw(st.integers(0, len(busy) - 1)))
        failed = fails.get((int(job[0]), job[1] - 100), False)
        agenda.finish(job, None if failed else _stub(job))
        entered += [(episode.task, episode.seed) for episode in agenda.enter()]
    successes = {t: [k for k in range(wanted * 4) if not fails.get((t, k), False)][:wanted] for t in range(tasks)}
    assert entered == [(str(t), 100 + k) for t in range(tasks) for k in successes[t]]


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import test_collect
from foreact import envs
test_collect.Toy.seconds_a_step = 0.002
test_collect.use_toys(setattr)
test_collect.run({path!r}, ["toy/odd", "toy/go"], 3)
"""


def test_killed_at_any_moment_the_same_command_continues(toys, tmp_path):
    script = SCRIPT.format(folder=str(Path(__file__).parent), path=str(tmp_path / "killed"))
    held = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])
        while process.poll() is None and _episodes(tmp_path / "killed") <= held:
            time.sleep(0.003)
        process.kill()
        process.wait()
        assert _episodes(tmp_path / "killed") >= held  # nothing whole is lost
        held = _episodes(tmp_path / "killed")
    resumed = run(tmp_path / "killed", ["toy/odd", "toy/go"], 3)
    assert content(resumed) == content(run(tmp_path / "whole", ["toy/odd", "toy/go"], 3))


def test_ctrl_c_leaves_a_valid_store(toys, tmp_path):
    script = SCRIPT.format(folder=str(Path(__file__).parent), path=str(tmp_path / "s"))
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stderr=subprocess.PIPE, text=True)
    while _episodes(tmp_path / "s") < 1:
        time.sleep(0.003)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate()[1]
    with Store.open(tmp_path / "s", "a") as store:
        assert len(store) >= 1


def _episodes(path):
    with contextlib.suppress(UserError):
        return len(Store.open(path))
    return 0


SMALL = [Camera(name="main", mount="corner2", height=24, width=24, flip="rot180")]


@pytest.mark.slow
@pytest.mark.sim
def test_the_number_of_workers_changes_nothing(tmp_path):
    one = collect(["reach-v3", "push-v3"], 1, tmp_path / "a", workers=1, cameras=SMALL, progress=False)
    two = collect(["reach-v3", "push-v3"], 1, tmp_path / "b", workers=2, cameras=SMALL, progress=False)
    assert content(one) == content(two)
    assert two.instructions["metaworld/push-v3"] == envs.task("push-v3").instruction
    assert two.embodiment.cameras == tuple(SMALL)


@pytest.mark.sim
@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    script = f"""
from foreact.data.collect import collect
from foreact.envs.spec import Camera
if __name__ == "__main__":
    cameras = [Camera(name="main", mount="corner2", height=24, width=24, flip="rot180")]
    collect(["reach-v3"], 500, {str(tmp_path / "s")!r}, workers=2, cameras=cameras, progress=False)
"""
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], start_new_session=True)
    while _episodes(tmp_path / "s") < 1:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while _alive_in_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive_in_session(process.pid)
    whole = _episodes(tmp_path / "s")
    with Store.open(tmp_path / "s", "a") as store:
        assert len(store) == whole


def _alive_in_session(session):
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [entry.name] if state != "Z" else []
    return found
