"""A video grid of foresight: for each episode the present, what really came and what was foreseen, moving together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.video import write_video
from .film import Pictures, label, magnified

SIZE = 160  # side of a panel [pixels]
FPS = 10
HOLD = 8  # pictures that stay at the end of the longest episode


@dataclass(frozen=True)
class Look:
    """Pictures {camera: (H, W, 3) u8} of now, and of the last foreseen step as it came and as it was foreseen."""

    now: Pictures
    real: Pictures
    foreseen: Pictures


def write_storyboard(path: Path, episodes: Sequence[Sequence[Look]], *, title: str) -> Path:
    """Write an MP4 with a row for each episode and four columns for each camera, and a PNG of its middle beside it.

    All episodes run side by side; a short one stays at its last look.
    """
    frames = list(_frames(episodes, title))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frames[len(frames) // 2]).save(path.with_suffix(".png"))
    return write_video(path, iter([*frames, *[frames[-1]] * HOLD]), FPS)


def _frames(episodes: Sequence[Sequence[Look]], title: str) -> Iterator[np.ndarray]:
    cameras = list(episodes[0][0].now)
    names = [f"{camera}: {name}" for camera in cameras for name in ("now", "what came", "foreseen", "difference")]
    head = np.concatenate([label(name, SIZE) for name in names], axis=1)
    top = np.concatenate([label(title, head.shape[1]), head])
    for i in range(max(len(looks) for looks in episodes)):
        rows = [_row(looks[min(i, len(looks) - 1)], cameras) for looks in episodes]
        yield np.concatenate([top, *rows])


def _row(look: Look, cameras: Sequence[str]) -> np.ndarray:
    panels = []
    for camera in cameras:
        real, foreseen = look.real[camera], look.foreseen[camera]
        error = np.abs(real.astype(int) - foreseen).astype(np.uint8)
        panels += [magnified(p, (SIZE, SIZE)) for p in (look.now[camera], real, foreseen, error)]
    return np.concatenate(panels, axis=1)
