"""The audit: what goes out. Nothing comes in: entries are written by what they record."""

from __future__ import annotations

from enums import AuditOutcome
from schemas.base import Out
from schemas.fields import InstantOut


class AuditLogOut(Out):
    """One thing that was done, read or refused. It names changed fields, never values."""

    id: int
    at: InstantOut
    user_id: int | None
    user_name: str | None
    role: str | None
    action: str
    entity: str | None
    entity_id: int | None
    entity_ids: list[int]
    patient_ids: list[int]
    fields: list[str]
    outcome: AuditOutcome
    detail: str | None
    operation: str
    address: str | None
    request_id: str | None
    chain: int
    number: int
