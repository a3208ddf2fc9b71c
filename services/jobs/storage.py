"""Statements on the table of jobs: claim, renew, finish. The callers begin and end the transactions.

Every change of a running job names its worker and its attempt. A worker that has lost the lease therefore
changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, select, true, update
from sqlalchemy.orm import InstrumentedAttribute

from database.functions import insert_unless_exists
from enums import JobState
from extensions import db
from models import Event, Job
from services import clock
from services.rows import execute_core, read_outside_transaction

LEASE = timedelta(seconds=60)
MAX_ATTEMPTS = 10
FIRST_DELAY = timedelta(seconds=30)  # doubles with each attempt: ten attempts take about four hours
LONGEST_DELAY = timedelta(hours=2)
MAX_ERROR = 500  # characters


@dataclass
class Claim:
    """A job that this process runs: one attempt, under a lease of its worker."""

    job_id: int
    kind: str
    payload: dict[str, Any]
    worker: str
    attempt: int
    is_finished: bool = False  # a transaction of the handler has finished the job


current_claim: ContextVar[Claim | None] = ContextVar("current_claim", default=None)


def insert_job(**values: Any) -> int | None:
    """Insert a job and return its id, or None if its dedupe key exists."""
    connection = db.session().connection()
    statement = insert_unless_exists(connection, Job, key="dedupe_key").returning(Job.id)
    job_id: int | None = connection.execute(statement, values).scalar_one_or_none()
    return job_id


def has_work(except_kinds: Collection[str] = ()) -> tuple[bool, bool]:
    """Return whether events wait, and whether jobs of other kinds are due. Locks nothing."""
    events = exists().where(Event.dispatched_at.is_(None))
    due = exists().where(*_is_due(clock.now(), except_kinds))
    row = read_outside_transaction(select(events, due))
    return (False, False) if row is None else (bool(row[0]), bool(row[1]))


def claim(
    worker: str,
    limit: int,
    *,
    job_id: int | None = None,
    except_kinds: Collection[str] = (),
    groups: Mapping[str, str] = MappingProxyType({}),
    urgent: Collection[str] = (),
) -> list[Claim]:
    """Lease the due jobs to a worker, the longest due ones first. No other worker gets the same ones.

    With `job_id` only this job. `groups` has the groups of kinds. Of each group at most one job is leased.
    The first job is one of the `urgent` kinds, if any is due.
    """
    now = clock.now()
    conditions = (*_is_due(now, except_kinds), true() if job_id is None else Job.id == job_id)
    rows = _lock_first((*conditions, Job.kind.in_(urgent)), 1) if urgent else []
    if limit > len(rows):
        others = (*conditions, Job.id.not_in([row.id for row in rows]))
        rows = [*rows, *_lock_first(others, limit - len(rows))]
    # the first one of each group, and all without a group
    due = {groups.get(row.kind, row.id): row for row in reversed(rows)}.values()
    if due:
        execute_core(
            update(Job)
            .where(Job.id.in_([row.id for row in due]))
            .values(
                state=JobState.RUNNING,
                locked_by=worker,
                locked_until=now + LEASE,
                attempts=Job.attempts + 1,
            )
        )
    return [Claim(row.id, row.kind, row.payload, worker, row.attempts + 1) for row in due]


def _lock_first(conditions: Sequence[ColumnElement[bool]], limit: int) -> Sequence[Row[Any]]:
    return execute_core(
        select(Job.id, Job.kind, Job.payload, Job.attempts)
        .where(*conditions)
        .order_by(Job.run_at, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()


def _is_due(now: datetime, except_kinds: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    return Job.state == JobState.QUEUED, Job.run_at <= now, Job.kind.not_in(except_kinds)


def renew(worker: str, job_ids: Collection[int]) -> None:
    """Extend the leases of a worker on these jobs."""
    execute_core(
        update(Job)
        .where(Job.id.in_(job_ids), Job.locked_by == worker, Job.state == JobState.RUNNING)
        .values(locked_until=clock.now() + LEASE)
    )


def finish(claim: Claim) -> bool:
    """Mark the job as done. Return False if the lease is lost."""
    return _end(claim, state=JobState.DONE, finished_at=clock.now(), last_error=None)


def fail(claim: Claim, reason: str, after: timedelta | None = None) -> bool:
    """Queue the job again, or mark it as dead after the last attempt. Return False if the lease is lost."""
    if claim.attempt >= MAX_ATTEMPTS:
        return kill(claim, reason)
    run_at = clock.now() + (back_off(claim.attempt) if after is None else after)
    return _end(claim, state=JobState.QUEUED, run_at=run_at, last_error=reason[:MAX_ERROR])


def kill(claim: Claim, reason: str) -> bool:
    """Mark the job as dead. Return False if the lease is lost."""
    return _end(claim, state=JobState.DEAD, finished_at=clock.now(), last_error=reason[:MAX_ERROR])


def hold(claim: Claim) -> bool:
    """Lock the job until the end of the transaction. Return False if the lease is lost."""
    return execute_core(select(Job.id).where(*_is_held(claim)).with_for_update()).first() is not None


def back_off(attempt: int) -> timedelta:
    """Return the delay after a failed attempt: doubled each time, less a random part of up to a half.

    The random part spreads the jobs that failed together.
    """
    longest = min(FIRST_DELAY * int(2 ** (attempt - 1)), LONGEST_DELAY)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def running(except_ids: Collection[int]) -> Sequence[Row[Any]]:
    """Return id, attempts, lease and worker of the running jobs of other workers. Locks nothing."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return connection.execute(
            select(Job.id, Job.kind, Job.payload, Job.attempts, Job.locked_until, Job.locked_by).where(
                Job.state == JobState.RUNNING, Job.id.not_in(except_ids)
            )
        ).all()


def is_running(job_id: int) -> bool:
    """Return True if a worker holds the lease of the job."""
    row = read_outside_transaction(select(Job.state).where(Job.id == job_id))
    return row is not None and row[0] is JobState.RUNNING


def release(job: Row[Any]) -> bool:
    """Queue a job whose worker has ended, unless its lease was renewed meanwhile."""
    lost = Claim(job.id, job.kind, job.payload, job.locked_by, job.attempts)
    reason = "The worker ended during the attempt."
    if not _lease_is(job.id, Job.locked_until, job.locked_until):
        return False
    return fail(lost, reason, after=timedelta(0))


def _lease_is(job_id: int, column: InstrumentedAttribute[datetime | None], value: datetime) -> bool:
    held = select(Job.id).where(Job.id == job_id, column == value).with_for_update(skip_locked=True)
    return execute_core(held).first() is not None


def _is_held(claim: Claim) -> tuple[Any, ...]:
    return (
        Job.id == claim.job_id,
        Job.state == JobState.RUNNING,
        Job.locked_by == claim.worker,
        Job.attempts == claim.attempt,
    )


def _end(claim: Claim, **values: Any) -> bool:
    statement = update(Job).where(*_is_held(claim)).values(locked_by=None, locked_until=None, **values)
    return execute_core(statement).rowcount == 1
