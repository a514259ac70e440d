"""Plain video files as a store without state and actions, to learn from beside demonstrations."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..envs.errors import UserError
from ..envs.spec import Camera, Embodiment
from .schema import Episode
from .store import Store
from .video import frame_rate, read_video

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def import_clips(
    paths: Sequence[Path | str],
    out: Path | str,
    *,
    instruction: str,
    camera: str = "main",
    pixels: int = 96,
    hz: float | None = None,
) -> Store:
    """Write a store with an episode for each video file, and return it, open for reading.

    paths: files, or folders of them · instruction: what is done in them, one sentence · camera: the policy's camera
    that they stand for · pixels: side of the stored frames, to which the middle square of a clip is scaled · hz: frames
    a second of the demonstrations they go with; a clip's frames are picked to match, the nearest in time. Default: the
    first clip's own rate.

    Raises `UserError` where a file is no readable video, and where something is at `out`.
    """
    files = _files(paths)
    rate = hz or frame_rate(files[0])
    if not instruction.strip() or rate <= 0 or pixels < 8:
        raise UserError(f"clips need an instruction, hz > 0 and pixels >= 8; got {instruction!r}, {rate}, {pixels}")
    spec = Camera(name=camera, mount="video", height=pixels, width=pixels)
    about = {"frame": "unknown: a video", "source": "video files"}
    embodiment = Embodiment(
        name="video", cameras=(spec,), state=(), action=(), privileged=(), control_hz=rate, conventions=about
    )
    with Store.create(out, embodiment, privileged=False) as store:
        for file in files:
            frames = _picked(read_video(file), frame_rate(file), rate)
            nothing = np.zeros((len(frames), 0), np.float32)
            store.append(
                Episode(
                    images={camera: np.stack([_square(frame, pixels) for frame in frames])},
                    state=nothing, action=nothing, action_executed=nothing,
                    task=f"video/{zlib.crc32(instruction.encode()):08x}", instruction=instruction,
                    seed=zlib.crc32(file.read_bytes()), source=f"video:{file.name}", success=True,
                )
            )  # fmt: skip
    return Store.open(out)


def _files(paths: Sequence[Path | str]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not found:
        raise UserError(f"no video files ({', '.join(SUFFIXES)}) in {', '.join(map(str, paths))}")
    return found


def _picked(frames: np.ndarray, rate: float, wanted: float) -> np.ndarray:
    """The frames nearest to a clock of `wanted` ticks a second."""
    ticks = np.arange(max(1, int(len(frames) * wanted / rate)))
    return frames[np.minimum(np.round(ticks * rate / wanted).astype(int), len(frames) - 1)]


def _square(frame: np.ndarray, pixels: int) -> np.ndarray:
    """The middle square of a frame (H, W, 3), scaled."""
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    crop = Image.fromarray(frame[top : top + side, left : left + side])
    return np.asarray(crop.resize((pixels, pixels), Image.Resampling.BOX))
