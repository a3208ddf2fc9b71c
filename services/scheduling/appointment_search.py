"""Appointment search: the list, its filters, and computed fields.

The list selects columns instead of ORM objects, because it is the most frequent request.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime, timedelta
from types import SimpleNamespace

from sqlalchemy import ColumnElement, and_, bindparam, or_, select

from database.functions import contains_text, minutes_between
from enums import AppointmentStatus
from models import Appointment, Doctor, Patient, User, Visit
from security.permissions import Actor
from services.listing import paging
from services.listing.related_rows import (
    doctor_column,
    doctor_filter,
    of_doctor,
    of_patient_or_file,
    patient_column,
    patient_filter,
    user_column,
)
from services.listing.spec import (
    MAX_JOINS,
    Filter,
    Kind,
    ListColumn,
    ListQuery,
    ListSpec,
    Page,
    PreselectedIds,
    Records,
)
from services.rows import Record, execute_core
from services.scheduling.appointments import MINUTE, allowed_transitions
from services.scheduling.availability import MAX_DURATION
from services.scheduling.booked_appointments import find_violations


def matches(text: str) -> ColumnElement[bool]:
    """Return the condition of `q`: patient name or file number, doctor name, reason."""
    return or_(
        of_patient_or_file(Appointment.patient_id, text),
        of_doctor(Appointment.doctor_id, text),
        contains_text(Appointment.reason, text),
    )


def _overlaps(start: datetime | None, end: datetime | None) -> ColumnElement[bool]:
    conditions = []
    if start is not None:
        # the longest appointment limits the range of the index on the start
        longest = timedelta(minutes=MAX_DURATION)
        conditions += [Appointment.end > start, Appointment.start > start - longest]
    if end is not None:
        conditions.append(Appointment.start < end)
    return and_(*conditions)


def _no_longer_fits(outside: bool) -> ColumnElement[bool] | PreselectedIds:
    ids = sorted(find_violations())
    return PreselectedIds(ids) if outside else Appointment.id.not_in(ids)


_VISIT_ID = (
    select(Visit.id)
    .where(Visit.appointment_id == Appointment.id, Visit.voided_at.is_(None))
    .scalar_subquery()
)
_LIST_ROWS = (
    select(
        Appointment.__table__,
        Patient.name.label("patient_name"),
        Doctor.name.label("doctor_name"),
        Doctor.specialty.label("specialty"),
        User.name.label("created_by_name"),
        _VISIT_ID.label("visit_id"),
    )
    .execution_options(prepare=True)
    .join(Patient, Patient.id == Appointment.patient_id)
    .join(Doctor, Doctor.id == Appointment.doctor_id)
    .outerjoin(User, User.id == Appointment.created_by_id)
)


def _add_related(rows: Sequence[Record]) -> None:
    """Set the members that the serializer reads and that are not columns."""
    for row in rows:
        row.__entity__ = "appointment"
        row.duration = (row.end - row.start) // MINUTE
        row.patient = SimpleNamespace(id=row.patient_id, name=row.patient_name)
        row.doctor = SimpleNamespace(id=row.doctor_id, name=row.doctor_name, specialty=row.specialty)
        row.booked_by = _user_ref(row.created_by_id, row.created_by_name)
        row.allowed_transitions = allowed_transitions(row)


LIST: ListSpec[Appointment] = ListSpec(
    name="appointments",
    model=Appointment,
    area="appointment",
    main_date="start",
    overlaps=_overlaps,
    text=matches,
    names={"date": "start"},
    omit=frozenset({"blocked_until", "version"}),
    records=Records(_LIST_ROWS, _add_related),
    kept_since="created_at",
    newest_first=True,
    computed={
        "start": ListColumn(Kind.INSTANT, Appointment.start, nullable=False),
        "duration": ListColumn(
            Kind.INTEGER, minutes_between(Appointment.start, Appointment.end), nullable=False
        ),
        "title": patient_column(Appointment.patient_id),
        "patient_name": patient_column(Appointment.patient_id),
        "doctor_name": doctor_column(Appointment.doctor_id),
        "visit_id": ListColumn(Kind.ID, _VISIT_ID, max_rows=MAX_JOINS),
        "created_by_name": user_column(Appointment.created_by_id),
    },
    filters={
        "patient_name": patient_filter(Appointment.patient_id),
        "title": patient_filter(Appointment.patient_id),
        "doctor_name": doctor_filter(Appointment.doctor_id),
        "reason": Filter(
            Kind.TEXT,
            lambda text: contains_text(Appointment.reason, text),
            "Part of the reason.",
        ),
        "outside_hours": Filter(
            Kind.BOOLEAN,
            _no_longer_fits,
            "Booked, and no longer fits the doctor's hours, time off, licence or buffer.",
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
    """Return one page of appointments. `start_date` and `end_date` refer to the start."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Appointment | Record]) -> None:
    """Set `booked_by`, `visit_id` and `allowed_transitions`, with at most two queries.

    List rows (`Record`) already have them.
    """
    appointments = [row for row in rows if isinstance(row, Appointment)]
    names = _find_user_names(actor, {row.created_by_id for row in appointments})
    # only a completed appointment can have a visit
    completed = [row.id for row in appointments if row.status is AppointmentStatus.COMPLETED]
    visits = dict(execute_core(_VISITS, ids=completed).tuples().all()) if completed else {}
    for row in appointments:
        row.visit_id = visits.get(row.id)
        row.allowed_transitions = allowed_transitions(row)
        row.booked_by = _user_ref(row.created_by_id, names.get(row.created_by_id))


def _user_ref(user_id: int | None, name: str | None) -> SimpleNamespace | None:
    return SimpleNamespace(id=user_id, name=name) if user_id is not None else None


def _find_user_names(actor: Actor, user_ids: Set[int | None]) -> dict[int | None, str]:
    """Return the names of the users by id. The caller's own name needs no query."""
    names: dict[int | None, str] = {actor.user_id: actor.name}
    missing = user_ids - names.keys() - {None}
    return names | (dict(execute_core(_NAMES, ids=sorted(missing)).tuples().all()) if missing else {})


_NAMES = select(User.id, User.name).where(User.id.in_(bindparam("ids", expanding=True)))
_VISITS = select(Visit.appointment_id, Visit.id).where(
    Visit.appointment_id.in_(bindparam("ids", expanding=True)), Visit.voided_at.is_(None)
)
