"""Pictures of a report as SVG: no script, no style of their own (classes, which the page's style knows), text for each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 260
#: Around the plot, for its labels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 40
#: Points that a curve of this width can show.
MOST_POINTS = 600

#: Of a number in a picture: the difference of two of them is a number, too.
LARGEST = 1e300

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    label: str

    @classmethod
    def over(cls, values: Iterable[float], label: str) -> "Axis":
        """Room for all of them; equal ones get some above and below."""
        found = list(values)
        low, high = min(found), max(found)
        room = abs(high) * 0.1 if abs(high) > 1 / LARGEST else 1.0
        return cls(low, high, label) if high - low >= 1 / LARGEST else cls(low - room, high + room, label)

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """About four round numbers."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 5)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Plot:
    """The plane of a picture. y grows upwards."""

    x: Axis
    y: Axis
    height: int = HEIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        across, down = WIDTH - _LEFT - _RIGHT, self.height - _TOP - _BOTTOM
        return _LEFT + across * self.x.share(x), _TOP + down * (1 - self.y.share(y))

    def axes(self) -> Markup:
        parts = []
        for tick in self.y.ticks():
            x, y = self.at(self.x.low, tick)
            right = WIDTH - _RIGHT
            parts.append(_line("grid", x, y, right, y) + _text("tick end", x - 8, y + 4, number(tick)))
        for tick in self.x.ticks():
            x, y = self.at(tick, self.y.low)
            parts.append(_text("tick middle", x, y + 18, number(tick)))
        bottom = self.height - 4
        parts.append(_text("axis middle", (WIDTH + _LEFT - _RIGHT) / 2, bottom, self.x.label))
        return Markup("").join(parts)


