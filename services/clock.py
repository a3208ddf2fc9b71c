"""The clock and the calendar of the clinic. No other module reads the system clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from config import settings


def now() -> datetime:
    """Return the current time, aware UTC."""
    return datetime.now(UTC)


def today() -> date:
    """Return the current date in the time zone of the clinic."""
    return now().astimezone(settings().zone).date()


def local(instant: datetime) -> datetime:
    """Return an instant in the time zone of the clinic."""
    return instant.astimezone(settings().zone)


def at(day: date, clock_time: time) -> datetime:
    """Return the instant of a local time of the clinic, aware UTC.

    A time in the spring gap moves by the gap: 02:30 is read as 03:30. Of an ambiguous time in autumn, the
    first instant is returned.
    """
    return datetime.combine(day, clock_time, tzinfo=settings().zone).astimezone(UTC)


def day_start(day: date) -> datetime:
    """Return the midnight at the start of a day of the clinic, aware UTC."""
    return at(day, time.min)


def day_end(day: date) -> datetime:
    """Return the midnight at the end of a day of the clinic, which starts the next day, aware UTC."""
    return day_start(day + timedelta(days=1))
