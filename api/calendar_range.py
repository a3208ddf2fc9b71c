"""Ranges of a list: `start_date` and `end_date`, and the `start`, `end` and `timeZone` of FullCalendar.

`start_date` and `end_date` select rows by their main date. `start` and `end` select rows that overlap the
range, in lists of rows that last some time. In other lists they mean the same as `start_date` and `end_date`.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from config import settings
from schemas.fields import parse_day, parse_instant
from services.listing.spec import MAX_PER_PAGE, ListQuery, ListSpec

BOUNDS = ("start_date", "end_date", "start", "end")
PARAMETERS = (*BOUNDS, "timeZone")


def read_range(list_spec: ListSpec[Any], texts: dict[str, str], query: ListQuery) -> dict[str, str]:
    """Set the range of a query from the texts of its `PARAMETERS`. Return the errors by parameter."""
    errors: dict[str, str] = {}
    zone: tzinfo = settings().zone
    bounds: dict[str, datetime] = {}
    try:
        zone = _parse_zone(texts.get("timeZone"))
    except ValueError as error:
        errors["timeZone"] = str(error)
    for name in BOUNDS:
        if name in texts:
            try:
                bounds[name] = _parse_bound(texts[name], zone, is_end=name.startswith("end"))
            except ValueError as error:
                errors[name] = str(error)
    for first, last in (("start_date", "end_date"), ("start", "end")):
        if first in bounds and last in bounds and bounds[last] < bounds[first]:
            errors[last] = f"must not be before {first}"
    if list_spec.overlaps is None:
        query.start = bounds.get("start_date", bounds.get("start"))
        query.end = bounds.get("end_date", bounds.get("end"))
        return errors
    query.start, query.end = bounds.get("start_date"), bounds.get("end_date")
    query.overlap_start, query.overlap_end = bounds.get("start"), bounds.get("end")
    if query.overlap_start is not None and query.overlap_end is not None:
        query.limit = MAX_PER_PAGE  # a calendar shows all rows of its range, and sends no page
    return errors


def _parse_bound(text: str, zone: tzinfo, *, is_end: bool) -> datetime:
    if len(text) > 10:
        return parse_instant(decode_offset(text), zone=zone)
    day = parse_day(text)
    if is_end:  # the whole day is included
        day += timedelta(days=1)
    return datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC)


def decode_offset(text: str) -> str:
    """Return a date-time with the plus of its offset. Without percent-encoding, a plus arrives as a space."""
    return text[:-6] + "+" + text[-5:] if text[-6:-5] == " " else text


def _parse_zone(name: str | None) -> tzinfo:
    """Return a zone of the IANA database. FullCalendar names the zone of its user `local`."""
    if name is None or name == "local":
        return settings().zone
    if name not in _zone_names():
        raise ValueError("must be the name of an IANA time zone, such as Africa/Nairobi or UTC")
    return ZoneInfo(name)


@cache
def _zone_names() -> set[str]:
    return available_timezones()
