"""The queue of jobs: adding, reading and repeating them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from enums import JobState
from errors import ClinicError
from extensions import db
from models import Job
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.jobs import storage
from services.listing import paging
from services.listing.spec import Kind, ListColumn, ListQuery, ListSpec, Page
from services.rows import get_or_404

LIST: ListSpec[Job] = ListSpec(
    name="jobs",
    model=Job,
    area="jobs",
    main_date="created_at",
    newest_first=True,
    computed={"dedupe_key": ListColumn(Kind.TEXT, Job.dedupe_key)},
)


def enqueue(
    kind: str, payload: dict[str, Any], *, run_at: datetime | None = None, dedupe_key: str | None = None
) -> Job | None:
    """Add a job in the current transaction, to run at `run_at` or at once.

    The payload contains ids only. Returns None, and adds nothing, if a job has the dedupe key.
    """
    now = clock.now()
    job_id = storage.insert_job(
        kind=kind,
        payload=payload,
        state=JobState.QUEUED,
        run_at=run_at or now,
        attempts=0,
        dedupe_key=dedupe_key,
        created_at=now,
    )
    return None if job_id is None else db.session.get(Job, job_id)


def get(_actor: Actor, job_id: int, *, lock: bool = False) -> Job:
    """Return the job, or raise 404."""
    return get_or_404(Job, job_id, lock=lock)


def find(actor: Actor, query: ListQuery) -> Page[Job]:
    """Return one page of jobs."""
    return paging.page(actor, LIST, query)


def retry(job: Job) -> Job:
    """Queue a dead job again, with all its attempts. Raises 409 `invalid_transition` in another state."""
    if job.state is not JobState.DEAD:
        raise ClinicError(
            "invalid_transition", f"The job is {job.state}: only a dead one can be queued again.", allowed=[]
        )
    job.state, job.attempts, job.run_at, job.finished_at = JobState.QUEUED, 0, clock.now(), None
    audit_log.set_action(job, "retry")
    return job
