"""Endpoints of jobs."""

from __future__ import annotations

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Job
from schemas.jobs import JobOut
from security.permissions import Permission
from services.jobs import queue
from services.listing.spec import ListQuery, Page

JOB = Serializer(JobOut)


class JobList(ApiResource):
    """Route `/jobs`."""

    @endpoint(Permission.JOBS_MANAGE, list_spec=queue.LIST, returns=JOB)
    def get(self, query: ListQuery) -> Page[Job]:
        """List jobs: the work that waits, runs, is done or has failed."""
        return queue.find(current_actor(), query)


class JobItem(ApiResource):
    """Route `/jobs/<job_id>`."""

    @endpoint(Permission.JOBS_MANAGE, load=queue.get, returns=JOB)
    def get(self, row: Job) -> Job:
        """Show a job."""
        return row


class JobRetry(ApiResource):
    """Route `/jobs/<job_id>/retry`."""

    @endpoint(Permission.JOBS_MANAGE, load=queue.get, returns=JOB, errors=("invalid_transition",))
    def post(self, row: Job) -> Job:
        """Queue a dead job again, with all its attempts."""
        return queue.retry(row)
