import numpy as np
import pytest
from foreact.data.video import read_video, write_video
from foreact.envs.errors import UserError


def _gradient(n: int, height: int, width: int) -> np.ndarray:
    """Smooth moving colours: 4:2:0 keeps them within a few levels."""
    y, x, t = np.meshgrid(np.arange(height), np.arange(width), np.arange(n), indexing="ij")
    frames = np.stack([4 * t + x, 200 - y - t, 80 + x // 2 + y // 2], axis=-1)
    return np.moveaxis(frames, 2, 0).astype(np.uint8)


@pytest.mark.parametrize(("size", "scale"), [((32, 48), 1), ((33, 47), 1), ((32, 32), 3)])
def test_round_trip_keeps_frames_in_order(tmp_path, size, scale):
    frames = _gradient(12, *size)
    back = read_video(write_video(tmp_path / "a.mp4", frames, 20, scale=scale))
    height, width = (side * scale + side * scale % 2 for side in size)
    assert back.shape == (12, height, width, 3)
    crop = back[:, : size[0] * scale : scale, : size[1] * scale : scale].astype(int)
    assert np.abs(crop - frames).mean() < 4
    assert [int(np.abs(frame - frames).mean((1, 2, 3)).argmin()) for frame in crop] == list(range(12))


def test_an_iterator_of_frames_is_enough_and_no_partial_file_stays(tmp_path):
    def frames():
        yield from _gradient(3, 16, 16)

    def breaking():
        yield from _gradient(3, 16, 16)
        raise RuntimeError("simulator gone")

    assert len(read_video(write_video(tmp_path / "a.mp4", frames(), 10))) == 3
    with pytest.raises(RuntimeError, match="gone"):
        write_video(tmp_path / "b.mp4", breaking(), 10)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_the_index_comes_before_the_data(tmp_path):
    content = write_video(tmp_path / "a.mp4", _gradient(4, 32, 32), 10).read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "no frames"),
        (np.zeros((2, 8, 8, 3), np.float32), "float32"),
        (np.zeros((2, 8, 8), np.uint8), r"need uint8 \(H, W, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], "frame 1"),
    ],
)
def test_bad_frames_are_user_errors(tmp_path, frames, message):
    with pytest.raises(UserError, match=message):
        write_video(tmp_path / "a.mp4", frames, 10)
    assert not list(tmp_path.iterdir())


def test_bad_settings_and_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="fps"):
        write_video(tmp_path / "a.mp4", _gradient(2, 8, 8), 0)
    with pytest.raises(UserError, match="no video at"):
        read_video(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("not a video", encoding="utf-8")
    with pytest.raises(UserError, match="not a readable video"):
        read_video(tmp_path / "text.mp4")
