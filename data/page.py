"""Static HTML pages that open without a server: text, tables, plots, pictures and videos.

Used by the store's viewer and by evaluation reports. Nothing is fetched: style and pictures are inside the
page, videos lie beside it under relative paths (or inside it, where they are small enough to be asked for).
"""

import base64
import io
import os
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from ..envs.errors import UserError
from .plot import number
from .style import CSS, SCRIPT
from .whole import whole

Block = str | Callable[[Path], str]


class Clip(NamedTuple):
    """A video of a grid: its file, what it shows, and whether it went well (None: neither)."""

    path: Path | str
    caption: str = ""
    good: bool | None = None


class Page:
    """A page built top to bottom; each method adds one block and returns the page.

    >>> Page("Report").text("Two tasks.").table(["task", "success"], [["push", 0.9]]).write("report.html")

    embed_below: videos of fewer bytes than this are put inside the page instead of linked.
    """

    def __init__(self, title: str, subtitle: str = "", *, embed_below: int = 0):
        self.title = title
        self.embed_below = embed_below
        self._blocks: list[Block] = [f"<header><h1>{escape(title)}</h1>{_paragraph(subtitle, 'sub')}</header>"]

    def section(self, title: str) -> "Page":
        return self._add(f"<h2>{escape(title)}</h2>")

    def heading(self, title: str) -> "Page":
        """A smaller heading inside a section."""
        return self._add(f"<h3>{escape(title)}</h3>")

    def text(self, text: str) -> "Page":
        """Plain paragraphs, separated by empty lines."""
        return self._add("".join(_paragraph(part) for part in text.split("\n\n")))

    def code(self, text: str) -> "Page":
        """A command or other text that is shown as it is."""
        return self._add(f"<pre>{escape(text)}</pre>")

    def facts(self, facts: Iterable[tuple[str, Any]]) -> "Page":
        """A row of cards: a large value over its name."""
        cards = (f"<div><b>{_cell(value)}</b><span>{escape(name)}</span></div>" for name, value in facts)
        return self._add(f'<div class="facts">{"".join(cards)}</div>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> "Page":
        """Rows of text and numbers; numbers stand right, floats show four digits."""
        head = "".join(f"<th>{escape(str(name))}</th>" for name in header)
        body = "".join(f"<tr>{''.join(_td(value) for value in row)}</tr>" for row in rows)
        caption = f"<caption>{escape(caption)}</caption>" if caption else ""
        return self._add(f'<div class="scroll"><table>{caption}<tr>{head}</tr>{body}</table></div>')

    def figure(self, figure: Any, caption: str = "") -> "Page":
        """An SVG string (see `plot`), a matplotlib figure, a picture (H, W, 3) uint8 or a picture file."""
        return self._add(_figure(figure, caption))

    def figures(self, figures: Iterable[tuple[Any, str]]) -> "Page":
        """Several figures with their captions, side by side where there is room."""
        return self._add(f'<div class="grid">{"".join(_figure(f, caption) for f, caption in figures)}</div>')

    def video(self, path: Path | str, caption: str = "") -> "Page":
        return self.videos([Clip(path, caption)])

    def videos(self, clips: Iterable[Clip]) -> "Page":
        """A grid of videos with captions; each plays, muted and in a loop, while it is on the screen."""
        clips = list(clips)
        return self._add(lambda base: f'<div class="grid">{"".join(self._clip(c, base) for c in clips)}</div>')

    def html(self, html: str) -> "Page":
        """Raw HTML, not escaped: for content that the caller made."""
        return self._add(html)

    def write(self, path: Path | str) -> Path:
        """Write the page; it appears whole or not at all. Relative links start at its folder."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "\n".join(b if isinstance(b, str) else b(path.parent) for b in self._blocks)
        with whole(path) as draft:
            draft.write_text(
                _DOCUMENT.format(title=escape(self.title), css=CSS, script=SCRIPT, body=body), encoding="utf-8"
            )
        return path

    def _add(self, block: Block) -> "Page":
        self._blocks.append(block)
        return self

    def _clip(self, clip: Clip, base: Path) -> str:
        mark = {True: "good", False: "bad", None: ""}[clip.good]
        source = escape(self._source(Path(clip.path), base))
        video = f'<video src="{source}" controls loop muted playsinline preload="metadata"></video>'
        return f'<figure class="{mark}">{video}<figcaption>{escape(clip.caption)}</figcaption></figure>'

    def _source(self, path: Path, base: Path) -> str:
        if not path.is_file():
            raise UserError(f"page {self.title!r}: no video at {path}; write it before the page")
        if path.stat().st_size < self.embed_below:
            return _data_uri("video/mp4", path.read_bytes())
        return quote(Path(os.path.relpath(path.resolve(), base.resolve())).as_posix())


def _paragraph(text: str, css: str = "") -> str:
    css = f' class="{css}"' if css else ""
    return f"<p{css}>{escape(text)}</p>" if text else ""


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | np.floating):
        return number(float(value))
    return escape(str(value))


def _td(value: Any) -> str:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return f'<td class="number">{_cell(value)}</td>' if number else f"<td>{_cell(value)}</td>"


def _figure(figure: Any, caption: str) -> str:
    return f"<figure>{_drawing(figure)}<figcaption>{escape(caption)}</figcaption></figure>"


def _drawing(figure: Any) -> str:
    if isinstance(figure, str) and figure.lstrip().startswith("<svg"):
        return figure
    if isinstance(figure, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(figure).save(buffer, format="PNG")
        return _picture("image/png", buffer.getvalue(), css="pixels")
    if not isinstance(figure, str | Path):  # a matplotlib figure, without importing matplotlib here
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
        return _picture("image/png", buffer.getvalue())
    path = Path(figure)
    if not path.is_file():
        raise UserError(f"page figure: no picture at {path}")
    kinds = {
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".gif": "image/gif",
        ".svg": "image/svg+xml",
    }
    return _picture(kinds.get(path.suffix.lower(), "image/png"), path.read_bytes())


def _picture(kind: str, content: bytes, css: str = "") -> str:
    return f'<img class="{css}" src="{_data_uri(kind, content)}" alt="">'


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body><main>
{body}
</main><script>{script}</script></body>
</html>
"""
