"""iCalendar documents: times, time zones, escaping, and the methods of e-mail parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from icalendar import Calendar

import config
from enums import AppointmentStatus
from models import Appointment
from services.calendar_feeds.ical import CalendarEvent, appointment_calendar, event_uid, feed_calendar
from tests.conftest import settings_for

CREATED = datetime(2026, 1, 5, 8, 0, 0, 123456, tzinfo=UTC)
UseZone = Callable[[str], None]


@pytest.fixture
def use_zone() -> UseZone:
    """Return a function that sets the time zone of the clinic."""

    def use(name: str) -> None:
        config.use(settings_for("sqlite:///unused.db", clinic_timezone=name))

    return use


def event(start: datetime, end: datetime, **members: Any) -> CalendarEvent:
    values = {"uid": "u1", "summary": "Busy", "sequence": 1, "changed_at": CREATED} | members
    return CalendarEvent(start=start, end=end, **values)


def appointment(**members: Any) -> Appointment:
    start = datetime(2026, 3, 30, 8, tzinfo=UTC)
    values = {"id": 7, "start": start, "end": start + timedelta(minutes=30), "version": 3}
    values |= {"status": AppointmentStatus.SCHEDULED, "created_at": CREATED, "updated_at": CREATED}
    return Appointment(**(values | members))


def only_event(content: bytes) -> Any:
    (component,) = Calendar.from_ical(content).events
    return component


@pytest.mark.parametrize(
    ("zone", "start", "written"),
    [
        ("Europe/Berlin", "2026-03-29T00:59:00", "DTSTART;TZID=Europe/Berlin:20260329T015900"),
        ("Europe/Berlin", "2026-03-29T01:30:00", "DTSTART;TZID=Europe/Berlin:20260329T033000"),
        ("Europe/Berlin", "2026-10-25T00:30:00", "DTSTART:20261025T003000Z"),  # 02:30, the first
        ("Europe/Berlin", "2026-10-25T01:30:00", "DTSTART:20261025T013000Z"),  # 02:30, the second
        ("Europe/Berlin", "2026-10-25T02:00:00", "DTSTART;TZID=Europe/Berlin:20261025T030000"),
        ("America/New_York", "2026-11-01T06:30:00", "DTSTART:20261101T063000Z"),
        ("America/New_York", "2026-03-08T07:30:00", "DTSTART;TZID=America/New_York:20260308T033000"),
        ("Asia/Kathmandu", "2026-03-08T03:15:00", "DTSTART;TZID=Asia/Kathmandu:20260308T090000"),
        ("UTC", "2026-03-08T03:15:00", "DTSTART:20260308T031500Z"),
        ("Etc/UTC", "2026-03-08T03:15:00", "DTSTART:20260308T031500Z"),
    ],
)
def test_a_start_is_local_time_unless_the_clocks_show_it_twice(
    use_zone: UseZone, zone: str, start: str, written: str
) -> None:
    use_zone(zone)
    instant = datetime.fromisoformat(start).replace(tzinfo=UTC)

    content = feed_calendar("Dr. Weiss", [event(instant, instant + timedelta(minutes=20))])

    assert written in content.decode().split("\r\n")
    assert only_event(content)["dtstart"].dt == instant
    assert only_event(content)["dtend"].dt == instant + timedelta(minutes=20)
    assert (f"TZID:{zone}" in content.decode().split("\r\n")) is ("UTC" not in zone)


def test_whole_days_are_dates(use_zone: UseZone) -> None:
    use_zone("America/New_York")
    start, end = datetime(2026, 3, 8, 5, tzinfo=UTC), datetime(2026, 3, 10, 4, tzinfo=UTC)

    whole = only_event(feed_calendar("Dr. Weiss", [event(start, end)]))
    part = only_event(feed_calendar("Dr. Weiss", [event(start, end + timedelta(hours=1))]))

    assert (whole["dtstart"].dt, whole["dtend"].dt) == (date(2026, 3, 8), date(2026, 3, 10))
    assert (part["dtstart"].dt, part["dtend"].dt) == (start, end + timedelta(hours=1))


def test_text_is_escaped_and_long_lines_are_folded(use_zone: UseZone) -> None:
    use_zone("Europe/Berlin")
    summary = "Ärzte; \\n, " + "漢字" * 60 + "\r\nATTENDEE:mailto:x@example.com"
    start = datetime(2026, 5, 4, 8, tzinfo=UTC)

    content = feed_calendar("Praxis; A, B", [event(start, start + timedelta(hours=1), summary=summary)])

    lines = content.split(b"\r\n")
    assert lines[-1] == b""
    assert max(map(len, lines)) <= 75
    assert b"\n" not in b"".join(lines)
    assert not any(line.startswith(b"ATTENDEE") for line in lines)
    assert str(only_event(content)["summary"]) == summary.replace("\r\n", "\n")
    assert rb"X-WR-CALNAME:Praxis\; A\, B" in lines
    assert b"REFRESH-INTERVAL;VALUE=DURATION:PT1H" in lines
    assert b"X-PUBLISHED-TTL:PT1H" in lines


def test_the_uid_depends_on_the_row_only() -> None:
    first = event_uid("appointment", 7, CREATED)

    assert first == event_uid("appointment", 7, CREATED.astimezone())
    others = {
        event_uid("time_off", 7, CREATED),
        event_uid("appointment", 8, CREATED),
        event_uid("appointment", 7, CREATED + timedelta(microseconds=1)),
    }
    assert first not in others
    assert len(others) == 3


def test_the_calendar_of_an_e_mail_shows_clinic_and_time(use_zone: UseZone) -> None:
    use_zone("Europe/Berlin")
    row = appointment(reason="rash", notes="private", cancellation_reason="private")

    content = appointment_calendar(
        row, clinic_name="Clinic A", cancelled=False, organizer="desk@clinic.example"
    )

    calendar, shown = Calendar.from_ical(content), only_event(content)
    assert calendar["method"] == "PUBLISH"
    assert (shown["dtstart"].dt, shown["dtend"].dt) == (row.start, row.end)
    assert shown["organizer"] == "mailto:desk@clinic.example"
    assert {name: str(shown[name]) for name in ("summary", "status", "transp", "sequence")} == {
        "summary": "Clinic A",
        "status": "CONFIRMED",
        "transp": "OPAQUE",
        "sequence": "3",
    }
    assert not {"attendee", "description", "location", "comment"} & {name.lower() for name in shown}
    assert b"private" not in content
    assert b"rash" not in content


def test_a_cancelled_appointment_cancels_the_same_event(use_zone: UseZone) -> None:
    use_zone("Europe/Berlin")
    booked = only_event(appointment_calendar(appointment(), clinic_name="Clinic A", cancelled=False))
    row = appointment(version=4, status=AppointmentStatus.CANCELLED)

    content = appointment_calendar(row, clinic_name="Clinic A", cancelled=True)

    shown = only_event(content)
    assert Calendar.from_ical(content)["method"] == "CANCEL"
    assert shown["uid"] == booked["uid"]
    assert shown["sequence"] > booked["sequence"]
    assert (shown["status"], shown["transp"]) == ("CANCELLED", "TRANSPARENT")


def test_the_same_rows_give_the_same_bytes(use_zone: UseZone) -> None:
    use_zone("Europe/Berlin")
    start = datetime(2026, 5, 4, 8, tzinfo=UTC)
    events = [event(start + timedelta(hours=hour), start + timedelta(hours=hour + 1)) for hour in range(3)]

    assert feed_calendar("Dr. Weiss", events) == feed_calendar("Dr. Weiss", list(events))
