"""Key figures of the queue, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from enums import JobState
from extensions import db
from models import Event, Job
from services import clock

MAX_COUNTED = 100_000  # waiting events


@dataclass(frozen=True)
class QueueFigures:
    """Jobs by state and kind, the number of waiting events, and the ages of the oldest ones in seconds."""

    jobs: Mapping[tuple[str, str], int]
    oldest_due_job: float
    waiting_events: int
    oldest_waiting_event: float


def read() -> QueueFigures:
    """Return the present figures. Locks nothing."""
    now = clock.now()
    states = select(Job.state, Job.kind, func.count()).group_by(Job.state, Job.kind)
    waiting = select(Event.at).where(Event.dispatched_at.is_(None)).order_by(Event.id)
    counted = waiting.limit(MAX_COUNTED).subquery()
    oldest = select(
        select(func.count()).select_from(counted).scalar_subquery(),
        waiting.limit(1).scalar_subquery(),
        select(func.min(Job.run_at)).where(Job.state == JobState.QUEUED).scalar_subquery(),
    )
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        jobs = {(state.value, kind): count for state, kind, count in connection.execute(states)}
        events, event_at, due_at = connection.execute(oldest).one()
    return QueueFigures(jobs, _age(now, due_at), events, _age(now, event_at))


def _age(now: datetime, instant: datetime | None) -> float:
    return 0.0 if instant is None else max(0.0, (now - instant).total_seconds())
