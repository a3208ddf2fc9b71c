"""Integrity checks of jobs and events."""

from __future__ import annotations

from sqlalchemy import and_, or_, select

from enums import JobState
from models import Event, Job
from services.integrity_rule import IntegrityCheck
from services.jobs.storage import MAX_ATTEMPTS


def job_checks() -> list[IntegrityCheck]:
    """Return the checks of jobs and events."""
    is_running = Job.state == JobState.RUNNING
    return [
        IntegrityCheck(
            "A job has a lease exactly while it runs, and an end exactly if it is done or dead.",
            select(Job.id).where(
                or_(
                    is_running != Job.locked_until.is_not(None),
                    is_running != Job.locked_by.is_not(None),
                    Job.state.in_((JobState.DONE, JobState.DEAD)) != Job.finished_at.is_not(None),
                )
            ),
        ),
        IntegrityCheck(
            "A job has at most 10 attempts, and at least one after its start.",
            select(Job.id).where(
                or_(
                    Job.attempts > MAX_ATTEMPTS,
                    and_(Job.state != JobState.QUEUED, Job.attempts == 0),
                )
            ),
        ),
        IntegrityCheck(
            "The type of an event begins with its entity.",
            select(Event.id).where(Event.type.not_like(Event.entity + ".%")),
        ),
    ]
