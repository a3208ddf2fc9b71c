"""The dispatcher: it passes each event to the subscribers of its type, exactly once.

Events are dispatched in batches, each in one transaction. The changes of a subscriber that fails are rolled
back, and a job calls it again: the other subscribers and events go on.
"""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from extensions import db
from models import Event
from services import clock
from services.jobs import queue, registry
from services.jobs.failures import Dead
from services.jobs.transactions import transaction

log = structlog.get_logger()

BATCH = 100  # events of one transaction
REPEAT = "events.dispatch"  # the kind of the job that calls a subscriber again


def dispatch_batch() -> int:
    """Dispatch the oldest events that no other dispatcher has locked. Return their number."""
    with transaction("events dispatch"):
        waiting = select(Event).where(Event.dispatched_at.is_(None)).order_by(Event.id).limit(BATCH)
        events = db.session.scalars(waiting.with_for_update(skip_locked=True)).all()
        if not events:
            return 0
        ids = [event.id for event in events]
        for event in events:
            for subscriber in registry.SUBSCRIBERS.get(event.type, ()):
                _call(subscriber, event)
        db.session.execute(update(Event).where(Event.id.in_(ids)).values(dispatched_at=clock.now()))
    return len(ids)


def _call(subscriber: registry.Subscriber, event: Event) -> None:
    """Call the subscriber in a savepoint. If it fails, add a job that calls it again."""
    event_id, name = event.id, _name(subscriber)
    try:
        with db.session.begin_nested():
            subscriber(event)
    except Exception as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise  # the whole batch is rolled back and dispatched again
        log.exception("subscriber_failed", event_id=event_id, subscriber=name)
        payload = {"event_id": event_id, "subscriber": name}
        queue.enqueue(REPEAT, payload, dedupe_key=f"{REPEAT}:{event_id}:{name}")


def repeat(payload: dict[str, Any]) -> None:
    """Call a subscriber that failed, in the transaction that also finishes the job."""
    with transaction(f"job {REPEAT}", finishes_job=True):
        event = db.session.get(Event, payload["event_id"])
        if event is None:
            raise Dead("The event was removed.")
        for subscriber in registry.SUBSCRIBERS.get(event.type, ()):
            if _name(subscriber) == payload["subscriber"]:
                subscriber(event)
                return
        raise Dead("The subscriber does not exist in this version.")


def _name(subscriber: registry.Subscriber) -> str:
    return f"{subscriber.__module__}.{subscriber.__qualname__}"


registry.HANDLERS[REPEAT] = repeat
