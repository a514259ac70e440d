"""The benches of the real-robot loop: what they count is right, and they run on a policy that has learned nothing."""

import json

import numpy as np
import pytest
from foreact import envs
from foreact.envs.errors import UserError
from foreact.eval.actors import PolicyActor
from foreact.eval.bench import control, faults, serve, trouble
from foreact.eval.robot.clock import SimulatedClock
from foreact.eval.robot.rehearsal import Rehearsal
from foreact.eval.robot.robots import Robot, Stamped
from foreact.eval.robot.runs import Run, Tick
from foreact.eval.robot.safety import Intervention
from foreact.eval.serving.client import Client, ServerError


def test_a_step_that_never_was_has_missed_its_moment():
    found = control.lateness(np.array([0.0005, 0.001, 0.0021, 0.05]), skipped=4)
    assert (found["steps"], found["missed"], found["missed_share"]) == (8, 6, 0.75)
    assert found["ms"] == pytest.approx({"p50": 1.55, "p99": 48.563, "p99.9": 49.856, "p100": 50}, abs=1e-2)


def test_memory_that_grows_is_a_slope():
    assert control.growth([(t, 100 + t / 6) for t in range(0, 120, 10)]) == pytest.approx(10)
    assert control.growth([(0, 500), *((t, 100.0) for t in range(60, 300, 10))]) == pytest.approx(0, abs=1e-9)
    assert control.growth([(1, 5.0)]) == 0
    before = control.resident()
    held = np.ones(200_000_000, np.uint8)  # so large that no memory that was let go of is used again
    assert control.resident() - before > 150
    assert held.all()


def test_the_histogram_has_every_action():
    acted = np.array([-1e-6, 1e-6, 5e-4, 3e-3, 7.0])
    edges, counts = control._histogram(acted)
    assert counts.sum() == len(acted)
    assert (counts[0], counts[-1]) == (2, 1)
    assert len(edges) == len(counts) + 1


def seen(n):
    return [{"images": {"main": np.full((12, 12, 3), i, np.uint8)}, "state": np.full(2, i)} for i in range(n)]


def test_a_rehearsal_goes_forwards_and_backwards_for_ever(worlds):
    robot = Rehearsal(seen(4), worlds.EMBODIMENT, worlds.task("near"), SimulatedClock(5.0))
    assert isinstance(robot, Robot)
    found = [int(robot.observe().observation["state"][0]) for _ in range(13)]
    assert found == [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert robot.observe().time == 5.0
    assert robot.outcome() is None


def test_a_frozen_camera_keeps_its_picture_while_the_robot_is_elsewhere(worlds):
    robot = trouble.Freezing(seen(4), worlds.EMBODIMENT, worlds.task("near"), SimulatedClock())
    robot.observe()
    robot.frozen = True
    frozen: list[Stamped] = [robot.observe() for _ in range(2)]
    assert [int(s.observation["images"]["main"][0, 0, 0]) for s in frozen] == [1, 1]
    assert [int(s.observation["state"][0]) for s in frozen] == [3, 3]
    robot.frozen = False
    assert robot.observe().observation["images"]["main"][0, 0, 0] == 2


def test_a_load_tells_batches_and_not_rows():
    load = serve.Load(latencies=[0.1] * 5, rows=[1, 4, 4, 4, 4], seconds=2.0)
    found = load.summary()
    assert (found["chunks_a_second"], found["mean_batch"]) == (2.5, 2.5)
    assert found["p50_ms"] == pytest.approx(100)


def test_clients_put_their_load_on_a_server(serving, continuing, worlds, monkeypatch):
    monkeypatch.setattr(envs, "task", worlds.task)
    actor, load = PolicyActor(policy=continuing(think=0.01), batch_shape=4), serve.Load()
    with serving(actor) as server:
        serve.put_load(f"ws://127.0.0.1:{server.port}", 3, 0.3, load)
        assert server.counts["answers"] == len(load.rows) == len(load.latencies) >= 6
    assert max(load.rows) > 1
    assert load.summary()["p50_ms"] >= 10


def test_a_wire_passes_on_until_it_is_cut(serving, continuing, worlds):
    with serving(PolicyActor(policy=continuing(), batch_shape=1)) as server:
        wire = trouble.Wire(server.port)
        remote = trouble.Unsound(wire.uri)
        asked = {"images": {"main": np.zeros((1, 12, 12, 3), np.uint8)}, "state": np.zeros((1, 2), np.float32)}
        asked["images"]["main"][0, 3, 3, 1] = 255
        first = remote.act([asked], ["go"], [(1,)])
        wire.cut()
        for _ in range(2):
            with pytest.raises(ServerError):
                remote.act([asked], ["go"], [(1,)])
        wire.whole = True
        np.testing.assert_array_equal(remote.act([asked], ["go"], [(1,)]), first)
        for how, good in (("nan", False), ("shape", False), ("", True)):
            remote.how = how
            chunk = remote.act([asked], ["go"], [(1,)])
            assert (chunk.shape == first.shape and np.isfinite(chunk).all()) == good
        remote.close()
        wire.close()
        with pytest.raises(ServerError):
            Client(wire.uri, timeout=2)


def run_of(told, interventions=()):
    zero = np.zeros(2, np.float32)
    steps = [{"step": i, "time": i / 10, "asked": zero if says else None} for i, says in enumerate(told)]
    rest = {"late": 0.0, "acted": 0.0, "state": zero, "observation": None, "sent": zero}
    ticks = [Tick(**step, **rest) for step in steps]
    return Run(episode=0, task="t", instruction="go", hz=10.0, ticks=ticks, interventions=list(interventions))


def test_what_came_of_a_fault_is_told_from_the_run():
    chunk = [Intervention(step=i, time=i / 10, rule="chunk", where="none for this step") for i in range(5, 8)]
    found = faults.came_of(run_of([0, 1, 1, 1, 1, 0, 0, 0, 1, 1], chunk), struck=0.3, mended=0.6)
    assert found["rests"] == pytest.approx(0.2)
    assert found["again"] == pytest.approx(0.2)
    assert (found["recovered"], found["logged"], found["steps"]) == (True, {"chunk": 3}, 10)
    never = faults.came_of(run_of([0, 1, 1, 1]), struck=0.15, mended=0.25)  # what was before it does not count
    assert (never["rests"], never["again"], never["logged"]) == (None, None, {})
    assert not faults.came_of(run_of([1, 1, 0]), struck=0.1, mended=0.1)["recovered"]


GOOD = {"rule": "chunk", "rests": 0.25, "allows": 0.2, "logged": {"chunk": 1}, "recovered": True, "kept": True}
GOOD |= {"alive": True, "must": True, "counts": "", "server": {"refused": 10}, "outcome": f"stopped: {faults.OVER}"}


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"rests": 0.31}, False),
        ({"rests": None}, False),
        ({"logged": {"camera": 1}}, False),
        ({"recovered": False}, False),
        ({"kept": False}, False),
        ({"alive": False}, False),
        ({"outcome": "given up"}, False),
        ({"rests": None, "must": False}, True),
        ({"counts": "refused"}, True),
        ({"counts": "reloads"}, False),
        ({"rule": "", "rests": None}, True),
        ({"rule": ""}, False),
    ],
)
def test_a_fault_is_as_it_should_be_only_if_all_of_it_is(change, good):
    assert faults.is_good(GOOD | change) == good


