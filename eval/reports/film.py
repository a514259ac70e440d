"""Videos of an episode: what happened and, beside it, what the model foresaw and how it really came."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...data.video import write_video

Pictures = dict[str, np.ndarray]  # {camera: (H, W, 3) u8}
RGB = tuple[int, int, int]
Film = Sequence[tuple[int, Pictures]]  # (step, pictures), steps rising

FPS = 20  # a picture every second step of an 80 Hz arm is then shown at half speed
HOLD = 15  # pictures that stay at the end, so that the outcome can be seen before a loop begins again
_INK, _DIM, _BACK = (235, 238, 243), (150, 160, 175), (17, 21, 27)
_GOOD, _BAD = (16, 185, 129), (225, 29, 72)


@dataclass(frozen=True)
class Foresight:
    """What the model foresaw when it looked at `step`: {camera: (F, H, W, 3) u8}, `offsets` steps ahead."""

    step: int
    offsets: tuple[int, ...]
    pictures: dict[str, np.ndarray]


def write_film(
    path: Path, film: Film, foresights: Sequence[Foresight], *, title: str, success: bool, scale: int = 3
) -> Path:
    """Write an episode as MP4: the present, and if the model foresaw: a foreseen picture beside the real one.

    scale: magnification of the pictures. With several cameras there is one row for each.
    """
    return write_video(path, _frames(film, foresights, title, success, scale), FPS)


def _frames(film: Film, foresights: Sequence[Foresight], title: str, success: bool, scale: int) -> Iterator[np.ndarray]:
    frame = np.zeros((0, 0, 3), np.uint8)
    last = film[-1][0]
    for step, now in film:
        over = step == last
        panels = [(f"now, step {step}", now)]
        if foresights:
            panels += _foreseen(film, held(foresights, step))
        end = ("success" if success else "failure") if over else ""
        frame = _draw(panels, title, end, _GOOD if success else _BAD, scale)
        yield frame
    for _ in range(HOLD):
        yield frame


def held(foresights: Sequence[Foresight], step: int) -> Foresight:
    """The foresight on show at `step`: each is held until its time has come, then comes the newest."""
    shown = foresights[0]
    for later in foresights[1:]:
        time = max(shown.step + shown.offsets[-1], later.step)
        if time > step:
            break
        shown = [f for f in foresights if f.step <= time][-1]
    return shown


def _foreseen(film: Film, foresight: Foresight) -> list[tuple[str, Pictures]]:
    target = foresight.step + foresight.offsets[-1]
    step, real = max((item for item in film if item[0] <= target), key=lambda item: item[0])
    over = f"real, over at step {step}" if target > film[-1][0] else f"real, step {step}"
    foreseen = {camera: pictures[-1] for camera, pictures in foresight.pictures.items()}
    return [(f"foreseen at {foresight.step} for {target}", foreseen), (over, real)]


def _draw(panels: list[tuple[str, Pictures]], title: str, end: str, colour: RGB, scale: int) -> np.ndarray:
    """One frame: a title line, then a column for each panel, a row for each camera."""
    sizes = {camera: (p.shape[1] * scale, p.shape[0] * scale) for camera, p in panels[0][1].items()}
    width = max(width for width, _ in sizes.values())
    columns = []
    for name, pictures in panels:
        rows = [_padded(magnified(pictures[camera], size), width) for camera, size in sizes.items()]
        columns.append(np.concatenate([_strip(name, width, _DIM), *rows]))
    gap = np.full((columns[0].shape[0], 4, 3), _BACK, np.uint8)
    body = np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)
    head = _strip(f"{title}   {end}" if end else title, body.shape[1], colour if end else _INK)
    return np.concatenate([head, body])


def magnified(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) at another size (width, height), its pixels seen as they are.

    A model may foresee smaller pictures than the camera's: all panels get one size.
    """
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))


def _padded(picture: np.ndarray, width: int) -> np.ndarray:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)))


def label(text: str, width: int) -> np.ndarray:
    """A line of text as a picture (H, width, 3)."""
    return _strip(text, width, _INK)


@cache
def _strip(text: str, width: int, colour: RGB) -> np.ndarray:
    size = 14 if width >= 160 else 10
    strip = Image.new("RGB", (width, size + 6), _BACK)
    ImageDraw.Draw(strip).text((4, 2), text, fill=colour, font=ImageFont.load_default(size))
    return np.asarray(strip)
