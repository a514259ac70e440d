"""How many pixels goal and object cover."""

import numpy as np
import pytest
from foreact import envs
from foreact.envs import visible as counting
from foreact.envs.errors import UserError

pytestmark = pytest.mark.sim


def test_a_longer_lens_sees_more_of_goal_and_object():
    found = counting.visible("push-v3", 48, [1000, 1001])
    for what in ("goal", "object"):
        assert len(found[what]["main"]) == 2
        for wide, near in (("main", "near"), ("top", "near_top")):
            assert sum(found[what][near]) >= sum(found[what][wide])
        assert sum(found[what]["near"]) > 1.5 * sum(found[what]["main"])
    area = {pixels: sum(counting.visible("drawer-close-v3", pixels, [1000])["object"]["top"]) for pixels in (32, 96)}
    assert area[96] == pytest.approx(9 * area[32], rel=0.2)


def test_counting_leaves_the_scene_as_it_was(make):
    env = make("push-v3")
    before = env.reset(seed=1000)[0]["images"]["main"]
    for without in (counting._without_marker, counting._without_body):
        place = env.privileged()[6:9] if without is counting._without_marker else env.privileged()[:3]
        with without(env, place) as there:
            assert there
            assert not np.array_equal(env.observe()["images"]["main"], before)
        assert np.array_equal(env.observe()["images"]["main"], before)


def test_a_goal_without_a_marker_has_no_counts():
    found = counting.visible("door-lock-v3", 32, [1000])
    assert found["goal"] == {}
    assert found["object"]["main"][0] > 0
    row = counting.table(["door-lock-v3"], 32, [1000]).splitlines()[2]
    assert row.startswith("| door-lock |  |")


def test_the_command(capsys, monkeypatch):
    assert counting.main(["drawer-close"]) == 2
    assert "usage" in capsys.readouterr().err
    monkeypatch.setattr(counting, "visible", lambda name, pixels, seeds: {"goal": {"main": [pixels, 7]}, "object": {}})
    assert counting.main(["9", "drawer-close-v3"]) == 0
    assert "| drawer-close | 7 · 8 |" in capsys.readouterr().out
    assert counting.main(["9", "metaworld"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(envs.tasks("metaworld"))


def test_tasks_that_do_not_tell_the_places():
    with pytest.raises(UserError, match="does not tell goal_position and object_position of a MuJoCo model"):
        counting.visible("pusht", 32, [0])