def number(value: Any) -> str:
    """Three digits, as a person writes them; nothing of a number that is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (abs(value) < 1e15 and value == int(value)):
        return f"{int(value):,}"
    size = abs(value)
    return f"{value:,.0f}" if 1e3 <= size < 1e15 else f"{value:.3g}"


def curves(lines: Mapping[str, Points], *, x: str, y: str) -> Markup:
    """A line for each name, through its finite points. Nothing for names without any."""
    finite = {name: _finite(points) for name, points in lines.items()}
    drawn = {name: _thinned(points) for name, points in finite.items() if points}
    if not drawn:
        return Markup("")
    every = [point for points in drawn.values() for point in points]
    plot = Plot(Axis.over((p[0] for p in every), x), Axis.over((p[1] for p in every), y))
    parts = [plot.axes()]
    for place, (name, points) in enumerate(drawn.items()):
        path = " ".join("{:.1f},{:.1f}".format(*plot.at(*point)) for point in points)
        parts.append(Markup('<polyline class="curve c{}" points="{}"/>').format(place, path))
        if len(points) == 1:
            parts.append(_dot(f"c{place}", *plot.at(*points[0])))
        parts.append(_text(f"legend c{place}", _LEFT + 150 * place, 14, name))
    told = "; ".join(f"{name} from {number(p[0][1])} to {number(p[-1][1])}" for name, p in drawn.items())
    return _svg(f"Curves of {y} by {x}: {told}.", parts, HEIGHT)


def _is_finite(value: Any) -> bool:
    """Whether a picture has room for it. What overflowed is None in a report."""
    return isinstance(value, int | float) and abs(value) <= LARGEST


def _finite(points: Points) -> Points:
    return [point for point in points if all(map(_is_finite, point))]


def _thinned(points: Points) -> Points:
    """The last one stays: it is the one that is looked for."""
    stride = -(-len(points) // MOST_POINTS)
    return [*points[:-1:stride], points[-1]]


def reliability(bins: Sequence[Mapping[str, float]]) -> Markup:
    bins = [told for told in bins if all(map(_is_finite, told.values()))]
    plot = Plot(Axis(0, 1, "predicted probability"), Axis(0, 1, "how often it was so"), 320)
    parts = [plot.axes(), _line("ideal", *plot.at(0, 0), *plot.at(1, 1))]
    for told in bins:
        left, top = plot.at(told["from"], told["accuracy"])
        right, bottom = plot.at(told["to"], 0)
        parts.append(_bar("bar", left + 1, top, right - left - 2, bottom - top))
        parts.append(_dot("mean", *plot.at(told["confidence"], told["accuracy"])))
    said = (
        f"Reliability of {len(bins)} bins: bars on the dashed diagonal would be probabilities that are right."
    )
    return _svg(said, parts, 320)


def bars(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """`rows` have `name`, `value`, and `interval` or None; one below the other, from zero."""
    if not rows:
        return Markup("")
    ends = [v for row in rows for v in (row["value"], *(row["interval"] or ())) if v is not None]
    axis = Axis(min(0.0, *ends), max(ends) if max(ends) > 0 else 1.0, "")
    room, left, right = 34, 190, WIDTH - 70

    def across(value: float) -> float:
        return left + (right - left) * axis.share(value)

    parts = []
    for place, row in enumerate(rows):
        y = 8 + room * place
        parts.append(_text("name end", left - 10, y + 16, _short(row["name"])))
        parts.append(_bar(f"bar {row.get('class', '')}", across(0), y, across(row["value"]) - across(0), 22))
        if row["interval"] and None not in row["interval"]:
            low, high = (across(v) for v in row["interval"])
            parts += [_line("whisker", low, y + 11, high, y + 11)]
            parts += [_line("whisker", x, y + 6, x, y + 16) for x in (low, high)]
        parts.append(_text("value", right + 8, y + 16, number(row["value"])))
    told = ", ".join(f"{_short(row['name'])} {number(row['value'])}" for row in rows)
    return _svg(f"Bars: {told}.", parts, 16 + room * len(rows))


def histogram(edges: Sequence[float], counts: Sequence[int], *, x: str) -> Markup:
    if len(edges) < 3:
        return Markup("")
    plot = Plot(Axis(edges[0], edges[-1], x), Axis(0, max(counts), "rows"))
    parts = [plot.axes()]
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        left, top = plot.at(low, count)
        right, bottom = plot.at(high, 0)
        parts.append(_bar("bar", left + 0.5, top, right - left - 1, bottom - top))
    return _svg(f"Histogram of {x}: {number(edges[0])} to {number(edges[-1])}.", parts, HEIGHT)


def scatter(points: Points, *, x: str, y: str) -> Markup:
    """The finite points, with the diagonal on which both are equal. Nothing without any."""
    points = _finite(points)
    if not points:
        return Markup("")
    axis = Axis.over((v for point in points for v in point), x)
    plot = Plot(axis, Axis(axis.low, axis.high, y), 320)
    ideal = _line("ideal", *plot.at(axis.low, axis.low), *plot.at(axis.high, axis.high))
    dots = [_dot("point", *plot.at(*point)) for point in points]
    return _svg(
        f"{len(points)} rows, {y} over {x}; on the diagonal both are equal.", [plot.axes(), ideal, *dots], 320
    )


def _svg(told: str, parts: Iterable[Markup], height: int) -> Markup:
    head = Markup('<svg role="img" viewBox="0 0 {} {}" aria-label="{}">').format(WIDTH, height, told)
    return head + Markup("").join(parts) + Markup("</svg>")


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    form = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    return Markup(form.format(escape(kind), x1, y1, x2, y2))


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    form = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
    return Markup(form.format(escape(kind), min(x, x + width), y, abs(width), max(height, 0.5)))


def _dot(kind: str, x: float, y: float) -> Markup:
    return Markup(f'<circle class="{escape(kind)}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')


def _text(kind: str, x: float, y: float, words: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
        kind, f"{x:.1f}", f"{y:.1f}", plain(words)
    )


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


#: What joins the parts of one written sign.
_JOINERS = "\u200c\u200d"


def plain(words: str) -> str:
    """What a browser can show and what does not turn the rest around: no control, direction or half of a pair."""
    return "".join(c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd" for c in words)
