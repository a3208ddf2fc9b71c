"""A patient's timeline: what happened and what is to come, as the caller's role may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select, union_all
from sqlalchemy.orm import joinedload, selectinload

from extensions import db
from models import Appointment, Billing, Doctor, Prescription, Treatment, Visit
from security.permissions import Actor, Permission
from services.audit import audit_log
from services.billing import bills
from services.listing.paging import ListQuery, Page
from services.patients import patients

# type -> (model, what dates it, the right to see it)
SOURCES: dict[str, tuple[Any, Any, Permission]] = {
    "appointment": (Appointment, Appointment.start, Permission.APPOINTMENTS_READ),
    "visit": (Visit, Visit.date, Permission.VISITS_READ),
    "treatment": (Treatment, Treatment.created_at, Permission.TREATMENTS_READ),
    "prescription": (Prescription, Prescription.issued_at, Permission.PRESCRIPTIONS_READ),
    "billing": (Billing, Billing.created_at, Permission.BILLINGS_READ),
}


@dataclass(frozen=True)
class Event:
    """One thing on a timeline; `row` is what it tells of."""

    type: str
    at: datetime
    row: Any

    @property
    def id(self) -> int:
        """The row's id."""
        found: int = self.row.id
        return found

    @property
    def title(self) -> str:
        """What it was, in a word or two that every role may read."""
        if self.type == "appointment":
            return self.row.type or self.row.reason or "Appointment"
        if self.type == "visit":
            return self.row.visit_type or "Visit"
        if self.type == "treatment":
            return str(self.row.name)
        if self.type == "prescription":
            return ", ".join(medication.name for medication in self.row.medications) or "Prescription"
        return str(self.row.invoice_number)

    @property
    def status(self) -> str:
        """Where it stands."""
        return str(self.row.status)

    @property
    def doctor(self) -> Doctor | None:
        """Whose it was."""
        found: Doctor | None = self.row.doctor
        return found


def of_patient(actor: Actor, patient_id: int, *, page: int, per_page: int, type: str | None) -> Page[Any]:
    """One page of the patient's timeline, newest first, or 404; `type` narrows it to one kind of event.

    A doctor sees the bills of own visits only.
    """
    patients.get(actor, patient_id)
    query = ListQuery(offset=(page - 1) * per_page, limit=per_page)
    sources = [
        _source(actor, name, patient_id)
        for name, (_model, _at, permission) in SOURCES.items()
        if actor.may(permission) and type in (None, name)
    ]
    audit_log.record_read("read", "timeline", [patient_id], [patient_id])
    if not sources:
        return Page([], 0, False, query)
    events = union_all(*sources).subquery()
    total = db.session.execute(select(func.count()).select_from(events)).scalar_one()
    found = db.session.execute(
        select(events.c.type, events.c.id, events.c.at)
        .order_by(events.c.at.desc(), events.c.type, events.c.id.desc())
        .limit(query.limit)
        .offset(query.offset)
    ).all()
    rows = {name: _rows(actor, name, [row.id for row in found if row.type == name]) for name in SOURCES}
    return Page([Event(row.type, row.at, rows[row.type][row.id]) for row in found], total, False, query)


def _source(actor: Actor, name: str, patient_id: int) -> Select[Any]:
    model, at, _permission = SOURCES[name]
    wheres: list[ColumnElement[bool]] = [model.patient_id == patient_id]
    own = bills.visible_bills(actor) if name == "billing" else None
    if own is not None:
        wheres.append(own)
    return select(literal(name).label("type"), model.id.label("id"), at.label("at")).where(*wheres)


def _rows(actor: Actor, name: str, ids: Sequence[int]) -> dict[int, Any]:
    if not ids:
        return {}
    model = SOURCES[name][0]
    statement = select(model).where(model.id.in_(ids)).options(joinedload(model.doctor))
    if name == "prescription":
        statement = statement.options(selectinload(Prescription.medications))
    found = {row.id: row for row in db.session.execute(statement).unique().scalars()}
    if name == "billing":
        bills.add_computed_fields(actor, list(found.values()))
    return found
