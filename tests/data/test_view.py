import io

import numpy as np
import pytest
from foreact.data.info import info, labels
from foreact.data.schema import Episode
from foreact.data.store import Store
from foreact.data.video import read_video
from foreact.data.view import pick, view
from foreact.envs.errors import UserError
from foreact.envs.spec import Camera, Embodiment, Field
from rich.console import Console

from .test_page import Reader

SPEC = Embodiment(
    name="toy",
    cameras=(Camera(name="main", mount="top", height=16, width=16), Camera(name="wrist", mount="w", height=9, width=9)),
    state=(Field(name="hand_position", unit="m", low=(-1,) * 3, high=(1,) * 3),),
    action=(
        Field(name="hand_delta", unit="m", low=(-1,) * 3, high=(1,) * 3),
        Field(name="gripper", unit="1", low=(-1,), high=(1,)),
    ),
    control_hz=20.0,
)


def _episode(task, seed, steps, success=True):
    rng = np.random.default_rng(seed)
    images = {c.name: rng.integers(0, 255, (steps, c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras}
    state = rng.random((steps, 3), dtype=np.float32)
    action = rng.random((steps, 4), dtype=np.float32)
    numbers = {"state": state, "action": action, "action_executed": action * np.float32(0.9)}
    facts = {"task": task, "instruction": f"Do <{task}>", "seed": seed, "source": "expert", "success": success}
    return Episode(images=images, **numbers, **facts)


@pytest.fixture
def path(tmp_path):
    with Store.create(tmp_path / "store", SPEC, privileged=False) as store:
        for k in range(5):
            store.append(_episode("toy/many", k, 12 + k))
        store.append(_episode("toy/few", 99, 20, success=False))
    return tmp_path / "store"


def test_the_page_shows_what_is_in_the_store(path, tmp_path):
    page = view(path, tmp_path / "page", episodes=3)
    assert page == tmp_path / "page" / "index.html"
    html = page.read_text(encoding="utf-8")
    reader = Reader(html)
    videos = [source for source in reader.sources if source.endswith(".mp4")]
    assert "http" not in html
    assert len(videos) == 3 * 2
    for video in videos:  # each lies beside the page
        frames = read_video(page.parent / video)
        assert min(frames.shape[1:3]) >= 280
    for word in ("Do <toy/many>", "hand_position", "gripper", "toy/few", "seed 99", "failed", "executed"):
        assert word in reader.words


def test_the_page_of_an_empty_store_opens(tmp_path):
    Store.create(tmp_path / "empty", SPEC, privileged=False).close()
    assert "toy" in view(tmp_path / "empty").read_text(encoding="utf-8")
    assert info(tmp_path / "empty", Console(file=io.StringIO()))["success"] is None


@pytest.mark.parametrize(("n", "chosen"), [(0, []), (1, [5]), (2, [0, 5]), (4, [0, 2, 4, 5]), (50, range(6))])
def test_every_task_is_shown_and_episodes_are_spread(path, n, chosen):
    with Store.open(path) as store:
        assert pick(store, n) == list(chosen)


def test_info_counts(path):
    text = io.StringIO()
    facts = info(path, Console(file=text, width=300))
    assert (facts["episodes"], facts["steps"]) == (6, 12 + 13 + 14 + 15 + 16 + 20)
    assert facts["sources"] == {"expert": 6}
    assert [task["episodes"] for task in facts["tasks"]] == [1, 5]
    assert {a["array"] for a in facts["arrays"]} == {"state", "action", "action_executed", "image/main", "image/wrist"}
    assert facts["bytes"] > 1000
    for word in ("toy/many", "0–4", "wrist", "Do <toy/few>", "83 %", "90 x 16 x 16 x 3"):
        assert word in text.getvalue()


def test_names_of_numbers():
    assert labels(SPEC.action) == ["hand_delta x", "hand_delta y", "hand_delta z", "gripper"]


def test_bad_input_is_a_user_error(path, tmp_path):
    with pytest.raises(UserError, match="no store at"):
        view(tmp_path / "absent")
    with pytest.raises(UserError, match="episodes must be >= 0"):
        view(path, episodes=-1)
