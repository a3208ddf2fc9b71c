"""Finding appointments: the list, which is read as columns since it is asked for all day, and its filters."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, or_, select

from enums import AppointmentStatus
from models import Appointment, Doctor, Patient, User, Visit
from security.permissions import Actor
from services import clock
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
    Records,
)
from services.listing.related_rows import of_doctor, of_patient, of_patient_or_file
from services.rows import Record, execute_core
from services.scheduling.appointments import MINUTE, allowed_transitions


def matches(text: str) -> ColumnElement[bool]:
    """What `q` finds: the patient's name or file number, the doctor's name, the reason."""
    return or_(
        of_patient_or_file(Appointment.patient_id, text),
        of_doctor(Appointment.doctor_id, text),
        Appointment.reason.icontains(text, autoescape=True),
    )


def _starting(instant: datetime) -> ColumnElement[bool]:
    if instant != clock.day_start(clock.local(instant).date()):
        return Appointment.start == instant
    end = clock.day_end(clock.local(instant).date())  # a bare day is the whole of it
    return and_(Appointment.start >= instant, Appointment.start < end)


class Diary(ListSpec[Appointment]):
    """The list of appointments, whose start is also called `date`."""

    @cached_property
    def columns(self) -> dict[str, Any]:
        """The stored columns under their names, the start under both of its."""
        found = super().columns
        return found | {"start": found["date"]}


_SHOWN = (
    select(
        Appointment.__table__,
        Patient.name.label("patient_name"),
        Doctor.name.label("doctor_name"),
        Doctor.specialty.label("specialty"),
        User.name.label("created_by_name"),
        select(Visit.id)
        .where(Visit.appointment_id == Appointment.id, Visit.voided_at.is_(None))
        .scalar_subquery()
        .label("visit_id"),
    )
    .execution_options(prepare=True)
    .join(Patient, Patient.id == Appointment.patient_id)
    .join(Doctor, Doctor.id == Appointment.doctor_id)
    .outerjoin(User, User.id == Appointment.created_by_id)
)


def _complete(rows: Sequence[Record]) -> None:
    for row in rows:
        row.__entity__ = "appointment"
        row.duration = (row.end - row.start) // MINUTE
        row.patient = SimpleNamespace(id=row.patient_id, name=row.patient_name)
        row.doctor = SimpleNamespace(id=row.doctor_id, name=row.doctor_name, specialty=row.specialty)
        booked = row.created_by_id is not None
        row.booked_by = SimpleNamespace(id=row.created_by_id, name=row.created_by_name) if booked else None
        row.allowed_transitions = allowed_transitions(row)


LIST = Diary(
    name="appointments",
    model=Appointment,
    area="appointment",
    main_date="start",
    text=matches,
    names={"date": "start"},
    omit=frozenset({"blocked_until"}),
    records=Records(_SHOWN, _complete),
    kept_since="created_at",
    filters={
        "date": Filter(Kind.INSTANT, _starting, "Starts on this day, or at this instant."),
        "patient_name": Filter(
            Kind.TEXT,
            lambda text: of_patient(Appointment.patient_id, text),
            "Parts of the patient's name.",
        ),
        "doctor_name": Filter(
            Kind.TEXT,
            lambda text: of_doctor(Appointment.doctor_id, text),
            "Parts of the doctor's name.",
        ),
        "reason": Filter(
            Kind.TEXT,
            lambda text: Appointment.reason.icontains(text, autoescape=True),
            "Part of the reason.",
        ),
        "visit_id": Filter(
            Kind.ID,
            lambda visit_id: Appointment.id.in_(
                select(Visit.appointment_id).where(Visit.id == visit_id, Visit.voided_at.is_(None))
            ),
            "The appointment of this visit.",
        ),
    },
)


def find(actor: Actor, query: ListQuery) -> Page[Appointment]:
    """One page of appointments; the range of dates is that of their start."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Appointment | Record]) -> None:
    """Compute what is not stored: who booked, the visit, the allowed steps; two queries at most."""
    unread = [row for row in rows if isinstance(row, Appointment)]
    names = _names(actor, {row.created_by_id for row in unread})
    # by its visit, if it has one
    completed = [row.id for row in unread if row.status is AppointmentStatus.COMPLETED]
    visits = dict(execute_core(_VISITS, ids=completed).tuples().all()) if completed else {}
    for row in unread:
        row.visit_id = visits.get(row.id)
        row.allowed_transitions = allowed_transitions(row)
        booker = row.created_by_id
        row.booked_by = SimpleNamespace(id=booker, name=names[booker]) if booker is not None else None


def _names(actor: Actor, user_ids: Set[int | None]) -> dict[int | None, str]:
    """The users' names; the caller's own is known."""
    known: dict[int | None, str] = {actor.user_id: actor.name}
    asked = user_ids - known.keys() - {None}
    return known | (dict(execute_core(_NAMES, ids=sorted(asked)).tuples().all()) if asked else {})


_NAMES = select(User.id, User.name).where(User.id.in_(bindparam("ids", expanding=True)))
_VISITS = select(Visit.appointment_id, Visit.id).where(
    Visit.appointment_id.in_(bindparam("ids", expanding=True)), Visit.voided_at.is_(None)
)
