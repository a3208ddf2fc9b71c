"""Quiet hours, also when the clocks change."""

from __future__ import annotations

from datetime import datetime, time
from zoneinfo import ZoneInfo

import pytest

from services.messages.quiet_hours import end_of_quiet

EVENING, MORNING = time(20), time(7, 30)
CASES = [
    # zone, instant, end of the quiet hours
    ("UTC", "2027-03-01T19:59:59Z", None),
    ("UTC", "2027-03-01T20:00:00Z", "2027-03-02T07:30:00Z"),
    ("UTC", "2027-03-02T07:29:59Z", "2027-03-02T07:30:00Z"),
    ("UTC", "2027-03-02T07:30:00Z", None),
    ("Africa/Nairobi", "2027-03-01T17:00:00Z", "2027-03-02T04:30:00Z"),
    # the clocks go forward in the night: 11 hours and a half become 10 and a half
    ("America/New_York", "2027-03-13T20:00:00-05:00", "2027-03-14T07:30:00-04:00"),
    ("Europe/Berlin", "2027-03-27T20:00:00+01:00", "2027-03-28T07:30:00+02:00"),
    # and back: 12 and a half
    ("America/New_York", "2027-11-06T20:00:00-04:00", "2027-11-07T07:30:00-05:00"),
    ("Europe/Berlin", "2027-10-30T20:00:00+02:00", "2027-10-31T07:30:00+01:00"),
    ("Europe/Berlin", "2027-10-31T02:30:00+02:00", "2027-10-31T07:30:00+01:00"),
    ("Europe/Berlin", "2027-10-31T02:30:00+01:00", "2027-10-31T07:30:00+01:00"),
]


@pytest.mark.parametrize(("zone", "instant", "end"), CASES)
def test_the_quiet_hours_end_at_half_past_seven_of_the_clinic(
    zone: str, instant: str, end: str | None
) -> None:
    moment = datetime.fromisoformat(instant)

    assert end_of_quiet(moment, EVENING, MORNING, ZoneInfo(zone)) == datetime.fromisoformat(end or instant)


@pytest.mark.parametrize(
    ("instant", "hours", "end"),
    [
        # the end of the quiet hours is in the spring gap
        ("2027-03-28T01:30:00+01:00", (time(22), time(2, 30)), "2027-03-28T03:30:00+02:00"),
        # it exists twice: the first one that is in the future
        ("2027-10-31T01:00:00+02:00", (time(22), time(2, 30)), "2027-10-31T02:30:00+02:00"),
        ("2027-10-31T02:15:00+01:00", (time(22), time(2, 30)), "2027-10-31T02:30:00+01:00"),
        # hours within one day
        ("2027-03-01T13:00:00+01:00", (time(12), time(14)), "2027-03-01T14:00:00+01:00"),
        ("2027-03-01T14:00:00+01:00", (time(12), time(14)), "2027-03-01T14:00:00+01:00"),
        ("2027-03-01T13:00:00+01:00", (None, None), "2027-03-01T13:00:00+01:00"),
    ],
)
def test_unusual_quiet_hours(instant: str, hours: tuple[time | None, time | None], end: str) -> None:
    moment = datetime.fromisoformat(instant)

    assert end_of_quiet(moment, *hours, ZoneInfo("Europe/Berlin")) == datetime.fromisoformat(end)
