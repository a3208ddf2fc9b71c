"""iCalendar documents (RFC 5545): the calendar of a doctor, and single appointments.

The same rows give the same bytes: nothing in a document depends on the time of the request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from config import settings
from enums import AppointmentStatus
from lazy_imports import LazyModule
from models import Appointment
from services import clock
from services.calendar_feeds.time_zones import vtimezone

if TYPE_CHECKING:
    import icalendar
else:
    icalendar = LazyModule("icalendar")

MEDIA_TYPE = "text/calendar"
PRODUCT = "-//Clinic backend//Calendar//EN"
REFRESH_INTERVAL = timedelta(hours=1)  # a recommendation: many programs have an interval of their own
# RFC 5545, section 3.2.19: UTC has its own form, and is not named as a time zone
UTC_ZONES = frozenset({"UTC", "Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu"})
# Appointments that take the time of the doctor. The others are shown, but the time is free.
BUSY = (AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED)


@dataclass(frozen=True, slots=True)
class CalendarEvent:
    """An event of a calendar. `changed_at` is the last change of its content."""

    uid: str
    start: datetime
    end: datetime
    summary: str
    sequence: int
    changed_at: datetime
    cancelled: bool = False
    busy: bool = True


def event_uid(entity: str, row_id: int, created_at: datetime) -> str:
    """Return the UID of a row.

    It does not depend on the name of the host. The time of creation makes it unique: an id is used again
    after its row was deleted, or lost by the restore of an older backup.
    """
    text = f"{entity} {row_id} {created_at.astimezone(UTC).isoformat(timespec='microseconds')}"
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def feed_calendar(name: str, events: Sequence[CalendarEvent]) -> bytes:
    """Return the calendar of a feed."""
    calendar = _calendar()
    calendar.add("name", icalendar.vText(name))
    calendar.add("x-wr-calname", icalendar.vText(name))
    calendar.add("x-wr-timezone", icalendar.vText(settings().clinic_timezone))
    calendar.add("refresh-interval", REFRESH_INTERVAL, parameters={"VALUE": "DURATION"})
    calendar.add("x-published-ttl", icalendar.vDuration(REFRESH_INTERVAL))
    return _with_events(calendar, events)


def appointment_calendar(
    appointment: Appointment, *, clinic_name: str, cancelled: bool, organizer: str | None = None
) -> bytes:
    """Return one appointment for an e-mail or a download. It shows the clinic and the time only.

    The method is PUBLISH, or CANCEL for a cancelled appointment: neither asks the reader for an answer
    (RFC 5546, sections 3.2.1 and 3.2.5). `organizer` is the e-mail address of the clinic, which both need.
    """
    calendar = _calendar()
    calendar.add("method", "CANCEL" if cancelled else "PUBLISH")
    event = CalendarEvent(
        uid=event_uid("appointment", appointment.id, appointment.created_at),
        start=appointment.start,
        end=appointment.end,
        summary=clinic_name,
        sequence=appointment.version,
        changed_at=appointment.updated_at,
        cancelled=cancelled,
        busy=not cancelled and appointment.status in BUSY,
    )
    return _with_events(calendar, [event], organizer)


def _calendar() -> icalendar.Calendar:
    calendar = icalendar.Calendar()
    calendar.add("version", "2.0")
    calendar.add("prodid", PRODUCT)
    calendar.add("calscale", "GREGORIAN")
    return calendar


def _with_events(
    calendar: icalendar.Calendar, events: Sequence[CalendarEvent], organizer: str | None = None
) -> bytes:
    """Return the calendar with the events, after the time zone that they refer to."""
    zone = settings().clinic_timezone
    if events and zone not in UTC_ZONES:
        first, last = min(event.start for event in events), max(event.end for event in events)
        calendar.add_component(vtimezone(zone, clock.local(first).year, clock.local(last).year))
    head, end, _rest = calendar.to_ical().partition(b"END:VCALENDAR")
    return b"".join((head, *(_event_lines(event, zone, organizer) for event in events), end, b"\r\n"))


@lru_cache(maxsize=16_384)
def _event_lines(event: CalendarEvent, _zone: str, organizer: str | None) -> bytes:
    """Return a VEVENT.

    It is cached: 5,000 events take the library a second, and from one fetch to the next only a few change.
    """
    component = _component(event)
    if organizer is not None:
        address = icalendar.vCalAddress(f"mailto:{organizer}")
        address.params["CN"] = event.summary
        component.add("organizer", address)
    lines: bytes = component.to_ical()
    return lines


def _component(event: CalendarEvent) -> icalendar.Event:
    component = icalendar.Event()
    component.add("uid", event.uid)
    start, end = _period(event.start, event.end)
    component.add("dtstart", start)
    component.add("dtend", end)
    component.add("summary", event.summary)
    component.add("status", "CANCELLED" if event.cancelled else "CONFIRMED")
    component.add("transp", "OPAQUE" if event.busy else "TRANSPARENT")
    component.add("sequence", event.sequence)
    component.add("dtstamp", event.changed_at)
    return component


def _period(start: datetime, end: datetime) -> tuple[date, date]:
    """Return start and end as local times, as days if they are whole days of the clinic, or in UTC.

    They are in UTC if the clocks change there: RFC 5545 cannot name the second of two equal local times.
    """
    first, last = clock.local(start), clock.local(end)
    if clock.day_start(first.date()) == start and clock.day_start(last.date()) == end:
        return first.date(), last.date()
    if settings().clinic_timezone in UTC_ZONES or _is_ambiguous(first) or _is_ambiguous(last):
        return start.astimezone(UTC), end.astimezone(UTC)
    return first, last


def _is_ambiguous(local: datetime) -> bool:
    """Return True if the clocks show this local time twice."""
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
