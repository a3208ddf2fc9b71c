"""Requests and responses of emergency access."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AliasPath, Field

from enums import ReviewOutcome
from schemas.base import In, OfPatient, Out, PersonRef
from schemas.fields import InstantOut, Line, RequiredLine


class EmergencyAccessIn(In):
    """A request for emergency access."""

    reason: RequiredLine


class ReviewIn(In):
    """The review of an emergency access."""

    outcome: ReviewOutcome
    note: Line | None = None


class EmergencyAccessOut(OfPatient, Out):
    """The emergency access of a user to one patient, and its review."""

    area: ClassVar[str] = "emergency_access"

    id: int
    user_id: int
    user_name: str = Field(validation_alias=AliasPath("user", "name"))
    user: PersonRef
    reason: str
    created_at: InstantOut
    expires_at: InstantOut
    is_active: bool
    outcome: ReviewOutcome | None
    note: str | None
    reviewed_at: InstantOut | None
    reviewed_by_id: int | None
    reviewed_by: PersonRef | None
