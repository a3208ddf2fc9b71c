"""Reading the audit: who did what, and who looked at a patient's record."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import ColumnElement, or_, select

from models import AuditLog, AuditSubject, Patient
from security.permissions import Actor
from services.audit import audit_log
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
)


def _concerns(patient_id: int) -> ColumnElement[bool]:
    return AuditLog.id.in_(select(AuditSubject.audit_id).where(AuditSubject.patient_id == patient_id))


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        AuditLog.user_name.icontains(text, autoescape=True),
        AuditLog.operation.icontains(text, autoescape=True),
        AuditLog.request_id == text,
    )


LIST: ListSpec[AuditLog] = ListSpec(
    name="audit_logs",
    kept_since="at",
    model=AuditLog,
    area="audit",
    main_date="at",
    text=_matches,
    filters={
        "patient_id": Filter(
            Kind.ID, _concerns, "Concerns this patient, be it by a list or search that showed them."
        )
    },
    omit=frozenset({"mac"}),
)


def find(actor: Actor, query: ListQuery) -> Page[AuditLog]:
    """One page of the audit."""
    return paging.page(actor, LIST, query)


def access_log(actor: Actor, patient: Patient, query: ListQuery) -> Page[AuditLog]:
    """One page of what concerns the patient: changes, reads, refusals, also lists that showed them."""
    audit_log.record_read("list", "access_log", [], [patient.id])
    return paging.page(actor, LIST, replace(query, named={**query.named, "patient_id": patient.id}))
