"""VTIMEZONE components: the offsets of a time zone from UTC, with every change in a range of years.

`icalendar` can write them too. Version 7.3.2 gives the start of summer time an hour late, and leaves out the
standard time of Morocco during Ramadan. So this module computes the changes from the time zone database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from lazy_imports import LazyModule

if TYPE_CHECKING:
    import icalendar
else:
    icalendar = LazyModule("icalendar")

STEP = timedelta(days=1)  # no zone changes its offset twice in a day
SECOND = timedelta(seconds=1)


@lru_cache(maxsize=16)
def vtimezone(key: str, first_year: int, last_year: int) -> icalendar.Timezone:
    """Return the VTIMEZONE of an IANA zone for local times of these years. Do not change the component."""
    zone = ZoneInfo(key)
    start, end = datetime(first_year - 1, 1, 1, tzinfo=UTC), datetime(last_year + 2, 1, 1, tzinfo=UTC)
    component = icalendar.Timezone()
    component.add("tzid", key)
    component.add_component(_observance(zone, start, _offset(zone, start)))
    while start < end:
        following = start + STEP
        if _offset(zone, start) != _offset(zone, following):
            onset = _find_change(zone, start, following)
            component.add_component(_observance(zone, onset, _offset(zone, start)))
        start = following
    return component


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def _find_change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """Return the first second with the offset of `high`. At `low` there is another offset."""
    before = _offset(zone, low)
    while high - low > SECOND:
        middle = low + (high - low) // (2 * SECOND) * SECOND
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _observance(
    zone: ZoneInfo, onset: datetime, offset_before: timedelta
) -> icalendar.TimezoneStandard | icalendar.TimezoneDaylight:
    """Return the offset that begins at `onset`, which RFC 5545 writes as local time of the offset before."""
    local = onset.astimezone(zone)
    observance = icalendar.TimezoneDaylight() if local.dst() else icalendar.TimezoneStandard()
    observance.DTSTART = (onset + offset_before).replace(tzinfo=None)
    observance.TZOFFSETFROM = offset_before
    observance.TZOFFSETTO = _offset(zone, onset)
    observance.add("tzname", local.tzname() or str(observance.TZOFFSETTO))
    return observance
