"""VTIMEZONE components give the offsets of the time zone database, as another library reads them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil.tz import tzical

from services.calendar_feeds.time_zones import vtimezone

ZONES = (
    *("Europe/Berlin", "America/New_York", "Africa/Nairobi", "Asia/Kathmandu"),
    "Africa/Casablanca",  # the clocks change for Ramadan, which lasts 35 days
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Dublin",  # its winter time is the exception
    "America/Santiago",  # at midnight
    "Antarctica/Troll",  # by two hours
)


@pytest.mark.parametrize("name", ZONES)
def test_every_local_time_has_the_offset_of_the_database(name: str) -> None:
    zone = ZoneInfo(name)
    text = vtimezone(name, 2025, 2027).to_ical().decode().replace("\r\n ", "")
    parsed = tzical(io.StringIO(f"BEGIN:VCALENDAR\n{text}END:VCALENDAR".replace("\r\n", "\n"))).get()

    wrong = []
    for hour in range(3 * 365 * 24):
        local = (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=hour)).astimezone(zone)
        is_ambiguous = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
        if not is_ambiguous and parsed.utcoffset(local.replace(tzinfo=None)) != local.utcoffset():
            wrong.append(local)

    assert wrong == []


def test_summer_time_begins_at_the_local_time_before_the_change() -> None:
    lines = vtimezone("Europe/Berlin", 2026, 2026).to_ical().decode().splitlines()

    begin = lines.index("DTSTART:20260329T020000")
    assert lines[begin - 1 : begin + 4] == [
        "BEGIN:DAYLIGHT",
        "DTSTART:20260329T020000",
        "TZNAME:CEST",
        "TZOFFSETFROM:+0100",
        "TZOFFSETTO:+0200",
    ]
