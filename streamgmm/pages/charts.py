"""Small pictures as SVG inside a page: themed by its style sheet, described in words.

Drawn at the width of a phone, so that letters are not scaled down there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgmm.model.moments import Floats
from streamgmm.pages.markup import Markup, number, short, tag

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 66, 20, 10, 40
LEVELS = 7  # shades of a density
COLOURS = 6


@dataclass
class Chart:
    """Axes of two ranges, on which lines, bars and shades are drawn.

    With `names` there are lanes one below another, at 0, 1, ... from the top, and no numbers.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    across: str
    up: str
    height: int = HEIGHT
    names: Sequence[str] = ()
    marks: list[Markup] = field(default_factory=list)
    written: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Give ranges without an extent one."""
        if self.names:
            self.y = (len(self.names) - 0.5, -0.5)
            self.x = _opened(self.x)
        else:
            self.x, self.y = _opened(self.x), _opened(self.y)

    def px(self, x: Any) -> Any:
        """Where a value lies across."""
        share = (np.asarray(x, np.float64) - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def py(self, y: Any) -> Any:
        """Where a value lies, from the top."""
        share = (np.asarray(y, np.float64) - self.y[0]) / (self.y[1] - self.y[0])
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * share

    def line(self, x: Floats, y: Floats, class_: str) -> None:
        """A line through points; one that is not finite breaks it."""
        points = np.stack([self.px(x), self.py(y)], axis=1)
        known = np.isfinite(points).all(axis=1)
        said, pen = [], "M"
        for (a, b), ok in zip(points, known, strict=True):
            said.append(f"{pen}{a:.1f} {b:.1f}" if ok else "")
            pen = "L" if ok else "M"
        self.marks.append(tag("path", d="".join(said), class_=f"line {class_}"))

    def dots(self, x: Floats, y: Floats, class_: str, radius: float = 3) -> None:
        """Circles."""
        for a, b in zip(np.atleast_1d(self.px(x)), np.atleast_1d(self.py(y)), strict=True):
            if math.isfinite(a) and math.isfinite(b):
                self.marks.append(
                    tag("circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r=radius, class_=class_)
                )

    def bars(self, edges: Floats, tops: Floats, class_: str, bottoms: Any = 0.0) -> None:
        """A bar between neighbouring edges, from the bottoms up."""
        x, top, low = self.px(edges), self.py(tops), self.py(np.broadcast_to(bottoms, tops.shape))
        said = [
            f"M{a:.1f} {o:.1f}H{b:.1f}V{t:.1f}H{a:.1f}Z"
            for a, b, t, o in zip(x, x[1:], top, low, strict=False)
            if math.isfinite(t) and abs(o - t) > 0.05
        ]
        self.marks.append(tag("path", d="".join(said), class_=class_))

    def shades(self, x: Floats, y: Floats, counts: Floats) -> None:
        """Counts (len(x) - 1, len(y) - 1) between edges, a path for each of few shades."""
        level = _levels(counts)
        px, py = self.px(x), self.py(y)
        for each in range(1, LEVELS + 1):
            said = []
            for j in range(level.shape[1]):
                for a, b in _runs(level[:, j] == each):
                    said.append(
                        f"M{px[a]:.1f} {py[j]:.1f}H{px[b]:.1f}V{py[j + 1]:.1f}H{px[a]:.1f}Z"
                    )
            if said:
                self.marks.append(tag("path", d="".join(said), class_=f"d{each}"))

    def outline(self, mean: Floats, covariance: Floats, share: float, class_: str) -> None:
        """The ellipse that holds a share of a Gaussian."""
        values, vectors = np.linalg.eigh(covariance)
        axes = vectors * np.sqrt(np.maximum(values, 0))
        angle = np.linspace(0, 2 * np.pi, 49)
        circle = np.stack([np.cos(angle), np.sin(angle)])
        x, y = mean[:, None] + np.sqrt(-2 * np.log(1 - share)) * axes @ circle
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(self.px(x), self.py(y), strict=True))
        self.marks.append(tag("polygon", points=points, class_="rim"))
        self.marks.append(tag("polygon", points=points, class_=f"line {class_}"))

    def write(self, x: float, y: float, text: str, class_: str = "") -> None:
        """A few letters, centred at a point inside the axes; none where there are others.

        Those near an edge are moved inside, so that none is cut off.
        """
        a, b = float(self.px(x)), float(self.py(y))
        if LEFT <= a <= WIDTH - RIGHT:
            half = 4.5 * len(text)
            a = min(max(a, LEFT + half), WIDTH - RIGHT - half)
        clear = all(abs(a - c) > 13 or abs(b - d) > 12 for c, d in self.written)
        if clear and LEFT <= a <= WIDTH - RIGHT and TOP <= b <= self.height - BOTTOM:
            self.written.append((a, b))
            self.marks.append(
                tag("text", text, x=f"{a:.1f}", y=f"{b + 4:.1f}", class_=f"label {class_}")
            )

    def upright(self, x: float, class_: str) -> None:
        """A line from the bottom to the top."""
        a = f"{float(self.px(x)):.1f}"
        self.marks.append(
            tag("line", x1=a, x2=a, y1=TOP, y2=self.height - BOTTOM, class_=f"line {class_}")
        )

    def render(self, ident: str, title: str, words: str) -> Markup:
        """The picture, with its title, and what it shows in words for those who do not see it."""
        bottom = self.height - BOTTOM
        clip = f"{ident}-clip"
        inside = {"x": LEFT, "y": TOP, "width": WIDTH - LEFT - RIGHT, "height": bottom - TOP}
        frame = [
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"),
            tag("line", x1=LEFT, x2=LEFT, y1=TOP, y2=bottom, class_="axis"),
        ]
        for value in ticks(*self.x, 5):
            at = float(self.px(value))
            frame.append(tag("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis"))
            frame.append(
                tag("text", tick(value, self.x), x=f"{at:.1f}", y=bottom + 16, class_="mid")
            )
        for value, said in self._upwards():
            at = float(self.py(value))
            frame.append(tag("line", x1=LEFT - 4, x2=LEFT, y1=at, y2=at, class_="axis"))
            frame.append(tag("text", said, x=LEFT - 6, y=f"{at + 4:.1f}", class_="end"))
        middle = (TOP + bottom) / 2
        frame.append(
            tag("text", short(self.across, 34), x=(LEFT + WIDTH - RIGHT) / 2,
                y=self.height - 6, class_="mid name")
        )  # fmt: skip
        frame.append(
            tag("text", short(self.up, 28), x=11, y=middle, class_="mid name",
                transform=f"rotate(-90 11 {middle})")
        )  # fmt: skip
        return tag(
            "svg",
            tag("title", title, id=f"{ident}-t"),
            tag("desc", words, id=f"{ident}-d"),
            tag("clipPath", tag("rect", **inside), id=clip),
            tag("g", self.marks, clip_path=f"url(#{clip})"),
            tag("g", frame, class_="frame"),
            viewBox=f"0 0 {WIDTH} {self.height}",
            role="img",
            aria_labelledby=f"{ident}-t {ident}-d",
            width=WIDTH,
            height=self.height,
        )

    def _upwards(self) -> list[tuple[float, str]]:
        """What stands along the axis at the left, and where."""
        if self.names:
            return [(float(i), short(name, 8)) for i, name in enumerate(self.names)]
        return [(value, tick(value, self.y)) for value in ticks(*self.y, 5)]


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in a range.

    >>> ticks(0, 10, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    step = (high - low) / most
    power = 10.0 ** math.floor(math.log10(step))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    if last - first > 3 * most:  # a range that floating point cannot divide
        return [low, high]
    return [float(step * i) for i in range(first, last + 1)]


def tick(value: float, span: tuple[float, float]) -> str:
    """A number at a tick, with the digits that tell neighbours apart; large ones shortened."""
    size = max(abs(span[0]), abs(span[1]))
    wide = span[1] - span[0] > 1e-3 * size
    if size >= 1e15 or (size < 1e-4 and wide):
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")
    if size >= 1e6 and wide:
        unit, factor = next(u for u in (("T", 1e12), ("G", 1e9), ("M", 1e6)) if size >= u[1])
        return number(value / factor, 4) + unit if value else "0"
    digits = max(0, min(6, 2 - math.floor(math.log10(span[1] - span[0]))))
    text = f"{value:,.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−") if text not in ("-0", "") else "0"


def _opened(span: tuple[float, float]) -> tuple[float, float]:
    low, high = float(span[0]), float(span[1])
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    size = max(abs(low), abs(high))
    if high - low > 1e-9 * size:
        return low, high
    pad = 0.1 * size or 1.0
    return low - pad, high + pad


def _levels(counts: Floats) -> NDArray[np.int64]:
    """Shades 1 to 7 of counts, on a scale of logarithms; 0 where there is nothing."""
    level = np.zeros(counts.shape, np.int64)
    used = counts > 0
    if used.any():
        logs = np.log(counts[used])
        span = max(float(np.ptp(logs)), 1e-9)
        level[used] = 1 + np.minimum(((logs - logs.min()) / span * LEVELS).astype(int), LEVELS - 1)
    return level


def _runs(flags: NDArray[np.bool_]) -> Sequence[tuple[int, int]]:
    """Runs of true values, as (start, stop)."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in change.reshape(-1, 2)]
