"""Responses of jobs. There are no requests: the application adds the jobs."""

from __future__ import annotations

from typing import Any

from enums import JobState
from schemas.base import Out
from schemas.fields import InstantOut


class JobOut(Out):
    """A job: work that a worker process does later. The payload contains ids only."""

    id: int
    kind: str
    payload: dict[str, Any]
    state: JobState
    run_at: InstantOut
    attempts: int
    locked_until: InstantOut | None
    locked_by: str | None
    dedupe_key: str | None
    last_error: str | None
    created_at: InstantOut
    finished_at: InstantOut | None
