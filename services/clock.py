"""The clock, read here and nowhere else, and the clinic's calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from config import settings


def now() -> datetime:
    """The current instant, aware UTC."""
    return datetime.now(UTC)


def today() -> date:
    """The clinic's date."""
    return now().astimezone(settings().zone).date()


def local(instant: datetime) -> datetime:
    """The instant with the clinic's offset."""
    return instant.astimezone(settings().zone)


def at(day: date, clock_time: time) -> datetime:
    """The instant of a wall-clock time of the clinic, aware UTC.

    A time in the spring gap moves by the gap (02:30 is read as 03:30), one in the autumn fold is the first.
    """
    return datetime.combine(day, clock_time, tzinfo=settings().zone).astimezone(UTC)


def day_start(day: date) -> datetime:
    """Midnight at which a day of the clinic begins, aware UTC."""
    return at(day, time.min)


def day_end(day: date) -> datetime:
    """Midnight at which a day of the clinic ends (the next begins), aware UTC."""
    return day_start(day + timedelta(days=1))
