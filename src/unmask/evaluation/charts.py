"""Charts as SVG text: one column of a phone wide, coloured by the style sheet, with a title and a description.

Colours are classes (``s0`` … ``s7``), so that one drawing serves light, dark and paper. Lines differ in dashes and
points in shape as well, because a reader may not see the colours. The drawing is 360 units wide: on a phone a unit is
a pixel, so the text is as large as it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH = 360
N_STYLES = 8
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4", "6 2 1 2")
Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: What it shows, with its unit.
        low: Value at its start.
        high: Value at its end.
        ticks: Values that get a mark and a number.
        percent: Whether numbers are written as per cent.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    percent: bool = False

    def text(self, tick: float) -> str:
        """Write the number of a tick."""
        # Adding 0 turns -0 into 0.
        return f"{100 * tick + 0:g} %" if self.percent else f"{tick + 0:g}"


def marker(style: int, x: float, y: float, radius: float) -> Markup:
    """Draw a sign of a style around a place: a disc, a square, a triangle or a diamond."""
    kind = f"fill s{style % N_STYLES}"
    if style % 4 == 0:
        return Markup('<circle class="{}" cx="{:g}" cy="{:g}" r="{:g}"/>').format(kind, x, y, radius)
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
        3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    }[style % 4]
    points = " ".join(f"{x + radius * dx:g},{y + radius * dy:g}" for dx, dy in corners)
    return Markup('<polygon class="{}" points="{}"/>').format(kind, points)


SHARE_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def signed_axis(label: str, values: Sequence[float]) -> Axis:
    """Make an axis with 0 in its middle, with round ticks, around values of both signs."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0) or 1.0
    half = nice_axis(label, [0.0, largest], from_zero=True, count=2)
    ticks = tuple(sorted({sign * tick for tick in half.ticks for sign in (-1.0, 1.0)}))
    return Axis(label, -half.high, half.high, ticks)


def share_axis(label: str) -> Axis:
    """Make an axis from 0 to 1."""
    return Axis(label, 0, 1, SHARE_TICKS)


def nice_axis(label: str, values: Sequence[float], *, from_zero: bool = False, count: int = 4) -> Axis:
    """Make an axis around values, with round ticks.

    Args:
        label: What it shows.
        values: What must fit; infinite and missing values are passed over.
        from_zero: Whether it must start at 0.
        count: About how many ticks.

    Returns:
        The axis.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = (0.0 if from_zero else min(finite)), max(finite)
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = tuple(round(step * tick, 12) for tick in range(first, last + 1))
    return Axis(label, ticks[0], ticks[-1], ticks)


def integer_axis(label: str, low: int, high: int, count: int = 6) -> Axis:
    """Make an axis of whole numbers."""
    step = max(1, math.ceil((high - low) / count))
    ticks = tuple(float(tick) for tick in range(low, high + 1, step))
    return Axis(label, low, max(high, low + 1), ticks)


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Attributes:
        style: Number of the style, as in the drawing.
        label: What it stands for.
        mark: line, dot, box or rule.
    """

    style: int
    label: str
    mark: str = "line"

    def swatch(self) -> Markup:
        """Draw the sign."""
        if self.mark == "box":
            inside = Markup('<rect class="fill" x="4" y="2" width="14" height="9" rx="2"/>')
        elif self.mark == "dot":
            inside = marker(self.style, 11, 6, 4)
        elif self.mark == "rule":
            inside = Markup('<line class="rule" x1="1" y1="6" x2="21" y2="6"/>')
        else:
            inside = Markup('<line class="line" x1="1" y1="6" x2="21" y2="6" stroke-dasharray="{}"/>').format(
                DASHES[self.style % N_STYLES]
            )
        return Markup('<svg class="swatch s{}" viewBox="0 0 22 12" aria-hidden="true">{}</svg>').format(
            self.style % N_STYLES, inside
        )


