"""Requests and responses of exports."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from enums import ExportFormat, ExportState
from schemas.base import In, Out
from schemas.fields import InstantOut


class ExportIn(In):
    """A list or a search to be written as a file: its path with the query string, and the format."""

    path: Annotated[
        str,
        StringConstraints(min_length=1, max_length=2000),
        Field(examples=["/patients?is_active=true&sort_by=name"]),
    ]
    format: Annotated[ExportFormat, Field(strict=False, examples=["xlsx"])]


class ExportOut(Out):
    """A file of a whole list. `file` is its address while it can be fetched.

    `left_out` is the number of rows that were removed or hidden while the job wrote the file. `problem` says
    why an export has failed.
    """

    area: ClassVar[str] = "export"

    id: int
    path: str
    format: ExportFormat
    state: ExportState = Field(validation_alias="shown_state")
    count: int | None
    left_out: int | None
    size: int | None
    digest: str | None
    problem: str | None
    file: str | None
    created_at: InstantOut
    finished_at: InstantOut | None
    expires_at: InstantOut | None