def test_the_table_has_a_row_for_each_fault():
    row = GOOD | {"again": 0.1, "said": "401", "good": True}
    text = faults.markdown(dict.fromkeys(faults.FAULTS, row))
    assert text.count("\n") == len(faults.FAULTS) + 2
    assert "| wrong token | 250 ms | 200 ms + 100 ms, `chunk` | 100 ms | chunk 1, refused 10; 401 | yes |" in text


def test_bad_settings_of_the_benches_say_so(tmp_path):
    with pytest.raises(UserError, match="minutes must be above 0"):
        control.bench_control("x", minutes=0)
    with pytest.raises(UserError, match="bench serve needs clients="):
        serve.bench_serve("x", clients=[])
    with pytest.raises(UserError, match="unknown fault 'rain'; choose one of: 100 MB message"):
        faults.bench_faults("x", only="rain")
    (tmp_path / "faults").mkdir()
    with pytest.raises(UserError, match="is there already"):
        faults.bench_faults("x", out=tmp_path)


@pytest.mark.slow
def test_a_server_that_does_not_start_says_why(tmp_path):
    with pytest.raises(UserError, match=r"ended with status 2: (.|\n)*nowhere does not exist"):  # noqa: SIM117
        with serve.server(tmp_path / "nowhere"):
            pass


@pytest.mark.sim
@pytest.mark.slow
def test_the_loop_is_timed_beside_a_policy(metaworld_run, tmp_path, capsys):
    control.bench_control(metaworld_run, minutes=0.02, hz=5, mode="sync", out=tmp_path)
    found = json.loads((tmp_path / "control.json").read_text(encoding="utf-8"))
    assert found["lateness"][control.LOOP]["steps"] == 50
    assert found["resting"] < 50
    assert sum(found["histogram"]["counts"]) == 50 - found["lateness"][control.LOOP]["skipped"]
    assert (tmp_path / "control.png").stat().st_size > 5000
    assert "sent more than 2 ms late" in capsys.readouterr().out.strip().splitlines()[-1]


@pytest.mark.sim
@pytest.mark.slow
def test_two_servers_are_asked_in_turns(metaworld_run, tmp_path, capsys):
    serve.bench_serve(metaworld_run, clients=[1, 3], seconds=1.0, device="cpu", out=tmp_path)
    found = json.loads((tmp_path / "serve.json").read_text(encoding="utf-8"))["clients"]
    assert found["1"][serve.BATCHED]["mean_batch"] == 1
    assert found["3"][serve.BATCHED]["mean_batch"] > 1
    assert found["3"][serve.SINGLE]["mean_batch"] == 1
    assert (tmp_path / "serve.png").stat().st_size > 5000
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("ratio ")


@pytest.mark.sim
@pytest.mark.slow
def test_every_fault_is_met_as_it_should_be(metaworld_run, tmp_path):
    faults.bench_faults(metaworld_run, hz=20, device="cpu", out=tmp_path)
    rows = json.loads((tmp_path / "faults" / "faults.json").read_text(encoding="utf-8"))["faults"]
    assert list(rows) == list(faults.FAULTS)
    assert {name: row for name, row in rows.items() if not row["good"]} == {}
