import json

import numpy as np
import pytest
from foreact.data.video import read_video
from foreact.envs.errors import UserError
from foreact.envs.spec import Task
from foreact.eval.reports.film import Foresight, held, write_film
from foreact.eval.reports.report import read_curves, read_results, write_report
from foreact.eval.reports.results import alignment, assemble, show
from rich.console import Console

TASKS = [
    Task(id=f"fake/{name}", instruction=name, success="", max_steps=9, group=group)
    for name, group in {"push": "hard", "reach": "easy"}.items()
]


@pytest.fixture
def results():
    records = [
        {
            "task": t.name,
            "episode": i,
            "seed": i,
            "length": 5,
            "success": t.name == "reach" or i > 0,
            "looks": looks,
        }
        for t in TASKS
        for i, looks in enumerate(([[8.0, 4], [16.0, 2]], [[8.0, 1]]))
    ]
    policy = {"policy": "runs/x <b>", "alignment": 0.5}
    settings = {"seed": 0, "episodes": 2, "max_steps": 9}
    return assemble(records, TASKS, policy=policy, settings=settings, seconds=1.0, command="foreact eval a=[b]")


def test_results_are_json_and_count_latency(results):
    assert json.loads(json.dumps(results)) == results
    assert results["latency_ms"] == {
        "p50": 8.0,
        "p95": pytest.approx(16.0),
        "per_look": {"p50": pytest.approx(8.0), "p95": pytest.approx(8.0)},
        "looks": 6,
    }
    assert results["versions"]["numpy"] == np.__version__


def test_report_opens_with_the_failures(results, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    lines = [{"step": s, "loss": 1 / (s + 1), "val/action": 0.5, "look/first_corr": 0.1 * s} for s in range(5)]
    torn = '{"step": 5, "lo'
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn, encoding="utf-8")
    page = write_report(tmp_path / "out", results, run=run).read_text(encoding="utf-8")
    assert page.index("Failures (1)") < page.index("Success</h2>") < page.index("How it was made")
    assert "yes, weight 0.5" in page
    assert "foreact eval a=[b]" in page
    assert "runs/x &lt;b&gt;" in page
    assert "looking" in page
    assert "<svg" in page
    assert (tmp_path / "out" / "success.svg").read_text(encoding="utf-8").startswith("<svg xmlns=")
    assert set(read_curves(run / "metrics.jsonl")) == {"loss", "val/action", "look/first_corr"}


def test_report_needs_results(tmp_path):
    with pytest.raises(UserError, match="has no results"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        write_report(tmp_path)


def test_table_says_what_was_used(results):
    console = Console(record=True, width=100)
    show(results, console)
    text = console.export_text()
    for part in ("push", "50 % [9, 91]", "group mean", "trained with simulator state: yes, weight 0.5"):
        assert part in text
    assert [alignment({"alignment": a}) for a in (None, 0, 0.0)] == ["unknown", "no", "no"]


def frames(value, size=16):
    return {"main": np.full((size, size, 3), value, np.uint8)}


def test_a_foresight_is_held_until_its_time():
    foresights = [Foresight(s, (4, 12), {}) for s in range(0, 40, 8)]
    shown = [held(foresights, step).step for step in range(0, 40, 2)]
    #        0 …                10 | 12: its time has come; the newest look is that of 8, held until 20 | 16 …
    assert shown == [0] * 6 + [8] * 4 + [16] * 4 + [24] * 4 + [32] * 2


def test_film_shows_three_panels(tmp_path):
    film = [(step, frames(10 * step)) for step in range(0, 11, 2)]
    foreseen = {"main": np.stack([frames(0, 8)["main"], frames(200, 8)["main"]])}  # smaller than the camera's
    path = write_film(tmp_path / "a.mp4", film, [Foresight(0, (2, 6), foreseen)], title="push", success=True)
    video = read_video(path)
    assert len(video) == len(film) + 15
    now, foresaw, real = (int(video[0, -10, x].mean()) for x in (20, 75, 130))
    assert now == pytest.approx(0, abs=6)
    assert foresaw == pytest.approx(200, abs=6)
    assert real == pytest.approx(60, abs=6)
