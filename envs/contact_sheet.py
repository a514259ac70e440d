"""Frame 0 of tasks on one labelled picture: ``python -m foreact.envs.contact_sheet OUT.png [SUITE …]``.

The way to see that a goal is visible, a picture upright and a camera well placed.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from . import Camera, make, task, tasks

_COLUMNS = 10
_LABEL = 24  # pixels under each picture, two lines of text
_CELL = 112


def contact_sheet(
    names: Sequence[str],
    *,
    cameras: Sequence[Camera] | None = None,
    seed: int = 1000,
    columns: int = _COLUMNS,
    progress: Callable[[str], None] = lambda name: None,
) -> Image.Image:
    """One labelled cell a task: its first camera's picture at the start of episode `seed`, unscaled."""
    pictures = [(name, _first_frame(name, cameras, seed, progress)) for name in names]
    width = max(_CELL, *(p.shape[1] + 4 for _, p in pictures))
    height = max(p.shape[0] for _, p in pictures) + _LABEL
    rows = -(-len(names) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(names)), height * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, picture) in enumerate(pictures):
        x, y = i % columns * width, i // columns * height
        sheet.paste(Image.fromarray(picture), (x + (width - picture.shape[1]) // 2, y))
        draw.multiline_text((x + 3, y + picture.shape[0] + 1), _wrapped(name), fill="black", font_size=9, spacing=1)
    return sheet


def _first_frame(name: str, cameras: Sequence[Camera] | None, seed: int, progress: Callable[[str], None]) -> np.ndarray:
    progress(name)
    env = make(name, cameras=cameras)
    try:
        obs, _ = env.reset(seed=seed)
    finally:
        env.close()
    return obs["images"][env.embodiment.cameras[0].name]


def _wrapped(name: str) -> str:
    words = task(name).name.rsplit("-v", 1)[0].split("-")
    half = next((i for i in range(1, len(words)) if len("-".join(words[: i + 1])) > 19), len(words))
    return "\n".join(filter(None, ("-".join(words[:half]), "-".join(words[half:]))))


def main(argv: Sequence[str]) -> int:
    """Write the sheet of the tasks of the suites named, or of all, to the path given."""
    if not argv:
        print("usage: python -m foreact.envs.contact_sheet OUT.png [SUITE …]", file=sys.stderr)
        return 2
    out = Path(argv[0])
    names = [name for suite in argv[1:] for name in tasks(suite)] or tasks()
    out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(names, progress=lambda name: print(name, file=sys.stderr)).save(out, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
