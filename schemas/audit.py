"""Responses of the audit log. There are no requests: the services write the entries."""

from __future__ import annotations

from enums import AuditOutcome
from schemas.base import Out
from schemas.fields import InstantOut


class AuditLogOut(Out):
    """An audit entry: a change, an access or a refusal. It contains changed fields, never values."""

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
