"""The contact sheet and the renderer's benchmark."""

import re

import pytest
from foreact.envs import contact_sheet as sheet
from foreact.eval.bench.render import bench_render
from PIL import Image

pytestmark = pytest.mark.sim


def test_contact_sheet(tmp_path, monkeypatch):
    found = {None: ["metaworld/reach-v3", "metaworld/push-v3"], "pusht": ["pusht/pusht-v0"]}
    monkeypatch.setattr(sheet, "tasks", lambda suite=None: found[suite])
    out = tmp_path / "docs" / "sheet.png"
    assert sheet.main([str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (224, 120)
    assert sheet.main([str(out), "pusht"]) == 0
    with Image.open(out) as picture:
        assert picture.size == (112, 120)


def test_contact_sheet_usage(capsys):
    assert sheet.main([]) == 2
    assert "usage" in capsys.readouterr().err


def ratio(printed: str) -> float:
    found = re.fullmatch(r"ratio (\d+\.\d)x", printed.splitlines()[-1])
    assert found, printed
    return float(found[1])


def test_bench_render_prints_a_table_and_the_ratio(capsys):
    bench_render(seconds=0.05, size=32)
    printed = capsys.readouterr().out
    for words in ("Metaworld's own", "foreact reference", "foreact fast", "32 x 32"):
        assert words in printed
    assert ratio(printed) > 1


@pytest.mark.slow
def test_fast_is_six_times_metaworlds_own(capsys):
    bench_render(seconds=3)
    assert ratio(capsys.readouterr().out) >= 6
