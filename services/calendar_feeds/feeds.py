"""Calendar feeds of doctors: their creation, list and end."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from config import settings
from enums import CalendarDetail
from errors import ClinicError, not_found
from extensions import db
from models import CalendarFeed, Doctor
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.related_rows import doctor_column, doctor_filter
from services.listing.spec import Condition, ListQuery, ListSpec, Page
from services.rows import get_or_404

MAX_FEEDS = 5  # of one doctor
TOKEN_BYTES = 32  # 256 bits

LIST: ListSpec[CalendarFeed] = ListSpec(
    name="calendar_feeds",
    model=CalendarFeed,
    area="calendar_feed",
    main_date="created_at",
    scope=lambda _actor: CalendarFeed.ended_at.is_(None),
    options=(joinedload(CalendarFeed.doctor),),
    omit=frozenset({"user_id", "content_digest", "content_changed_at"}),
    computed={"doctor_name": doctor_column(CalendarFeed.doctor_id)},
    filters={"doctor_name": doctor_filter(CalendarFeed.doctor_id)},
)


def token_hash(token: str) -> str:
    """Return the form of a token that is stored. It has 256 random bits: no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def get(actor: Actor, doctor_id: int, calendar_feed_id: int, *, lock: bool = False) -> CalendarFeed:
    """Return a feed of the doctor, or raise 404. Raises 403 for a doctor who asks for another one."""
    feed = get_or_404(CalendarFeed, calendar_feed_id, lock=lock)
    if feed.doctor_id != doctor_id:
        raise not_found("calendar_feed")
    if not actor.owns(doctor_id):
        raise ClinicError("forbidden", OWN_ONLY).about("calendar_feed", feed.id)
    return feed


OWN_ONLY = "The calendar feeds of a doctor are for this doctor and for administrators."


def find(actor: Actor, doctor: Doctor, query: ListQuery) -> Page[CalendarFeed]:
    """Return one page of the feeds of a doctor that have not ended. Doctors: own only."""
    _require_own(actor, doctor)
    query.conditions.append(Condition("doctor_id", "eq", doctor.id))
    return paging.page(actor, LIST, query)


def create(
    actor: Actor, doctor: Doctor, *, detail: CalendarDetail, days_back: int, days_ahead: int
) -> tuple[CalendarFeed, str]:
    """Create a feed and return it with its token, which is not stored. Doctors: own only.

    The caller holds the lock on the doctor. Raises 403 for `names` without `CALENDAR_FEED_NAMES`, and 409
    `conflict` for a sixth feed or an inactive doctor.
    """
    _require_own(actor, doctor)
    if detail is CalendarDetail.NAMES and not settings().calendar_feed_names:
        message = (
            "Calendar feeds may not show names here. An administrator can allow it: CALENDAR_FEED_NAMES."
        )
        raise ClinicError("forbidden", message, errors={"detail": "use busy or initials"})
    if not doctor.is_active:
        raise ClinicError("conflict", "The doctor is not active.")
    open_feeds = db.session.scalars(
        select(CalendarFeed.id).where(CalendarFeed.doctor_id == doctor.id, CalendarFeed.ended_at.is_(None))
    ).all()
    if len(open_feeds) >= MAX_FEEDS:
        raise ClinicError(
            "conflict", f"A doctor has at most {MAX_FEEDS} calendar feeds. End one of them first."
        )
    token = secrets.token_urlsafe(TOKEN_BYTES)
    feed = CalendarFeed(
        doctor=doctor,
        doctor_id=doctor.id,
        user_id=doctor.user_id,
        token_hash=token_hash(token),
        detail=detail,
        days_back=days_back,
        days_ahead=days_ahead,
    )
    db.session.add(feed)
    db.session.flush()
    return feed, token


def end(feed: CalendarFeed) -> CalendarFeed:
    """End a feed: its address is unknown from the next request on. A second call changes nothing."""
    if feed.ended_at is None:
        feed.ended_at = clock.now()
        audit_log.set_action(feed, "end")
    return feed


def _require_own(actor: Actor, doctor: Doctor) -> None:
    if not actor.owns(doctor.id):
        raise ClinicError("forbidden", OWN_ONLY)
