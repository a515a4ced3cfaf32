"""Curves as characters: eight dots a cell, so that a few lines of a terminal show how a loss falls."""

import itertools
import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from plait.cli import output
from plait.job_shapes import Series

#: A braille cell is two dots wide and four high; the bit of each dot, by column, from the top.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLANK = 0x2800


def curve(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """`height` lines of `width` characters: the points joined, the least at the bottom. Not-a-numbers are left out."""
    cells = [[_BLANK] * width for _ in range(height)]
    dots = [(x, y) for x, y in _scaled(points, 2 * width - 1, 4 * height - 1)]
    joined = dots[:1] + [dot for a, b in itertools.pairwise(dots) for dot in _line(a, b)]
    for x, y in joined:
        cells[height - 1 - y // 4][x // 2] |= _DOTS[x % 2][3 - y % 4]
    return ["".join(map(chr, row)) for row in cells]


def _scaled(points: Sequence[tuple[float, float]], right: int, top: int) -> list[tuple[int, int]]:
    real = [(x, y) for x, y in points if math.isfinite(y)]
    if not real:
        return []
    xs, ys = [x for x, _ in real], [y for _, y in real]
    left, low = min(xs), min(ys)
    wide, high = (max(xs) - left) or 1.0, max(ys) - low
    # A level line stands in the middle, neither best nor worst.
    return [
        (round((x - left) / wide * right), round((y - low) / high * top) if high else top // 2)
        for x, y in real
    ]


def _line(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots from behind `a` to `b`."""
    count = max(abs(b[0] - a[0]), abs(b[1] - a[1]))
    share = [n / count for n in range(1, count + 1)]
    return [(round(a[0] + (b[0] - a[0]) * s), round(a[1] + (b[1] - a[1]) * s)) for s in share]


def chart(name: str, series: Series, width: int, height: int, style: str = "cyan") -> Table:
    """A titled curve with the least and the largest value, the steps, and the last value; `width` cells in all."""
    points = list(zip(series.steps, series.values, strict=False))
    values = [value for value in series.values if math.isfinite(value)]
    low, high = (short(min(values)), short(max(values))) if values else ("", "")
    margin = max(len(low), len(high), 6)
    lines = curve([(float(x), y) for x, y in points], max(width - margin - 2, 4), height)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=margin, justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    last = short(series.values[-1]) if series.values else "-"
    grid.add_row("", Text(f"{output.clean(name)} {last}", style="bold", no_wrap=True))
    for n, line in enumerate(lines):
        grid.add_row(high if n == 0 else low if n == height - 1 else "", Text(line, style=style))
    ends = f"step {series.steps[0]} to {series.steps[-1]}" if series.steps else ""
    grid.add_row("", Text(ends, style="dim"))
    return grid


def short(value: float) -> str:
    """A number in at most seven characters or so."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    return f"{value:.1e}" if size and not 1e-3 <= size < 1e5 else f"{value:.4g}"
