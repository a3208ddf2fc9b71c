"""The spans and periods of reports, in Python and in SQL.

Days, weeks (ISO 8601, from Monday), months and years are those of the clinic's time zone. They start at local
midnight, also when the UTC offset changes within the span.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, case, func, literal_column

from database.functions import is_postgresql, unix_seconds
from errors import invalid
from extensions import db
from services import clock

Unit = Literal["day", "week", "month", "year"]
Value = TypeVar("Value")

DEFAULT_DAYS = 30
MAX_PERIODS = 400
SECONDS_PER_DAY = 86_400
# The origin is before 1970, so that no remainder is negative: the engines round negative ones differently.
ORIGIN = date(1870, 1, 1)
_SHIFT = (date(1970, 1, 1) - ORIGIN).days * SECONDS_PER_DAY


@dataclass(frozen=True)
class Span:
    """A range of days of the clinic. Both ends are included."""

    start: date
    end: date

    @property
    def since(self) -> datetime:
        """The instant at which the span starts."""
        return clock.day_start(self.start)

    @property
    def until(self) -> datetime:
        """The instant at which the span ends, excluded."""
        return clock.day_end(self.end)

    def contains(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that a column of instants is in the span."""
        condition: ColumnElement[bool] = (column >= self.since) & (column < self.until)
        return condition


@dataclass(frozen=True)
class Period:
    """A day, week, month or year, limited to its span. `label` names the complete period."""

    label: str
    start: date
    end: date


def span(start_date: date | None = None, end_date: date | None = None) -> Span:
    """Return the span from `start_date` to `end_date`, by default the last 30 days, including today.

    With one date only, the span has 30 days, but does not end before today if only the start is given. Raises
    422 for an end before the start, and for a span of more than 400 months.
    """
    length = timedelta(days=DEFAULT_DAYS - 1)
    if end_date is None:
        end_date = max(clock.today(), start_date) if start_date else clock.today()
    start_date = start_date or end_date - length
    if end_date < start_date:
        raise invalid("end_date", "must not be before start_date")
    result = Span(start_date, end_date)
    periods(result, "month")  # raises 422 for a span that is too long
    return result


def today() -> Span:
    """Return the span of the current day of the clinic."""
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
    """Return the periods of a span, including those without data. Raises 422 for more than 400 periods."""
    result = []
    start = whole.start
    while start <= whole.end:
        after = _NEXT[unit](start)
        result.append(Period(_LABEL[unit](start), start, min(after - timedelta(days=1), whole.end)))
        if len(result) > MAX_PERIODS:
            raise invalid("start_date", f"at most {MAX_PERIODS} periods of a {unit} in one report")
        start = after
    return result


def by_period(days: Mapping[date, Value], all_periods: Sequence[Period]) -> list[tuple[Period, list[Value]]]:
    """Return each period with the values of its days. All days are in the span of the periods."""
    starts = [period.start for period in all_periods]
    values: list[list[Value]] = [[] for _ in all_periods]
    for day in sorted(days):
        values[bisect_right(starts, day) - 1].append(days[day])
    return list(zip(all_periods, values, strict=True))


# --- SQL -----------------------------------------------------------------------------------------------


def _utc_offset(instant: datetime) -> int:
    offset = clock.local(instant).utcoffset() or timedelta(0)
    return int(offset.total_seconds())


def _offset_changes(whole: Span) -> list[tuple[datetime, int]]:
    """Return the instants at which the UTC offset changes in a span, with the offset before (seconds)."""
    changes = []
    days = (whole.end - whole.start).days
    low = whole.since
    for number in range(1, days + 2):
        high = clock.day_start(whole.start + timedelta(days=number))
        if _utc_offset(low) != _utc_offset(high):
            before, after = low, high
            while after - before > timedelta(seconds=1):
                middle = before + (after - before) / 2
                before, after = (
                    (middle, after) if _utc_offset(middle) == _utc_offset(low) else (before, middle)
                )
            changes.append((after.replace(microsecond=0), _utc_offset(low)))
        low = high
    return changes


def local_day(column: Any, whole: Span) -> ColumnElement[Any]:
    """Return the SQL expression for the clinic's day of an instant in the span, as a number for `day_of`.

    The expression contains the UTC offsets of the span as numbers, because the time zones of the database
    engines differ: SQLite has none.
    """
    last: ColumnElement[int] = literal_column(str(_utc_offset(whole.until)))
    steps: list[Any] = [
        (column < instant, literal_column(str(offset))) for instant, offset in _offset_changes(whole)
    ]
    offset = case(*steps, else_=last) if steps else last
    seconds = unix_seconds(column) + offset + literal_column(str(_SHIFT))
    return (seconds - seconds % literal_column(str(SECONDS_PER_DAY))).label("day")


def period_column(
    column: Any, whole: Span, all_periods: Sequence[Period]
) -> tuple[ColumnElement[Any], Callable[[Any], int]]:
    """Return the SQL expression for the period of an instant, labelled `period`, and a decoder.

    The decoder returns the index in `all_periods` for a selected value. PostgreSQL compares the instant with
    the starts of the periods. SQLite has no `width_bucket` and selects the day.
    """
    if is_postgresql(db.session.connection()):
        starts_sql = ", ".join(f"'{clock.day_start(period.start).isoformat()}'" for period in all_periods)
        bucket = func.width_bucket(column, literal_column(f"ARRAY[{starts_sql}]::timestamptz[]"))
        return bucket.label("period"), lambda number: int(number) - 1
    starts = [period.start for period in all_periods]
    day = local_day(column, whole).label("period")
    return day, lambda number: bisect_right(starts, day_of(number)) - 1


def day_of(number: Any) -> date:
    """Return the day for a number selected by `local_day`."""
    return ORIGIN + timedelta(days=int(number) // SECONDS_PER_DAY)
