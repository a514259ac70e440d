"""MP4 files that every browser plays: H.264, 4:2:0, index at the front."""

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from ..envs.errors import UserError
from .whole import whole


def write_video(path: Path | str, frames: Iterable[np.ndarray], fps: float, *, scale: int = 1, crf: int = 18) -> Path:
    """Write frames (N, H, W, 3) uint8 as MP4; an iterator of frames (H, W, 3) is written as it comes.

    fps: frames per second of the file; `scale`: integer magnification (nearest neighbour), so that 96 pixels
    can be watched; odd sizes gain a repeated last row or column, as H.264 needs even ones. `crf`: quality, 0
    (lossless) to 51. The file appears whole or not at all. `UserError` on frames that are no pictures.
    """
    path = Path(path)
    if fps <= 0 or scale < 1:
        raise UserError(f"video {path.name}: fps must be > 0 and scale >= 1, got fps={fps}, scale={scale}")
    pictures = _pictures(frames, scale, path.name)
    first = next(pictures, None)
    if first is None:
        raise UserError(f"video {path.name}: no frames to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as draft:
        _encode(draft, first, pictures, fps, crf)
    return path


def read_video(path: Path | str) -> np.ndarray:
    """All frames of a video file as (N, H, W, 3) uint8. `UserError` where the file is no readable video."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no video at {path}")
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (FFmpegError, IndexError) as error:
        raise UserError(f"{path} is not a readable video ({error}); write it again") from error
    if not frames:
        raise UserError(f"{path} holds no video frames; write it again")
    return np.stack(frames)


def frame_rate(path: Path | str) -> float:
    """Frames a second of a video file. `UserError` where the file is no readable video."""
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
    except (FFmpegError, IndexError) as error:
        raise UserError(f"{path} is not a readable video ({error}); write it again") from error
    if not rate:
        raise UserError(f"{path} does not say its frame rate; give hz")
    return float(rate)


def _pictures(frames: Iterable[np.ndarray], scale: int, name: str) -> Iterator[np.ndarray]:
    size: tuple[int, ...] | None = None
    for i, frame in enumerate(frames):
        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise UserError(f"video {name}: frame {i} is {frame.dtype} {frame.shape}, need uint8 (H, W, 3)")
        if size not in (None, frame.shape):
            raise UserError(f"video {name}: frame {i} is {frame.shape}, the frames before it are {size}")
        size = frame.shape
        yield _even(frame.repeat(scale, axis=0).repeat(scale, axis=1))


def _even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _encode(path: Path, first: np.ndarray, rest: Iterator[np.ndarray], fps: float, crf: int) -> None:
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = _stream(container, rate, crf)
        stream.height, stream.width = first.shape[:2]
        for picture in itertools.chain([first], rest):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _stream(container, rate: Fraction, crf: int) -> VideoStream:
    try:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast"})
    except (FFmpegError, ValueError) as error:
        raise UserError(f"this PyAV has no H.264 encoder ({error}); pip install --force-reinstall av") from error
    stream.pix_fmt = "yuv420p"
    return stream
