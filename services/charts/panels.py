"""Parts of charts: columns over an axis, horizontal bars, the key of the series, and tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.charts.scale import Scale, scale_of, short_number
from services.charts.svg import ACCENT, GRID, INK, PAPER, QUIET, SECOND, SMALL, Drawing, shortened, text_width

# Above this number of columns each series is a line: a column would be narrower than three pixels.
MAX_COLUMNS = 62
MAX_WIDTH = 72.0  # pixels of a column
LINES = (ACCENT, QUIET)  # the second one is dashed


@dataclass(frozen=True)
class Frame:
    """A rectangle of a drawing, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Return the width."""
        return self.right - self.left


@dataclass(frozen=True)
class Series:
    """The values of one figure. The first series of a chart is filled, the second one is an outline."""

    name: str
    values: Sequence[float | Decimal]
    texts: Sequence[str]


def draw_columns(
    drawing: Drawing, frame: Frame, labels: Sequence[str], series: Sequence[Series], *, whole: bool = False
) -> None:
    """Draw one or two series over the labels: columns, or lines if there are many labels.

    The names of the series stand above the frame.
    """
    scale = scale_of((value for each in series for value in each.values), whole=whole)
    for tick in scale.ticks():
        y = scale.position(tick, frame.bottom, frame.top)
        drawing.line(frame.left, y, frame.right, y, stroke=INK if tick == 0 else GRID)
        drawing.text(frame.left - 8, y + 5, short_number(tick), size=SMALL, fill=QUIET, anchor="end")
    slot = frame.width / max(1, len(labels))
    widest = max((text_width(label, size=SMALL) for label in labels), default=0.0)
    every = max(1, math.ceil((widest + 12) / slot))
    for number in range(0, len(labels), every):
        x = frame.left + slot * (number + 0.5)
        drawing.text(x, frame.bottom + 22, labels[number], size=SMALL, fill=QUIET, anchor="middle")
    draw = _draw_line if len(labels) > MAX_COLUMNS else _draw_bar_group
    x = frame.left
    for number, each in enumerate(series):
        draw(drawing, frame, scale, each, number, len(series))
        _draw_key(drawing, x, frame.top - 26, each.name, number, is_line=len(labels) > MAX_COLUMNS)
        x += text_width(each.name) + 60


def _draw_line(
    drawing: Drawing, frame: Frame, scale: Scale, series: Series, number: int, _count: int
) -> None:
    slot = frame.width / len(series.values)
    points = [
        (frame.left + slot * (index + 0.5), scale.position(value, frame.bottom, frame.top))
        for index, value in enumerate(series.values)
    ]
    drawing.curve(points, stroke=LINES[number], dashed=number > 0)


def _draw_bar_group(
    drawing: Drawing, frame: Frame, scale: Scale, series: Series, number: int, count: int
) -> None:
    """Draw the bars of one of `count` series, with the values that fit above the bars."""
    zero = scale.position(0, frame.bottom, frame.top)
    slot = frame.width / len(series.values)
    width = min(MAX_WIDTH, slot * 0.8 / count)
    for index, (value, text) in enumerate(zip(series.values, series.texts, strict=True)):
        x = frame.left + slot * (index + 0.5) + width * (number - count / 2)
        y = scale.position(value, frame.bottom, frame.top)
        top, height = min(y, zero), abs(y - zero)
        _draw_bar(drawing, x, top, width, height, number=number)
        if value != 0 and text_width(text, size=SMALL) + 6 <= width:
            label = top - 5 if value > 0 else top + height + 14
            drawing.text(x + width / 2, label, text, size=SMALL, anchor="middle")


def _draw_bar(drawing: Drawing, x: float, y: float, width: float, height: float, *, number: int) -> None:
    """Draw the bar of a series: dark, or light with an outline. The two differ without colour."""
    fill, stroke = ((ACCENT, None), (SECOND, ACCENT))[number]
    drawing.rectangle(x, y, width, height, fill=fill, stroke=stroke)


def _draw_key(drawing: Drawing, x: float, y: float, name: str, number: int, *, is_line: bool) -> None:
    """Draw the name of a series behind a sample of its bars or its line."""
    if is_line:
        drawing.curve([(x, y - 4), (x + 24, y - 4)], stroke=LINES[number], dashed=number > 0)
    else:
        _draw_bar(drawing, x + 6, y - 11, 12, 12, number=number)
    drawing.text(x + 30, y, name, fill=QUIET)


def draw_bars(
    drawing: Drawing, frame: Frame, labels: Sequence[str], series: Series, *, label_width: float
) -> None:
    """Draw horizontal bars of one series with a label before and the value behind each bar.

    `label_width` is 0 if another chart on the left has the labels. The name of the series stands above the
    frame.
    """
    scale = scale_of(series.values)
    value_width = max((text_width(text, size=SMALL) for text in series.texts), default=0.0)
    left, right = frame.left + label_width, frame.right - value_width - 12
    drawing.text(left, frame.top - 10, series.name, fill=QUIET)
    row = (frame.bottom - frame.top) / max(1, len(series.values))
    height = min(20.0, row * 0.64)
    for index, value in enumerate(series.values):
        middle = frame.top + row * (index + 0.5)
        if label_width:
            label = shortened(labels[index], label_width - 12)
            drawing.text(left - 10, middle + 5, label, anchor="end")
        start, end = (scale.position(each, left, right) for each in (0, value))
        drawing.rectangle(min(start, end), middle - height / 2, abs(end - start), height, fill=ACCENT)
        drawing.text(max(start, end) + 6, middle + 5, series.texts[index], size=SMALL)
    zero = scale.position(0, left, right)
    drawing.line(zero, frame.top, zero, frame.bottom, stroke=INK)


def draw_tile(drawing: Drawing, frame: Frame, name: str, value: str) -> None:
    """Draw one figure in a box: its value in large type over its name."""
    drawing.rectangle(frame.left, frame.top, frame.width, frame.bottom - frame.top, fill=PAPER, stroke=GRID)
    size = 26 if len(value) <= 10 else 19
    drawing.text(frame.left + 12, frame.top + 38, value, size=size, bold=True)
    drawing.text(frame.left + 12, frame.top + 64, shortened(name, frame.width - 16), fill=QUIET)
