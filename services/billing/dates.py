"""The days that a caller may enter for bills and payments: a typing error must not move money to 1900."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from errors import invalid
from services import clock

MAX_DAYS_AGO = 366
MAX_DAYS_TO_PAY = 3660
CLOCK_SKEW = timedelta(minutes=1)  # the clock of a client may be ahead by this much


def check_issued_on(day: date) -> date:
    """Return the date of issue of a bill. Raise 422 for a day in the future, or too long ago."""
    if day > clock.today():
        raise invalid("date", "must not be in the future")
    _check_not_too_old("date", day)
    return day


def check_due_date(day: date | None) -> None:
    """Raise 422 for a due date too long ago, or too far ahead."""
    if day is None:
        return
    _check_not_too_old("due_date", day)
    if day > clock.today() + timedelta(days=MAX_DAYS_TO_PAY):
        raise invalid("due_date", f"must be at most {MAX_DAYS_TO_PAY} days ahead")


def check_received_at(received_at: datetime | None, *, importing: bool) -> datetime:
    """Return the time of a payment, by default now. Raise 422 for the future, or for too long ago."""
    now = clock.now()
    if received_at is None:
        return now
    if received_at > now + CLOCK_SKEW:
        raise invalid("received_at", "must not be in the future")
    if not importing:
        _check_not_too_old("received_at", clock.local(received_at).date())
    return min(received_at, now)


def _check_not_too_old(field: str, day: date) -> None:
    if day < clock.today() - timedelta(days=MAX_DAYS_AGO):
        raise invalid(field, f"must be at most {MAX_DAYS_AGO} days ago")
