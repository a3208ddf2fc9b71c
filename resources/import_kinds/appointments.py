"""The import of appointments. Patient and doctor are named by identifiers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from enums import AppointmentStatus, ImportSubject
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Doctor, Patient, Visit
from resources.import_kinds.members import validated
from resources.import_kinds.references import DOCTOR, PATIENT
from schemas.appointment import AppointmentImport
from security.permissions import Actor
from services import clock
from services.imports.kinds import ImportKind, ImportRow
from services.imports.undone_rows import undone_ids
from services.rows import lock_rows
from services.scheduling import appointments
from services.spreadsheets.columns import CellType, ImportColumn

COLUMNS = (
    *PATIENT.columns,
    *DOCTOR.columns,
    ImportColumn(
        "start",
        CellType.INSTANT,
        synonyms=("date and time", "datetime", "date time", "appointment", "starts at", "tarehe na saa"),
    ),
    ImportColumn(
        "date",
        CellType.DATE,
        synonyms=("day", "appointment date", "visit date", "tarehe", "jour", "fecha", "data", "التاريخ"),
    ),
    ImportColumn(
        "time",
        CellType.TIME,
        synonyms=(
            *("start time", "appointment time", "hour", "saa", "heure", "hora", "الوقت"),
            *("heure de début", "hora de inicio"),
        ),
    ),
    ImportColumn("end", CellType.INSTANT, synonyms=("ends at",)),
    ImportColumn("end_time", CellType.TIME, synonyms=("until", "heure de fin", "hora de fin", "hora final")),
    ImportColumn(
        "duration",
        CellType.INTEGER,
        synonyms=(
            "minutes",
            "length",
            "duration in minutes",
            "muda",
            "durée",
            "duración",
            "duração",
            "المدة",
        ),
    ),
    ImportColumn("type", CellType.TEXT, synonyms=("appointment type", "aina", "tipo", "النوع")),
    ImportColumn(
        "reason",
        CellType.TEXT,
        synonyms=("complaint", "reason for visit", "sababu", "motif", "motivo", "السبب"),
    ),
    ImportColumn(
        "notes",
        CellType.TEXT,
        synonyms=("remarks", "comments", "maelezo", "remarques", "notas", "observações", "ملاحظات"),
    ),
    ImportColumn(
        "status",
        CellType.ENUM,
        values=tuple(AppointmentStatus),
        synonyms=("state", "hali", "statut", "estado", "الحالة"),
    ),
)


def _validate(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of the appointment, and the identifiers of `patient` and `doctor`."""
    values = dict(members)
    people = {reference.name: reference.take(values) for reference in (PATIENT, DOCTOR)}
    day, clock_time, end_time = (values.pop(name, None) for name in ("date", "time", "end_time"))
    if values.get("start") is None:
        if day is None:
            raise invalid("date", "is required; map a column with the date, or with date and time")
        if clock_time is None:
            raise invalid("time", "is required with date")
        values["start"] = f"{day}T{clock_time}"
    elif "T" not in str(values["start"]):
        raise invalid("start", "has no time; map it to date, and another column to time")
    if end_time is not None and values.get("end") is None:
        values["end"] = f"{str(values['start']).partition('T')[0]}T{end_time}"
    appointment = validated(AppointmentImport, values)
    if appointment.status is AppointmentStatus.SCHEDULED and _is_past(appointment):
        allowed = ", ".join(appointments.PAST_STATUSES)
        raise invalid("status", f"a past appointment has one of: {allowed}")
    return appointment.model_dump() | people


def _is_past(appointment: AppointmentImport) -> bool:
    return appointment.start is not None and appointment.start < clock.now()


def _create(actor: Actor, row: ImportRow) -> Appointment:
    values = {name: value for name, value in row.values.items() if name not in ("patient", "doctor")}
    values |= {"patient_id": PATIENT.find(row), "doctor_id": DOCTOR.find(row)}
    _refuse_same(values)
    return appointments.book(actor, importing=True, **values)


def _refuse_same(values: Mapping[str, Any]) -> None:
    """Raise 409 for an appointment that is stored already. Cancelled and missed ones do not conflict."""
    names = ("patient_id", "doctor_id", "start", "status")
    same = [getattr(Appointment, name) == values[name] for name in names]
    ids = set(db.session.scalars(select(Appointment.id).where(*same)))
    if ids - undone_ids(ImportSubject.APPOINTMENTS, ids):
        raise ClinicError("already_exists", "The patient has this appointment already.")


def _undo_create(_actor: Actor, row: Appointment) -> None:
    appointments.undo_import(row, "the import was undone")


def _lock(rows: Sequence[ImportRow]) -> None:
    lock_rows(Doctor, DOCTOR.find_all(rows))
    lock_rows(Patient, PATIENT.find_all(rows))


def _lock_created(ids: Collection[int]) -> Mapping[int, Appointment]:
    people = select(Appointment.doctor_id, Appointment.patient_id).where(Appointment.id.in_(ids))
    pairs = db.session.execute(people).tuples().all()
    lock_rows(Doctor, (doctor_id for doctor_id, _patient_id in pairs))
    lock_rows(Patient, (patient_id for _doctor_id, patient_id in pairs))
    return lock_rows(Appointment, ids)


def _find_used(ids: Collection[int]) -> Iterable[int]:
    """Return the appointments with a visit."""
    return (
        appointment_id
        for appointment_id in db.session.scalars(
            select(Visit.appointment_id).where(Visit.appointment_id.in_(ids), Visit.voided_at.is_(None))
        )
        if appointment_id is not None
    )


APPOINTMENTS = ImportKind(
    name=ImportSubject.APPOINTMENTS,
    model=Appointment,
    columns=COLUMNS,
    validate=_validate,
    create=_create,
    undo_create=_undo_create,
    lock=_lock,
    lock_created=_lock_created,
    find_used=_find_used,
)
