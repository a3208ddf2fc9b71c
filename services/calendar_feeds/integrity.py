"""The checks of calendar feeds."""

from __future__ import annotations

from sqlalchemy import (
    func,
    or_,
    select,
)

from models import (
    CalendarFeed,
)
from services.calendar_feeds.feeds import MAX_FEEDS
from services.integrity_rule import IntegrityCheck


def calendar_feed_checks() -> list[IntegrityCheck]:
    """Return the checks of calendar feeds."""
    open_feeds = (
        select(CalendarFeed.doctor_id)
        .where(CalendarFeed.ended_at.is_(None))
        .group_by(CalendarFeed.doctor_id)
        .having(func.count() > MAX_FEEDS)
    )
    return [
        IntegrityCheck(f"No doctor has more than {MAX_FEEDS} calendar feeds.", open_feeds),
        IntegrityCheck(
            "A calendar feed that was read has a digest of its content.",
            select(CalendarFeed.id).where(
                CalendarFeed.last_fetched_at.is_not(None),
                or_(CalendarFeed.content_digest.is_(None), CalendarFeed.content_changed_at.is_(None)),
            ),
        ),
    ]