@dataclass(frozen=True)
class Chart:
    """A drawing with everything that a reader needs to read it.

    Attributes:
        title: Above it.
        svg: The drawing.
        caption: Below it: what to see, and n.
        legend: What colours, dashes and signs stand for.
        headers: Columns of the numbers behind it.
        rows: The numbers behind it; shown as a table that can be unfolded.
    """

    title: str
    svg: Markup
    caption: str
    legend: tuple[LegendEntry, ...] = ()
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass
class Plot:
    """A drawing in the making.

    Args:
        title: Its name, read aloud by screen readers.
        description: What it shows, in words with numbers.
        x: Horizontal axis.
        y: Vertical axis; None draws none.
        height: In units.
        left: Room for the vertical axis.
        right: Room at the right.
        top: Room above.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    height: int = 262
    left: int = 48
    right: int = 14
    top: int = 10
    parts: list[Markup] = field(default_factory=list)

    @property
    def bottom(self) -> int:
        """Vertical place of the horizontal axis."""
        return self.height - 42

    def px(self, value: float) -> float:
        """Horizontal place of a value."""
        span = WIDTH - self.left - self.right
        return round(self.left + span * (value - self.x.low) / (self.x.high - self.x.low), 2)

    def py(self, value: float) -> float:
        """Vertical place of a value."""
        span = self.bottom - self.top
        return round(self.bottom - span * (value - self.y.low) / (self.y.high - self.y.low), 2)

    def add(self, text: str, **values: object) -> None:
        """Add SVG; the values are escaped."""
        self.parts.append(Markup(text).format(**values))

    def line(self, points: Sequence[Point], style: int, *, strong: bool = False, dashed: bool = True) -> None:
        """Join points by a line."""
        if not points:
            return
        path = "M" + "L".join(f"{self.px(x):g} {self.py(y):g}" for x, y in points)
        self.add(
            '<path class="line s{style}{strong}" d="{path}" stroke-dasharray="{dash}"/>',
            style=style % N_STYLES,
            strong=" strong" if strong else "",
            path=path,
            dash=DASHES[style % N_STYLES] if dashed else "",
        )

    def dot(self, x: float, y: float, style: int, *, radius: float = 3.4) -> None:
        """Mark a point; styles differ in shape."""
        self.parts.append(marker(style, self.px(x), self.py(y), radius))

    def whisker(self, low: Point, high: Point, style: int) -> None:
        """Draw an interval between two points, with short ends across it."""
        (x0, y0), (x1, y1) = ((self.px(x), self.py(y)) for x, y in (low, high))
        dx, dy = (0, 3) if y0 == y1 else (3, 0)
        path = f"M{x0:g} {y0:g}L{x1:g} {y1:g}"
        path += "".join(f"M{x - dx:g} {y - dy:g}L{x + dx:g} {y + dy:g}" for x, y in ((x0, y0), (x1, y1)))
        self.add('<path class="whisker s{s}" d="{path}"/>', s=style % N_STYLES, path=path)

    def band(self, lower: Sequence[Point], upper: Sequence[Point], style: int) -> None:
        """Shade between two lines."""
        points = [*lower, *reversed(upper)]
        if len(points) > 2:
            path = "M" + "L".join(f"{self.px(x):g} {self.py(y):g}" for x, y in points) + "Z"
            self.add('<path class="band s{s}" d="{path}"/>', s=style % N_STYLES, path=path)

    def box(self, corner: Point, opposite: Point, style: int) -> None:
        """Fill a rectangle between two corners."""
        (x0, y0), (x1, y1) = ((self.px(x), self.py(y)) for x, y in (corner, opposite))
        self.add(
            '<rect class="fill s{s}" x="{x}" y="{y}" width="{w:.2f}" height="{h:.2f}"/>',
            s=style % N_STYLES,
            x=min(x0, x1),
            y=min(y0, y1),
            w=abs(x1 - x0),
            h=abs(y1 - y0),
        )

    def rule(self, start: Point, end: Point) -> None:
        """Draw a thin dashed line of reference."""
        (x0, y0), (x1, y1) = ((self.px(x), self.py(y)) for x, y in (start, end))
        self.add('<line class="rule" x1="{a}" y1="{b}" x2="{c}" y2="{d}"/>', a=x0, b=y0, c=x1, d=y1)

    def text(self, x: float, y: float, words: str, *, anchor: str = "start", kind: str = "note") -> None:
        """Write at a place in units of the drawing."""
        self.add(
            '<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>',
            kind=kind,
            x=x,
            y=y,
            anchor=anchor,
            words=words,
        )

    def svg(self) -> Markup:
        """Finish the drawing."""
        axes = Markup("").join([*self._x_axis(), *self._y_axis()])
        return Markup(
            '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{title}. {words}">'
            "<title>{title}</title><desc>{words}</desc>{axes}{parts}</svg>"
        ).format(
            w=WIDTH,
            h=self.height,
            title=self.title,
            words=self.description,
            axes=axes,
            parts=Markup("").join(self.parts),
        )

    def _x_axis(self) -> list[Markup]:
        parts = []
        for tick in self.x.ticks:
            parts.append(
                Markup(
                    '<line class="grid" x1="{x}" x2="{x}" y1="{t}" y2="{b}"/>'
                    '<text class="tick" x="{x}" y="{ty}" text-anchor="middle">{n}</text>'
                ).format(x=self.px(tick), t=self.top, b=self.bottom, ty=self.bottom + 16, n=self.x.text(tick))
            )
        middle = (self.left + WIDTH - self.right) / 2
        parts.append(
            Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                middle, self.height - 7, self.x.label
            )
        )
        return parts

    def _y_axis(self) -> list[Markup]:
        parts = []
        for tick in self.y.ticks:
            parts.append(
                Markup(
                    '<line class="grid" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>'
                    '<text class="tick" x="{tx}" y="{ty}" text-anchor="end">{n}</text>'
                ).format(
                    a=self.left,
                    b=WIDTH - self.right,
                    y=self.py(tick),
                    tx=self.left - 5,
                    ty=self.py(tick) + 4,
                    n=self.y.text(tick),
                )
            )
        middle = (self.top + self.bottom) / 2
        parts.append(
            Markup('<text class="axis" transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
                middle, self.y.label
            )
        )
        return parts


@dataclass(frozen=True)
class Bar:
    """One line of `interval_rows`.

    Attributes:
        label: What is measured.
        value: The estimate; None when undefined.
        low: Lower end of its interval.
        high: Upper end of its interval.
        text: The numbers, written at the right.
        style: Number of the style.
    """

    label: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    style: int = 0


def interval_rows(title: str, description: str, bars: Sequence[Bar], axis: Axis, reference: float | None) -> Markup:
    """Draw estimates with their intervals below each other: the name above, the numbers at the right.

    Args:
        title: Name of the chart.
        description: What it shows, in words.
        bars: From top to bottom.
        axis: Shared by all.
        reference: Where a dashed line stands, for example 0.5 for guessing.

    Returns:
        SVG.
    """
    row = 38
    height = 10 + row * len(bars) + 42
    plot = Plot(title, description, axis, Axis("", 0, 1, ()), height=height, left=16, right=22)
    if reference is not None:
        plot.rule((reference, 0), (reference, 1))
    for index, bar in enumerate(bars):
        top = plot.top + row * index
        place = 1 - (row * index + 27) / (row * len(bars))
        plot.text(4, top + 13, _shorten(bar.label, 25), kind="label")
        plot.text(WIDTH - 4, top + 13, bar.text, anchor="end", kind="value")
        if bar.low is not None and bar.high is not None:
            plot.whisker((_clamp(bar.low, axis), place), (_clamp(bar.high, axis), place), bar.style)
        if bar.value is not None:
            plot.dot(_clamp(bar.value, axis), place, bar.style, radius=4.5)
    return plot.svg()


def _clamp(value: float, axis: Axis) -> float:
    return min(max(value, axis.low), axis.high)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
