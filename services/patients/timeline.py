"""Timeline of a patient: past and future events that the actor's role may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select, union_all
from sqlalchemy.orm import joinedload, selectinload

from extensions import db
from models import Appointment, Billing, Doctor, Letter, Prescription, Treatment, Visit
from security.permissions import Actor, Permission
from services.audit import audit_log
from services.billing import bills
from services.listing.spec import ListQuery, Page
from services.patients import patients

# event type -> (model, column of the event's time, required permission)
SOURCES: dict[str, tuple[Any, Any, Permission]] = {
    "appointment": (Appointment, Appointment.start, Permission.APPOINTMENTS_READ),
    "visit": (Visit, Visit.date, Permission.VISITS_READ),
    "treatment": (Treatment, Treatment.created_at, Permission.TREATMENTS_READ),
    "prescription": (Prescription, Prescription.issued_at, Permission.PRESCRIPTIONS_READ),
    "letter": (Letter, Letter.created_at, Permission.LETTERS_READ),
    "billing": (Billing, Billing.created_at, Permission.BILLINGS_READ),
}


@dataclass(frozen=True)
class Event:
    """An event on a timeline. `row` is the appointment, visit, treatment, prescription, letter or bill."""

    type: str
    at: datetime
    row: Any

    @property
    def id(self) -> int:
        """The id of the row."""
        return int(self.row.id)

    @property
    def title(self) -> str:
        """A short title without confidential details; every role may read it."""
        if self.type == "appointment":
            return self.row.type or self.row.reason or "Appointment"
        if self.type == "visit":
            return self.row.visit_type or "Visit"
        if self.type == "treatment":
            return str(self.row.name)
        if self.type == "prescription":
            return ", ".join(medication.name for medication in self.row.medications) or "Prescription"
        return str(self.row.number if self.type == "letter" else self.row.invoice_number)

    @property
    def status(self) -> str:
        """The status of the row."""
        return str(self.row.status)

    @property
    def doctor(self) -> Doctor | None:
        """The doctor of the row."""
        doctor: Doctor | None = self.row.doctor
        return doctor


def of_patient(actor: Actor, patient_id: int, *, page: int, per_page: int, type: str | None) -> Page[Any]:
    """Return one page of the patient's timeline, newest first, or raise 404.

    `type` selects one type of event. Doctors: only the bills of their own visits.
    """
    patients.get(actor, patient_id)
    query = ListQuery(offset=(page - 1) * per_page, limit=per_page)
    sources = [
        _select_events(actor, name, patient_id)
        for name, (_model, _time, permission) in SOURCES.items()
        if actor.may(permission, patient_id) and type in (None, name)
    ]
    audit_log.record_read("read", "timeline", [patient_id], [patient_id])
    if not sources:
        return Page([], 0, False, query)
    events = union_all(*sources).subquery()
    total = db.session.execute(select(func.count()).select_from(events)).scalar_one()
    page_events = db.session.execute(
        select(events.c.type, events.c.id, events.c.at)
        .order_by(events.c.at.desc(), events.c.type, events.c.id.desc())
        .limit(query.limit)
        .offset(query.offset)
    ).all()
    rows = {
        name: _load_rows(actor, name, [event.id for event in page_events if event.type == name])
        for name in SOURCES
    }
    return Page(
        [Event(event.type, event.at, rows[event.type][event.id]) for event in page_events],
        total,
        False,
        query,
    )


def _select_events(actor: Actor, name: str, patient_id: int) -> Select[Any]:
    model, time, _permission = SOURCES[name]
    conditions: list[ColumnElement[bool]] = [model.patient_id == patient_id]
    own = bills.visible_bills(actor) if name == "billing" else None
    if own is not None:
        conditions.append(own)
    return select(literal(name).label("type"), model.id.label("id"), time.label("at")).where(*conditions)


def _load_rows(actor: Actor, name: str, ids: Sequence[int]) -> dict[int, Any]:
    if not ids:
        return {}
    model = SOURCES[name][0]
    statement = select(model).where(model.id.in_(ids)).options(joinedload(model.doctor))
    if name == "prescription":
        statement = statement.options(selectinload(Prescription.medications))
    rows = {row.id: row for row in db.session.execute(statement).unique().scalars()}
    if name == "billing":
        bills.add_computed_fields(actor, list(rows.values()))
    return rows
