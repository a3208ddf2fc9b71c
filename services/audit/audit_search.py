"""Lists of audit entries: all of them, and the accesses to one patient's record."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import ColumnElement, or_, select

from database.functions import contains_text
from models import AuditLog, AuditSubject, Patient
from security.permissions import Actor
from services.audit import audit_log
from services.listing import paging
from services.listing.spec import Filter, Kind, ListQuery, ListSpec, Page


def _is_about(patient_id: int) -> ColumnElement[bool]:
    return AuditLog.id.in_(select(AuditSubject.audit_id).where(AuditSubject.patient_id == patient_id))


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        contains_text(AuditLog.user_name, text),
        contains_text(AuditLog.operation, text),
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
            Kind.ID,
            _is_about,
            "Is about this patient, including lists and searches with the patient.",
        )
    },
    omit=frozenset({"mac", "key_id"}),
    newest_first=True,
)


def find(actor: Actor, query: ListQuery) -> Page[AuditLog]:
    """Return one page of audit entries."""
    return paging.page(actor, LIST, query)


def access_log(actor: Actor, patient: Patient, query: ListQuery) -> Page[AuditLog]:
    """Return one page of entries about a patient: changes, reads, refusals, lists with the patient."""
    audit_log.record_read("list", "access_log", [], [patient.id])
    return paging.page(actor, LIST, replace(query, named={**query.named, "patient_id": [patient.id]}))
