import numpy as np
import pytest
from foreact.data.clips import import_clips
from foreact.data.dataset import Dataset
from foreact.data.doctor import diagnose
from foreact.data.store import Store
from foreact.data.video import write_video
from foreact.data.view import view
from foreact.data.windows import Windows
from foreact.envs.errors import UserError


def clip(path, n: int = 24, fps: float = 20, size: tuple[int, int] = (48, 64)):
    """A film that brightens from above to below, and by 4 with every frame: the n-th has the mean 60 + 4 n."""
    ramp = np.linspace(0, 120, size[0])[:, None, None].repeat(size[1], 1).repeat(3, 2)
    frames = np.stack([np.round(ramp + 4 * i).astype(np.uint8) for i in range(n)])
    return write_video(path, frames, fps, crf=0)


def test_films_become_a_store_without_actions(tmp_path):
    for i in range(3):
        clip(tmp_path / "films" / f"{i}.mp4", n=20 + i)
    (tmp_path / "films" / "notes.txt").write_text("not a film", encoding="utf-8")
    store = import_clips([tmp_path / "films"], tmp_path / "store", instruction="press it", pixels=32)
    assert len(store) == 3
    assert store.n_steps == 20 + 21 + 22
    assert store.names == ["image/main"]
    assert store.embodiment.control_hz == 20
    episode = store.episode(1)
    assert episode.images["main"].shape == (21, 32, 32, 3)
    assert episode.action.shape == (21, 0)
    assert abs(episode.images["main"].mean((1, 2, 3)) - 60 - 4 * np.arange(21)).max() < 3
    batch = Dataset(store, Windows(horizon=4, future=(2,))).batch(np.arange(4))
    assert batch.action is None
    assert batch.state is None
    assert batch.future["main"].shape == (4, 1, 32, 32, 3)


@pytest.mark.parametrize(("hz", "expected"), [(10.0, np.arange(0, 24, 2)), (40.0, np.repeat(np.arange(24), 2))])
def test_frames_are_picked_to_the_demonstrations_clock(tmp_path, hz, expected):
    clip(tmp_path / "a.mp4")
    store = import_clips([tmp_path / "a.mp4"], tmp_path / "store", instruction="go", pixels=16, hz=hz)
    seen = (store.read("image/main").mean((1, 2, 3)) - 60) / 4
    assert len(seen) == len(expected)
    assert abs(seen - expected).max() < 1.1


def test_the_doctor_and_the_viewer_know_films(tmp_path):
    for i in range(2):
        clip(tmp_path / f"{i}.mp4", n=20 + i)
    import_clips([tmp_path], tmp_path / "store", instruction="go", pixels=32)
    assert [f for f in diagnose(tmp_path / "store") if f.severity == "error"] == []
    page = view(tmp_path / "store", tmp_path / "page", 2)
    assert "state" not in page.read_text(encoding="utf-8").split("Statistics")[1]


def test_a_store_of_films_can_be_opened_and_grown(tmp_path):
    clip(tmp_path / "a.mp4")
    first = import_clips([tmp_path / "a.mp4"], tmp_path / "store", instruction="go", pixels=16)
    with Store.open(tmp_path / "store", mode="a") as again:
        again.append(first.episode(0))
        assert len(again) == 2
        assert again.n_steps == 48


def test_errors(tmp_path):
    clip(tmp_path / "a.mp4")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match="no video files"):
        import_clips([tmp_path / "empty"], tmp_path / "s1", instruction="go")
    with pytest.raises(UserError, match="not a readable video"):
        import_clips([tmp_path / "bad.mp4"], tmp_path / "s2", instruction="go")
    with pytest.raises(UserError, match="need an instruction"):
        import_clips([tmp_path / "a.mp4"], tmp_path / "s3", instruction=" ")
