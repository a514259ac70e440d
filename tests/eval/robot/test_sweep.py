"""What a sweep over latency tells: rows, pairs and the plot."""

import io

import numpy as np
import pytest
from foreact.eval.actors import PolicyActor
from foreact.eval.robot import sweep
from foreact.eval.robot.clock import SimulatedClock
from foreact.eval.robot.control import Control
from foreact.eval.robot.logbook import Logbook
from foreact.eval.robot.robots import SimulatedRobot
from foreact.eval.robot.runs import ControlSettings
from rich.console import Console


@pytest.fixture
def rows(worlds, continuing, tmp_path):
    """Three modes at two latencies, two episodes each."""

    def run(mode, latency):
        clock = SimulatedClock()
        robot = SimulatedRobot(worlds.make("far"), clock)
        settings = ControlSettings(mode=mode, latency=latency, uncovered="rest")
        control = Control(robot, PolicyActor(policy=continuing(noise=0.4), batch_shape=1), clock, settings)
        folder = tmp_path / f"{mode}-{latency}"
        about = {"hz": 10.0, "settings": {"mode": mode, "latency": latency, "jitter": 0.0}}
        book = Logbook(folder, robot.embodiment, about, record=False)
        for episode in range(2):
            line = book.add(control.run(episode), source="control", seed=episode)
        assert line["steps"] > 4
        told = {**about, "n": 2, "success": 1.0, "ci95": [0.34, 1.0], "episodes": book.lines}
        return sweep.row_of(told, folder, robot.embodiment)

    return [run(mode, latency) for mode in ("sync", "horizon", "realtime") for latency in (0.0, 0.2)]


def test_a_row_tells_rests_and_joints(rows):
    by_arm = {(row["mode"], row["latency"]): row for row in rows}
    assert by_arm["sync", 0.0]["resting"] == 0
    assert by_arm["sync", 0.2]["resting"] > by_arm["horizon", 0.2]["resting"]
    assert by_arm["realtime", 0.2]["peak_jerk"]["p50"] < by_arm["horizon", 0.2]["peak_jerk"]["p50"]
    assert by_arm["sync", 0.2]["joints"] >= 2  # it halts and goes on, though no chunk takes over from another
    for row in rows:
        quantiles = list(row["peak_jerk"].values())
        assert quantiles == sorted(quantiles)


def test_pairs_are_counted_on_the_same_seeds():
    a, b = ({"won": np.array(won, bool).tolist()} for won in ([1, 1, 0, 1], [0, 1, 1, 0]))
    assert sweep.against(a, b) == (2, 1)
    with pytest.raises(ValueError, match="shorter"):
        sweep.against(a, {"won": [True]})


def test_the_table_and_the_plot_have_every_mode(rows, tmp_path):
    console = Console(file=io.StringIO(), width=120)
    sweep.show([*rows[:-1], {**rows[-1], "peak_jerk": None}], console)
    said = console.file.getvalue()
    assert [line.split()[1] for line in said.splitlines() if "%" in line and ":" in line and "│" in line] == [
        row["mode"] for row in rows
    ]
    sweep.draw(rows, tmp_path / "sweep.png")
    late = [{**row, "jitter": 0.05} for row in rows]
    sweep.draw([*rows, *late], tmp_path / "more.png")
    assert (tmp_path / "more.png").stat().st_size > (tmp_path / "sweep.png").stat().st_size > 5000
