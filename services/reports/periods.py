"""Stretches of the clinic's calendar that reports are about, and their days and periods in SQL.

Days, weeks (ISO 8601, from Monday), months and years are the clinic's: they begin at its midnight, whatever
the clocks do in between.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, case, extract, func, literal_column

from errors import invalid
from extensions import db
from services import clock

Unit = Literal["day", "week", "month", "year"]
Value = TypeVar("Value")

DEFAULT_DAYS = 30
MOST_PERIODS = 400
DAY = 86_400  # seconds
# Seconds are counted from here instead of 1970, so that no remainder is negative: the engines round apart.
ORIGIN = date(1870, 1, 1)
_SHIFT = (date(1970, 1, 1) - ORIGIN).days * DAY


@dataclass(frozen=True)
class Span:
    """Days of the clinic, both included."""

    start: date
    end: date

    @property
    def since(self) -> datetime:
        """The instant at which it begins."""
        return clock.day_start(self.start)

    @property
    def until(self) -> datetime:
        """The instant at which it is over, excluded."""
        return clock.day_end(self.end)

    def holds(self, column: Any) -> ColumnElement[bool]:
        """Whether a column of instants lies in it."""
        found: ColumnElement[bool] = (column >= self.since) & (column < self.until)
        return found


@dataclass(frozen=True)
class Period:
    """One day, week, month or year, cut to the span it belongs to; `label` names it whole."""

    label: str
    start: date
    end: date


def span(start_date: date | None = None, end_date: date | None = None) -> Span:
    """The days asked for: by default the last 30, today included; of one bound alone, 30 from there.

    Raises 422 where the end comes before the start, or the two are more than 400 months apart.
    """
    length = timedelta(days=DEFAULT_DAYS - 1)
    if end_date is None:
        end_date = max(clock.today(), start_date) if start_date else clock.today()
    start_date = start_date or end_date - length
    if end_date < start_date:
        raise invalid("end_date", "must not be before start_date")
    found = Span(start_date, end_date)
    periods(found, "month")
    return found


def today() -> Span:
    """The clinic's current day."""
    return Span(clock.today(), clock.today())


def _month_after(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


_NEXT: dict[Unit, Callable[[date], date]] = {
    "day": lambda day: day + timedelta(days=1),
    "week": lambda day: day + timedelta(days=7 - day.weekday()),
    "month": _month_after,
    "year": lambda day: date(day.year + 1, 1, 1),
}
_LABEL: dict[Unit, Callable[[date], str]] = {
    "day": lambda day: day.isoformat(),
    "week": lambda day: "{}-W{:02}".format(*day.isocalendar()),
    "month": lambda day: f"{day:%Y-%m}",
    "year": lambda day: f"{day:%Y}",
}


def periods(whole: Span, unit: Unit) -> list[Period]:
    """The span cut at the unit's borders, empty periods included; 422 above 400 of them."""
    found = []
    start = whole.start
    while start <= whole.end:
        after = _NEXT[unit](start)
        found.append(Period(_LABEL[unit](start), start, min(after - timedelta(days=1), whole.end)))
        if len(found) > MOST_PERIODS:
            raise invalid("start_date", f"at most {MOST_PERIODS} periods of a {unit} at once")
        start = after
    return found


def by_period(days: Mapping[date, Value], cut: Sequence[Period]) -> list[tuple[Period, list[Value]]]:
    """Each period with the values of its days; all days lie in the span that was cut."""
    starts = [period.start for period in cut]
    found: list[list[Value]] = [[] for _ in cut]
    for day in sorted(days):
        found[bisect_right(starts, day) - 1].append(days[day])
    return list(zip(cut, found, strict=True))


# --- SQL -----------------------------------------------------------------------------------------------


def _offset(instant: datetime) -> int:
    offset = clock.local(instant).utcoffset() or timedelta(0)
    return int(offset.total_seconds())


def _changes(whole: Span) -> list[tuple[datetime, int]]:
    """The instants within the span at which the clinic's clocks change, with the offset before each."""
    found = []
    days = (whole.end - whole.start).days
    low = whole.since
    for number in range(1, days + 2):
        high = clock.day_start(whole.start + timedelta(days=number))
        if _offset(low) != _offset(high):
            before, after = low, high
            while after - before > timedelta(seconds=1):
                middle = before + (after - before) / 2
                before, after = (middle, after) if _offset(middle) == _offset(low) else (before, middle)
            found.append((after.replace(microsecond=0), _offset(low)))
        low = high
    return found


def local_day(column: Any, whole: Span) -> ColumnElement[Any]:
    """The clinic's day on which an instant of the span lies, as a number for `day_of`; on both engines alike.

    The engines know different zones, or none: the offsets that hold within the span are written out.
    """
    last: ColumnElement[int] = literal_column(str(_offset(whole.until)))
    steps: list[Any] = [
        (column < instant, literal_column(str(offset))) for instant, offset in _changes(whole)
    ]
    offset = case(*steps, else_=last) if steps else last
    seconds = extract("epoch", column) + offset + literal_column(str(_SHIFT))
    return (seconds - seconds % literal_column(str(DAY))).label("day")


def numbered(
    column: Any, whole: Span, cut: Sequence[Period]
) -> tuple[ColumnElement[Any], Callable[[Any], int]]:
    """The period of the span in which an instant lies: what to select and group by, labelled `period`.

    And what makes its place in `cut` of what is selected. PostgreSQL finds the period among the borders;
    SQLite numbers the days.
    """
    if db.session.get_bind().dialect.name == "postgresql":
        borders = ", ".join(f"'{clock.day_start(period.start).isoformat()}'" for period in cut)
        found = func.width_bucket(column, literal_column(f"ARRAY[{borders}]::timestamptz[]"))
        return found.label("period"), lambda number: int(number) - 1
    starts = [period.start for period in cut]
    day = local_day(column, whole).label("period")
    return day, lambda number: bisect_right(starts, day_of(number)) - 1


def day_of(number: Any) -> date:
    """The day that `local_day` numbered."""
    return ORIGIN + timedelta(days=int(number) // DAY)
