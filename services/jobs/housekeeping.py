"""Removal of old jobs and events, and of the files of imports and exports."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, delete, func, or_, select

from enums import JobState
from models import Event, Job
from services import clock
from services.exports.files import remove_expired
from services.imports.expiry import remove_old_files
from services.jobs.transactions import queue_transaction
from services.rows import execute_core

DONE_JOBS = timedelta(days=7)
DEAD_JOBS = timedelta(days=90)
EVENTS = timedelta(days=30)  # after they were dispatched
BATCH = 1_000  # rows of one transaction


def remove_old() -> int:
    """Remove one batch of old jobs and events, and of old files. Return the number of rows.

    The newest row of each table stays: SQLite would give its id to the next row, and keys contain these ids.
    """
    now = clock.now()
    old_jobs = (
        select(Job.id)
        .where(
            Job.id < select(func.max(Job.id)).scalar_subquery(),
            or_(
                and_(Job.state == JobState.DONE, Job.finished_at < now - DONE_JOBS),
                and_(Job.state == JobState.DEAD, Job.finished_at < now - DEAD_JOBS),
            ),
        )
        .order_by(Job.finished_at)
        .limit(BATCH)
    )
    old_events = (
        select(Event.id)
        .where(Event.id < select(func.max(Event.id)).scalar_subquery(), Event.dispatched_at < now - EVENTS)
        .order_by(Event.id)
        .limit(BATCH)
    )
    with queue_transaction():
        return (
            remove_old_files()
            + remove_expired()
            + sum(
                execute_core(delete(model).where(model.id.in_(old))).rowcount
                for model, old in ((Job, old_jobs), (Event, old_events))
            )
        )
