"""Line, bar and histogram pictures as small SVG strings that follow the page's light or dark colours."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#e11d48", "#8b5cf6", "#ca8a04", "#06b6d4", "#64748b")
MAX_POINTS = 600  # more than a picture has pixels; longer lines are thinned, keeping their extremes
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 8, 34


def line_plot(
    lines: Mapping[str, Sequence[float] | np.ndarray],
    *,
    x: Sequence[float] | np.ndarray | None = None,
    xlabel: str = "",
    ylabel: str = "",
    size: tuple[int, int] = (460, 200),
    log_y: bool = False,
) -> str:
    """An SVG of one line per name. Values that are not finite (or not positive with `log_y`) leave gaps.

    A line is y values over the shared `x` (default: 0, 1, 2 …), or an array (n, 2) of its own x and y.
    """
    curves = {name: _curve(line, x) for name, line in lines.items()}
    if log_y:
        curves = {
            n: np.column_stack([c[:, 0], np.log10(np.where(c[:, 1] > 0, c[:, 1], np.nan))]) for n, c in curves.items()
        }
    points = np.concatenate([c[np.isfinite(c).all(1)] for c in curves.values()] or [np.zeros((0, 2))])
    axes = _Axes(_range(points[:, 0]), _range(points[:, 1], pad=0.05), size)
    body = [axes.frame(xlabel, ylabel, log_y)]
    for i, curve in enumerate(curves.values()):
        path = _path(axes.place(_thin(curve)))
        body.append(f'<path d="{path}" fill="none" stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="1.6"/>')
    return _figure(size, body, list(curves))


def bar_plot(
    bars: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    width: int = 460,
) -> str:
    """Horizontal bars with names and optional (low, high) intervals; default limits suit success rates."""
    low, high = limits
    left, row = 8 + 7 * max((len(name) for name in bars), default=0), 22
    unit = (width - left - 60) / (high - low)
    body = []
    for i, (name, value) in enumerate(bars.items()):
        y = i * row + 4
        body.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
        body.append(f'<rect x="{left}" y="{y}" width="{(high - low) * unit:.1f}" height="14" class="track"/>')
        length = (min(max(value, low), high) - low) * unit
        body.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="14" rx="2" fill="{COLOURS[0]}"/>')
        if intervals and name in intervals:
            a, b = (left + (edge - low) * unit for edge in intervals[name])
            body.append(f'<path d="M{a:.1f} {y + 7}H{b:.1f}M{a:.1f} {y + 3}v8M{b:.1f} {y + 3}v8" class="whisker"/>')
        body.append(f'<text x="{width - 52}" y="{y + 11}">{number(value)}</text>')
    return _figure((width, len(bars) * row + 6), body, [])


def histogram(values: np.ndarray, *, bins: int = 40, xlabel: str = "", size: tuple[int, int] = (220, 110)) -> str:
    """How often each value occurs, as an SVG; values that are not finite are left out."""
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(values, bins, _range(values))
    axes = _Axes((edges[0], edges[-1]), (0.0, float(max(counts.max(), 1))), size)
    corners = axes.place(np.column_stack([np.repeat(edges, 2)[1:-1], np.repeat(counts, 2)]))
    floor = size[1] - _BOTTOM
    area = f"M{corners[0, 0]:.1f} {floor}L{_path(corners)[1:]}L{corners[-1, 0]:.1f} {floor}Z"
    return _figure(size, [axes.frame(xlabel, "", False), f'<path d="{area}" fill="{COLOURS[0]}" opacity="0.7"/>'], [])


class _Axes:
    """Data ranges and where they land on the picture."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int]):
        self.x, self.y, self.size = x, y, size

    def place(self, points: np.ndarray) -> np.ndarray:
        """Pixels (n, 2) of data points (n, 2)."""
        width, height = self.size
        u = (points[:, 0] - self.x[0]) / (self.x[1] - self.x[0])
        v = (points[:, 1] - self.y[0]) / (self.y[1] - self.y[0])
        return np.column_stack([_LEFT + u * (width - _LEFT - _RIGHT), height - _BOTTOM - v * (height - _TOP - _BOTTOM)])

    def frame(self, xlabel: str, ylabel: str, log_y: bool) -> str:
        width, height = self.size
        parts = []
        for tick in _ticks(*self.x, max(2, width // 90)):
            ((px, _),) = self.place(np.array([[tick, self.y[0]]]))
            parts.append(f'<text x="{px:.1f}" y="{height - _BOTTOM + 14}" text-anchor="middle">{number(tick)}</text>')
        for tick in _ticks(*self.y, max(2, height // 50)):
            ((_, py),) = self.place(np.array([[self.x[0], tick]]))
            label = number(10**tick) if log_y else number(tick)
            parts.append(f'<path d="M{_LEFT} {py:.1f}H{width - _RIGHT}" class="grid"/>')
            parts.append(f'<text x="{_LEFT - 5}" y="{py + 3:.1f}" text-anchor="end">{label}</text>')
        middle = (_LEFT + width - _RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">{escape(xlabel)}</text>')
        x, y = 11, (height - _BOTTOM + _TOP) / 2
        turned = f'text-anchor="middle" transform="rotate(-90 {x} {y})"'
        parts.append(f'<text x="{x}" y="{y}" {turned}>{escape(ylabel)}</text>')
        return "".join(parts)


def _curve(line: Sequence[float] | np.ndarray, x: Sequence[float] | np.ndarray | None) -> np.ndarray:
    values = np.asarray(line, np.float64)
    if values.ndim == 2:
        return values
    return np.column_stack([np.arange(len(values)) if x is None else np.asarray(x, np.float64), values])


def _range(values: np.ndarray, pad: float = 0.0) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(1.0, abs(low)):  # a constant still needs a height
        low, high = low - max(0.5 * abs(low), 1e-3), high + max(0.5 * abs(high), 1e-3)
    return low - pad * (high - low), high + pad * (high - low)


def _ticks(low: float, high: float, n: int) -> np.ndarray:
    """About n round numbers (1, 2 or 5 times a power of ten) between low and high."""
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / raw)))
    return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step


def _thin(curve: np.ndarray) -> np.ndarray:
    """At most about MAX_POINTS points: the lowest and highest of each bucket, so that spikes stay."""
    if len(curve) <= MAX_POINTS:
        return curve
    keep = {0, len(curve) - 1}
    for rows in np.array_split(np.arange(len(curve)), MAX_POINTS // 2):
        y = np.nan_to_num(curve[rows, 1])
        keep |= {int(rows[y.argmin()]), int(rows[y.argmax()])}
    return curve[sorted(keep)]


def _path(points: np.ndarray) -> str:
    parts, pen = [], "M"
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            parts.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts) or "M0 0"


def number(value: float) -> str:
    """A number as a reader wants it: three digits, whole thousands, short powers of ten."""
    if 1e3 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-")


def _figure(size: tuple[int, int], body: list[str], names: list[str]) -> str:
    width, height = size
    svg = f'<svg class="plot" viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(body)}</svg>'
    if len(names) < 2:
        return svg
    keys = (
        f'<span><i style="background:{COLOURS[i % len(COLOURS)]}"></i>{escape(n)}</span>' for i, n in enumerate(names)
    )
    return f'{svg}<div class="legend">{"".join(keys)}</div>'
