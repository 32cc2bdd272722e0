"""Charts as inline SVG: no scripts, no fonts to load, readable in light and dark. Pure functions over numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named line of points."""

    name: str
    points: Sequence[tuple[float, float]]
    css_class: str


def line_chart(series: Sequence[Series], *, x_label: str, y_label: str) -> str:
    """Lines over a common pair of axes, with round ticks and a legend."""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    if not xs:
        return ""
    y_ticks, x_ticks = round_ticks(min(0.0, *ys), max(ys)), round_ticks(min(xs), max(xs))
    x_low, x_high, y_low, y_high = min(xs), max(xs), y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (y - y_low) / ((y_high - y_low) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            x, _ = place(tick, y_low)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for index, line in enumerate(series):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line.points)
        parts.append(f'<polyline class="line {line.css_class}" points="{path}"/>')
        x = WIDTH - RIGHT - 130
        y = TOP + 10 + 16 * index
        parts.append(f'<line class="line {line.css_class}" x1="{x}" x2="{x + 18}" y1="{y - 4}" y2="{y - 4}"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{line.name}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{x_label}</text>')
    parts.append(f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{y_label}</text>')
    return _svg(WIDTH, HEIGHT, f"{y_label} over {x_label}", parts)


def heat_map(rows: Sequence[Sequence[float]], *, columns: Sequence[float], x_label: str, y_label: str) -> str:
    """A grid of magnitudes: row 0 at the bottom, dark where the value is large; the scale is written beside it."""
    if not rows or not rows[0]:
        return ""
    highest = max(max(row) for row in rows) or 1.0
    cell_height = max(6, min(12, 240 // len(rows)))
    height = TOP + cell_height * len(rows) + BOTTOM
    right = 70
    cell_width = (WIDTH - LEFT - right) / len(rows[0])
    parts = []
    for index, row in enumerate(rows):
        y: float = TOP + cell_height * (len(rows) - 1 - index)
        for column, value in enumerate(row):
            x = LEFT + column * cell_width
            parts.append(
                f'<rect class="cell" x="{x:.1f}" y="{y}" width="{cell_width + 0.3:.1f}" height="{cell_height}" '
                f'fill-opacity="{value / highest:.3f}"/>'
            )
        if index % 5 == 0 or index == len(rows) - 1:
            parts.append(f'<text x="{LEFT - 6}" y="{y + cell_height - 1}" text-anchor="end">{index}</text>')
    for share in (0.0, 0.5, 1.0):
        column = round(share * (len(columns) - 1))
        x = LEFT + (column + 0.5) * cell_width
        parts.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{columns[column]:g}</text>')
    scale_x, scale_height = WIDTH - right + 14, cell_height * len(rows)
    steps = 20
    for step in range(steps):
        y = TOP + scale_height * (steps - 1 - step) / steps
        parts.append(
            f'<rect class="cell" x="{scale_x}" y="{y:.1f}" width="12" height="{scale_height / steps + 0.3:.1f}" '
            f'fill-opacity="{(step + 0.5) / steps:.3f}"/>'
        )
    parts.append(f'<text x="{scale_x + 16}" y="{TOP + 8}">{highest:.2g}</text>')
    parts.append(f'<text x="{scale_x + 16}" y="{TOP + scale_height}">0</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - right) / 2}" y="{height - 6}" text-anchor="middle">{x_label}</text>')
    parts.append(
        f'<text transform="translate(12 {TOP + scale_height / 2}) rotate(-90)" text-anchor="middle">{y_label}</text>'
    )
    return _svg(WIDTH, height, f"{y_label} over {x_label}", parts)


def bar_chart(bars: Sequence[tuple[str, float, str]], *, unit: str) -> str:
    """Horizontal bars: a label, a value and a CSS class each; the value is written at the bar's end."""
    highest = max((value for _, value, _ in bars), default=1.0) or 1.0
    label_width, row_height = 190, 30
    height = row_height * len(bars) + 8
    parts = []
    for index, (label, value, css_class) in enumerate(bars):
        y = 4 + index * row_height
        length = (WIDTH - label_width - 80) * value / highest
        parts.append(f'<text x="{label_width - 8}" y="{y + 19}" text-anchor="end">{label}</text>')
        parts.append(
            f'<rect class="bar {css_class}" x="{label_width}" y="{y + 4}" width="{length:.1f}" '
            f'height="{row_height - 8}"/>'
        )
        parts.append(f'<text x="{label_width + length + 6:.1f}" y="{y + 19}">{value:.3g} {unit}</text>')
    return _svg(WIDTH, height, "bars", parts)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover an interval, about ``count`` of them."""
    span = (high - low) or 1.0
    raw = span / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{title}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
