"""Patients: registering, changing, archiving, and what is computed for those shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from itertools import chain, count
from typing import Any

from sqlalchemy import bindparam, exists, func, insert, select

from column_types import InstantType
from database.functions import next_id
from enums import AppointmentStatus
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Appointment, LedgerEntry, MedicalHistory, Patient, Visit
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.listing.paging import Records
from services.patients import duplicates, phones
from services.rows import (
    Record,
    assign,
    changed_members,
    execute_core,
    get_or_404,
)
from services.search_key import search_key

MAX_AGE = 130  # years; the oldest known person lived 122
NOTHING = Decimal("0.00")
NAMED_APPOINTMENTS = 20  # in a refusal


def get(actor: Actor, patient_id: int, *, lock: bool = False) -> Patient:
    """The patient, archived ones included, or 404."""
    return get_or_404(Patient, patient_id, lock=lock)


def add_computed_fields(actor: Actor, rows: Sequence[Patient | Record]) -> None:
    """Compute what is not stored: age, balance, last visit, next appointment; in one query."""
    patients = {patient.id: patient for patient in rows if isinstance(patient, Patient)}
    today = clock.today()
    for patient in patients.values():
        patient.age = age_on(today, patient.date_of_birth)
    # nothing that shows patients changes what they owe or when they come: it is looked up once
    unread = [patient.id for patient in patients.values() if patient.account_balance is None]
    if not unread:
        return
    for row in execute_core(_FIGURES, ids=unread):
        patient = patients[row.id]
        patient.account_balance = row.account_balance
        patient.last_visit = row.last_visit
        patient.next_appointment = row.next_appointment


_COMPUTED = (
    func.coalesce(
        select(func.sum(LedgerEntry.amount)).where(LedgerEntry.patient_id == Patient.id).scalar_subquery(),
        NOTHING,
    ).label("account_balance"),
    select(func.max(Visit.date))
    .where(Visit.patient_id == Patient.id, Visit.voided_at.is_(None))
    .scalar_subquery()
    .label("last_visit"),
    select(func.min(Appointment.start))
    .where(
        Appointment.patient_id == Patient.id,
        Appointment.status == AppointmentStatus.SCHEDULED,
        Appointment.start > bindparam("now", callable_=clock.now, type_=InstantType()),
    )
    .scalar_subquery()
    .label("next_appointment"),
)
_FIGURES = select(Patient.id, *_COMPUTED).where(Patient.id.in_(bindparam("ids", expanding=True)))
_SHOWN = select(Patient.__table__, Patient.id.label("patient_id"), *_COMPUTED).execution_options(prepare=True)
_ONE = _SHOWN.where(Patient.id == bindparam("row_id"))


def _complete(patients: Sequence[Record]) -> None:
    today = clock.today()
    for patient in patients:
        patient.__entity__ = "patient"
        patient.age = age_on(today, patient.date_of_birth)


RECORDS = Records(_SHOWN, _complete)


def read(actor: Actor, patient_id: int, *, lock: bool = False) -> Record:
    """The patient with all that is computed, to be shown; or 404."""
    found = RECORDS.read(execute_core(_ONE, row_id=patient_id))
    if not found:
        raise not_found("patient")
    return found[0]


def age_on(day: date, born: date | None) -> int | None:
    """Completed years; somebody born on 29 February has their birthday on 1 March in other years."""
    if born is None:
        return None
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


# --- Registering ---------------------------------------------------------------------------------------


def register(
    actor: Actor, *, file_number: str | None = None, allow_duplicate: bool = False, **values: Any
) -> Patient:
    """A new patient with an empty medical history, under the given file number or an issued one.

    Raises 409 `possible_duplicate` with the candidates unless `allow_duplicate`, 409 `already_exists` for a
    given number that is taken, 403 for an archived patient from somebody who may not archive.
    """
    _check_birth(values)
    if values.get("is_active") is False:
        actor.require(Permission.PATIENTS_ARCHIVE)
    values = _with_forms(values)
    if not allow_duplicate:
        _refuse_duplicates(values)
    patient = Patient(**values)
    if file_number is None:
        _issue_file_number(patient)
    else:
        patient.file_number = file_number
    db.session.add(patient)
    db.session.flush()
    patient.account_balance = NOTHING
    # by a statement of its own: an empty history is no change that the audit log records
    now = clock.now()
    history = {"patient_id": patient.id, "version": 1, "created_at": now, "updated_at": now}
    db.session.connection().execute(insert(MedicalHistory), history)
    return patient


def _issue_file_number(patient: Patient) -> None:
    """Set the id and the file number `P-` with the id. Add a suffix if that number is taken."""
    patient.id = next_id(db.session.connection(), Patient.__tablename__)
    issued = f"P-{patient.id:06d}"
    numbers = chain([issued], (f"{issued}-{suffix}" for suffix in count(1)))
    patient.file_number = next(number for number in numbers if not _is_taken(number))


def _is_taken(file_number: str) -> bool:
    return bool(execute_core(_TAKEN, file_number=file_number).scalar_one())


_TAKEN = select(exists().where(Patient.file_number == bindparam("file_number")))


def _check_birth(values: Mapping[str, Any]) -> None:
    born = values.get("date_of_birth")
    if born is None:
        return
    if born > clock.today():
        raise invalid("date_of_birth", "must not be in the future")
    if (age_on(clock.today(), born) or 0) > MAX_AGE:
        raise invalid("date_of_birth", f"must not be more than {MAX_AGE} years ago")


def _refuse_duplicates(values: Mapping[str, Any], patient: Patient | None = None) -> None:
    """Raise 409 with likely duplicates. For an update, report only duplicates that the change introduces."""
    duplicates.lock_traits(values)
    found = duplicates.find_likely(values, except_id=patient.id if patient else 0)
    if patient is not None and found:
        before = duplicates.find_likely(
            {name: getattr(patient, name) for name in duplicates.NAMING}, except_id=patient.id
        )
        known = {candidate.id for candidate, _common in before}
        found = [(candidate, common) for candidate, common in found if candidate.id not in known]
    if not found:
        return
    refusal = ClinicError(
        "possible_duplicate",
        "This looks like a patient already on file; look at the candidates, and send "
        '"allow_duplicate": true if it is somebody else.',
        candidates=[_candidate(candidate, common) for candidate, common in found],
    )
    refusal.about("patient", patient.id if patient else None, patient.id if patient else None)
    refusal.shown_patient_ids = tuple(candidate.id for candidate, _common in found)
    raise refusal


def _candidate(patient: Patient, common: list[str]) -> dict[str, Any]:
    return {
        "id": patient.id,
        "file_number": patient.file_number,
        "name": patient.name,
        "date_of_birth": patient.date_of_birth.isoformat() if patient.date_of_birth else None,
        "phone": patient.phone,
        "email": patient.email,
        "insurance_id": patient.insurance_id,
        "is_active": patient.is_active,
        "matches": ["name", *common],
    }


def _with_forms(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the second forms that finding needs: folded name, E.164 and digits of the phone."""
    found = dict(values)
    if "name" in found:
        found["name_fold"] = search_key(found["name"])
    if "phone" in found:
        international = found["phone_e164"] = phones.e164(found["phone"])
        found["phone_digits"] = phones.searchable(found["phone"], international)
    return found


