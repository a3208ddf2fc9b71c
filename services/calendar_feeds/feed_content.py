"""The content of a calendar feed: the appointments and the time off of a doctor in a range of days."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, or_, select
from sqlalchemy.orm.exc import StaleDataError

from cache.rate_limits import limits
from config import settings
from enums import AppointmentStatus, CalendarDetail
from errors import ClinicError, not_found
from extensions import db
from lazy_imports import LazyModule
from models import Appointment, Base, CalendarFeed, Doctor, Patient, TimeOff, User
from security import permissions
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.calendar_feeds import ical
from services.calendar_feeds.feeds import token_hash
from services.calendar_feeds.ical import CalendarEvent, event_uid
from services.rows import execute_core
from services.scheduling.availability import MAX_DURATION

if TYPE_CHECKING:
    import icalendar
else:
    icalendar = LazyModule("icalendar")

FORMAT = "1"  # change it with each change of the documents: programs then read their feeds again
RATE_OF_TOKEN = "60 per 10 minutes"  # noqa: S105 - a rate
RATE_OF_NETWORK = "300 per 10 minutes"  # many calendars may be read by one provider
CANCELLED_FOR = timedelta(days=30)  # the time in which a cancelled appointment is shown as cancelled
LONGEST = timedelta(minutes=MAX_DURATION)
FETCH_PRECISION = timedelta(minutes=1)  # of the stored last fetch
SECOND = timedelta(seconds=1)
MAX_USER_AGENT = 500  # characters
TABLE = Base.metadata.tables[CalendarFeed.__tablename__]
BUSY_SUMMARY, TIME_OFF_SUMMARY = "Busy", "Time off"


@dataclass(frozen=True)
class FeedContent:
    """The state of a feed. `digest` covers everything that the document depends on."""

    feed_id: int
    name: str
    events: Sequence[CalendarEvent]
    patient_ids: frozenset[int]
    digest: str
    changed_at: datetime

    def document(self) -> bytes:
        """Return the iCalendar document."""
        return ical.feed_calendar(self.name, self.events)

    def record_read(self) -> None:
        """Add the audit entry of a reader who gets names of patients."""
        if self.patient_ids:
            audit_log.record_read("read", "calendar_feed", [self.feed_id], self.patient_ids)


def read(visitor: Actor, token: str, user_agent: str) -> FeedContent:
    """Return the content of the feed with this token.

    Raises the same 404 for an unknown token, an ended feed, an inactive doctor and an inactive user. Raises
    429 `too_many_requests` for too many requests of the network, or with the token.
    """
    hashed = token_hash(token)
    _count(RATE_OF_NETWORK, visitor.network, "network")
    _count(RATE_OF_TOKEN, hashed, "token")
    feed = db.session.execute(_FEED.where(CalendarFeed.token_hash == hashed)).one_or_none()
    if feed is None:
        raise not_found("calendar")
    if not _is_valid(feed):
        raise not_found("calendar").about("calendar_feed", feed.id)
    detail = feed.detail
    if detail is CalendarDetail.NAMES and not settings().calendar_feed_names:
        detail = CalendarDetail.BUSY  # the setting was withdrawn
    events, patient_ids = _events(feed, detail)
    state = (FORMAT, icalendar.__version__, settings().clinic_timezone, feed.doctor_name, events)
    digest = hashlib.sha256(repr(state).encode()).hexdigest()
    changed_at = _record_fetch(feed, digest, user_agent)
    named = patient_ids if detail is CalendarDetail.NAMES else frozenset[int]()
    return FeedContent(feed.id, feed.doctor_name, events, named, digest, changed_at)


def _count(rate: str, key: str, kind: str) -> None:
    wait = limits.hit(rate, f"calendar-{kind}", key, policy=f"calendar-{kind}")
    if wait is not None:
        raise ClinicError("too_many_requests", "Read this calendar less often.", retry_after=wait)


_FEED = (
    select(
        *TABLE.c,
        Doctor.name.label("doctor_name"),
        Doctor.is_active.label("doctor_is_active"),
        Doctor.user_id.label("doctor_user_id"),
        User.is_active.label("user_is_active"),
        User.role.label("user_role"),
    )
    .join(Doctor, Doctor.id == CalendarFeed.doctor_id)
    .outerjoin(User, User.id == Doctor.user_id)
)


def _is_valid(feed: Row[Any]) -> bool:
    """Return True if the feed has not ended, and its doctor and user are those of its creation and active."""
    if feed.ended_at is not None or not feed.doctor_is_active:
        return False
    if feed.user_id is not None and feed.user_id != feed.doctor_user_id:
        return False
    if feed.doctor_user_id is None:
        return True
    return bool(feed.user_is_active) and feed.user_role in permissions.TABLE[Permission.CALENDAR_FEEDS]


def _record_fetch(feed: Row[Any], digest: str, user_agent: str) -> datetime:
    """Store a new digest, and once a minute the fetch. Return the time of the last change of the content.

    A request that stored something at the same moment makes this one run again.
    """
    now = clock.now()
    values: dict[str, Any] = {}
    changed_at: datetime = feed.content_changed_at
    if digest != feed.content_digest:
        # HTTP dates have seconds: two contents must not have the same one
        changed_at = now.replace(microsecond=0)
        if feed.content_changed_at is not None:
            changed_at = max(changed_at, feed.content_changed_at + SECOND)
        values |= {"content_digest": digest, "content_changed_at": changed_at}
    if feed.last_fetched_at is None or now - feed.last_fetched_at >= FETCH_PRECISION:
        values |= {"last_fetched_at": now, "user_agent": _plain(user_agent)}
    if values:
        # on the table, not the ORM: a fetch is no change for the audit log
        statement = (
            TABLE.update()
            .where(
                TABLE.c.id == feed.id,
                TABLE.c.content_digest.is_not_distinct_from(feed.content_digest),
                TABLE.c.last_fetched_at.is_not_distinct_from(feed.last_fetched_at),
            )
            .values(values)
        )
        if execute_core(statement).rowcount == 0:
            raise StaleDataError("another request has read the feed")
    return changed_at


def _plain(user_agent: str) -> str | None:
    """Return the printable characters of a header."""
    return "".join(filter(str.isprintable, user_agent))[:MAX_USER_AGENT] or None


# --- Events --------------------------------------------------------------------------------------------


def _events(feed: Row[Any], detail: CalendarDetail) -> tuple[list[CalendarEvent], frozenset[int]]:
    """Return the events in the range of the feed, and the ids of their patients."""
    today = clock.today()
    start = clock.day_start(today - timedelta(days=feed.days_back))
    end = clock.day_end(today + timedelta(days=feed.days_ahead))
    rows = db.session.execute(_appointments(feed.doctor_id, start, end)).all()
    absences = db.session.execute(_time_off(feed.doctor_id, start, end)).all()
    shows_patient = detail is not CalendarDetail.BUSY
    events = [_appointment_event(row, detail) for row in rows]
    events += [
        CalendarEvent(
            uid=event_uid("time_off", row.id, row.created_at),
            start=row.start,
            end=row.end,
            summary=TIME_OFF_SUMMARY if shows_patient else BUSY_SUMMARY,
            sequence=0,  # a time off never changes
            changed_at=row.updated_at,
        )
        for row in absences
    ]
    return events, frozenset(row.patient_id for row in rows)


def _appointments(doctor_id: int, start: datetime, end: datetime) -> Select[Any]:
    shown_since = clock.day_start(clock.today()) - CANCELLED_FOR
    return (
        select(
            *(Appointment.id, Appointment.start, Appointment.end, Appointment.status, Appointment.version),
            *(Appointment.created_at, Appointment.updated_at, Appointment.patient_id),
            Patient.name.label("patient_name"),
            Patient.updated_at.label("patient_updated_at"),
        )
        .join(Patient, Patient.id == Appointment.patient_id)
        .where(
            Appointment.doctor_id == doctor_id,
            Appointment.start > start - LONGEST,  # limits the range of the index
            Appointment.start < end,
            Appointment.end > start,
            or_(Appointment.status != AppointmentStatus.CANCELLED, Appointment.cancelled_at >= shown_since),
        )
        .order_by(Appointment.start, Appointment.id)
    )


def _time_off(doctor_id: int, start: datetime, end: datetime) -> Select[Any]:
    return (
        select(TimeOff.id, TimeOff.start, TimeOff.end, TimeOff.created_at, TimeOff.updated_at)
        .where(TimeOff.doctor_id == doctor_id, TimeOff.start < end, TimeOff.end > start)
        .order_by(TimeOff.start, TimeOff.id)
    )


def _appointment_event(row: Row[Any], detail: CalendarDetail) -> CalendarEvent:
    changed_at = row.updated_at
    if detail is CalendarDetail.BUSY:
        summary = BUSY_SUMMARY
    else:
        changed_at = max(changed_at, row.patient_updated_at)
        summary = row.patient_name if detail is CalendarDetail.NAMES else initials(row.patient_name)
    return CalendarEvent(
        uid=event_uid("appointment", row.id, row.created_at),
        start=row.start,
        end=row.end,
        summary=summary,
        sequence=row.version,
        changed_at=changed_at,
        cancelled=row.status is AppointmentStatus.CANCELLED,
        busy=row.status in ical.BUSY,
    )


def initials(name: str) -> str:
    """Return the first letter of each word of a name, with its marks: `A. Y.`."""
    letters = []
    for word in unicodedata.normalize("NFC", name).replace("-", " ").split():
        first = next((index for index, character in enumerate(word) if character.isalpha()), None)
        if first is None:
            continue
        last = first + 1
        while last < len(word) and unicodedata.category(word[last]).startswith("M"):
            last += 1
        letters.append(f"{word[first:last].upper()}.")
    return " ".join(letters) or BUSY_SUMMARY
