"""Axes: round steps, positions of values, and short numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, which are multiples of `step`. It always contains zero."""

    low: float
    high: float
    step: float

    def position(self, value: float | Decimal, start: float, end: float) -> float:
        """Return the position of a value between two coordinates."""
        share = (float(value) - self.low) / (self.high - self.low)
        return start + share * (end - start)

    def ticks(self) -> list[float]:
        """Return the values of the marks, from low to high."""
        count = round((self.high - self.low) / self.step)
        return [self.low + number * self.step for number in range(count + 1)]


def scale_of(values: Iterable[float | Decimal], *, marks: int = 5, whole: bool = False) -> Scale:
    """Return an axis for the values with about `marks` steps. `whole` is for counts: no step below 1."""
    numbers = [float(value) for value in values]
    low, high = min([0.0, *numbers]), max([0.0, *numbers])
    if low == high:
        high = 1.0
    rough = (high - low) / marks
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(step * magnitude for step in STEPS if step * magnitude >= rough * (1 - 1e-9))
    if whole:
        step = float(max(1, math.ceil(step)))
    return Scale(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step)


def short_number(value: float) -> str:
    """Return a number of an axis: `0.5`, `250`, `12.5k`, `3M`."""
    for divisor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= divisor:
            return f"{value / divisor:.4g}{unit}"
    return f"{value:.4g}"