# --- Changing ------------------------------------------------------------------------------------------


def update(actor: Actor, patient: Patient, *, allow_duplicate: bool = False, **values: Any) -> Patient:
    """Change the members given; archiving and bringing back need the right to archive.

    A change that makes the record look like another one's is refused as a registration would be.
    """
    values = changed_members(patient, values)
    if "is_active" in values:
        actor.require(Permission.PATIENTS_ARCHIVE)
        if not values["is_active"]:
            _check_archivable(patient)
    _check_birth(values)
    values = _with_forms(values)
    if not allow_duplicate and any(values.get(name) for name in duplicates.NAMING):
        told = {name: values.get(name, getattr(patient, name)) for name in duplicates.NAMING}
        _refuse_duplicates(told, patient)
    assign(patient, values)
    if "is_active" in values:
        audit_log.set_action(patient, "restore" if patient.is_active else "archive")
    return patient


def archive(actor: Actor, patient: Patient) -> Patient:
    """Take the patient out of daily use; 409 with the reasons while something is open."""
    if patient.is_active:
        _check_archivable(patient)
        patient.is_active = False
        audit_log.set_action(patient, "archive")
    return patient


def _check_archivable(patient: Patient) -> None:
    """409 `in_use` with every reason: a future appointment, money owed either way."""
    ahead = db.session.execute(
        select(Appointment.id, Appointment.start)
        .where(
            Appointment.patient_id == patient.id,
            Appointment.status == AppointmentStatus.SCHEDULED,
            Appointment.end > clock.now(),
        )
        .order_by(Appointment.start)
    ).all()
    balance = db.session.execute(
        select(func.coalesce(func.sum(LedgerEntry.amount), NOTHING)).where(
            LedgerEntry.patient_id == patient.id
        )
    ).scalar_one()
    reasons: list[dict[str, Any]] = []
    if ahead:
        named = [
            {"id": row.id, "start": clock.local(row.start).isoformat()} for row in ahead[:NAMED_APPOINTMENTS]
        ]
        message = f"{len(ahead)} appointment(s) lie ahead; cancel them first."
        reasons.append({"code": "future_appointments", "message": message, "appointments": named})
    if balance:
        whose = "The patient still owes something." if balance > 0 else "The patient has credit left."
        reasons.append({"code": "open_balance", "message": whose, "account_balance": f"{balance:.2f}"})
    if reasons:
        raise ClinicError(
            "in_use", " ".join(str(reason["message"]) for reason in reasons), reasons=reasons
        ).about("patient", patient.id, patient.id)
