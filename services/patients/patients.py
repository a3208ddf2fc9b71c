"""Patients: registration, changes, archiving, and computed fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from itertools import chain, count
from typing import Any, TypedDict, Unpack

from sqlalchemy import bindparam, exists, func, insert, select

from column_types import InstantType
from database.functions import next_id
from enums import AppointmentStatus, Gender
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Appointment, LedgerEntry, MedicalHistory, Patient, Visit
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.listing.spec import Records
from services.patients import duplicates, phones
from services.patients.search_column import FIELDS, search_fold
from services.rows import (
    Record,
    assign,
    changed_members,
    execute_core,
    get_or_404,
)
from services.search_key import search_key

MAX_AGE = 130  # years; the oldest known person lived 122
ZERO = Decimal("0.00")
MAX_LISTED = 20  # appointments in a 409 response


class _PatientMembers(TypedDict, total=False):
    gender: Gender | None
    date_of_birth: date | None
    phone: str | None
    email: str | None
    address: str | None
    blood_type: str | None
    insurance_provider: str | None
    insurance_id: str | None
    emergency_contact_name: str | None
    emergency_contact_phone: str | None
    needs_review: bool
    review_notes: str | None
    is_active: bool


class NewPatient(_PatientMembers):
    """Members of a registration; only the name is required."""

    name: str


class PatientChanges(_PatientMembers, total=False):
    """Members of a change of a patient; absent ones stay as they are."""

    name: str
    file_number: str


def get(_actor: Actor, patient_id: int, *, lock: bool = False) -> Patient:
    """Return the patient, also an archived one, or raise 404."""
    return get_or_404(Patient, patient_id, lock=lock)


def add_computed_fields(_actor: Actor, rows: Sequence[Patient | Record]) -> None:
    """Set `age`, `account_balance`, `last_visit` and `next_appointment`, with one query.

    List rows (`Record`) already have them.
    """
    patients = {patient.id: patient for patient in rows if isinstance(patient, Patient)}
    today = clock.today()
    for patient in patients.values():
        patient.age = age_on(today, patient.date_of_birth)
    # no request that returns patients changes these values, so values that are set are still correct
    missing = [patient.id for patient in patients.values() if patient.account_balance is None]
    if not missing:
        return
    for row in execute_core(_COMPUTED_FIELDS, ids=missing):
        patient = patients[row.id]
        patient.account_balance = row.account_balance
        patient.last_visit = row.last_visit
        patient.next_appointment = row.next_appointment


_COMPUTED_COLUMNS = (
    func.coalesce(
        select(func.sum(LedgerEntry.amount)).where(LedgerEntry.patient_id == Patient.id).scalar_subquery(),
        ZERO,
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
_COMPUTED_FIELDS = select(Patient.id, *_COMPUTED_COLUMNS).where(
    Patient.id.in_(bindparam("ids", expanding=True))
)
_RECORDS = select(Patient.__table__, Patient.id.label("patient_id"), *_COMPUTED_COLUMNS).execution_options(
    prepare=True
)
_RECORD_BY_ID = _RECORDS.where(Patient.id == bindparam("row_id"))


def _add_ages(patients: Sequence[Record]) -> None:
    today = clock.today()
    for patient in patients:
        patient.__entity__ = "patient"
        patient.age = age_on(today, patient.date_of_birth)


RECORDS = Records(_RECORDS, _add_ages)


def read(_actor: Actor, patient_id: int, **_lock: bool) -> Record:
    """Return the patient with all computed fields as a read-only record, or raise 404. It is never locked."""
    records = RECORDS.read(execute_core(_RECORD_BY_ID, row_id=patient_id))
    if not records:
        raise not_found("patient")
    return records[0]


def age_on(day: date, born: date | None) -> int | None:
    """Return the age in completed years. In common years, the birthday of 29 February is on 1 March."""
    if born is None:
        return None
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


# --- Registration --------------------------------------------------------------------------------------


def register(
    actor: Actor,
    *,
    file_number: str | None = None,
    allow_duplicate: bool = False,
    **members: Unpack[NewPatient],
) -> Patient:
    """Register a patient with an empty medical history. Without `file_number` a new number is issued.

    Raises 409 `possible_duplicate` with the candidates, unless `allow_duplicate`. Raises 409
    `already_exists` if another patient has the file number. Raises 403 for `is_active` false without the
    permission to archive.
    """
    _check_date_of_birth(members)
    if members.get("is_active") is False:
        actor.require(Permission.PATIENTS_ARCHIVE)
    values = _add_search_forms(members)
    if not allow_duplicate:
        _check_duplicates(values)
    patient = Patient(**values)
    if file_number is None:
        _issue_file_number(patient)
    else:
        patient.file_number = file_number
    set_search_fold(patient)
    db.session.add(patient)
    db.session.flush()
    patient.account_balance = ZERO
    # a Core statement: the audit log must not record an empty history as a change of its own
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


def _check_date_of_birth(members: Mapping[str, Any]) -> None:
    date_of_birth = members.get("date_of_birth")
    if date_of_birth is None:
        return
    if date_of_birth > clock.today():
        raise invalid("date_of_birth", "must not be in the future")
    if (age_on(clock.today(), date_of_birth) or 0) > MAX_AGE:
        raise invalid("date_of_birth", f"must not be more than {MAX_AGE} years ago")


def _check_duplicates(values: Mapping[str, Any], patient: Patient | None = None) -> None:
    """Raise 409 with likely duplicates. For an update, report only duplicates that the change introduces."""
    duplicates.lock_traits(values)
    candidates = duplicates.find_likely(values, except_id=patient.id if patient else 0)
    if patient is not None and candidates:
        before = duplicates.find_likely(
            {name: getattr(patient, name) for name in duplicates.IDENTIFYING_FIELDS}, except_id=patient.id
        )
        known_ids = {candidate.id for candidate, _traits in before}
        candidates = [
            (candidate, traits) for candidate, traits in candidates if candidate.id not in known_ids
        ]
    if not candidates:
        return
    error = ClinicError(
        "possible_duplicate",
        "This patient may already be registered. Check the candidates. If it is another person, send "
        '"allow_duplicate": true.',
        candidates=[_describe_candidate(candidate, traits) for candidate, traits in candidates],
    )
    error.about("patient", patient.id if patient else None, patient.id if patient else None)
    error.shown_patient_ids = tuple(candidate.id for candidate, _traits in candidates)
    raise error


def _describe_candidate(patient: Patient, shared_traits: list[str]) -> dict[str, Any]:
    return {
        "id": patient.id,
        "file_number": patient.file_number,
        "name": patient.name,
        "date_of_birth": patient.date_of_birth.isoformat() if patient.date_of_birth else None,
        "phone": patient.phone,
        "email": patient.email,
        "insurance_id": patient.insurance_id,
        "is_active": patient.is_active,
        "matches": ["name", *shared_traits],
    }


def _add_search_forms(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with the columns that a search needs: name key, E.164 form, phone digits."""
    values = dict(members)
    if "name" in values:
        values["name_fold"] = search_key(values["name"])
    if "phone" in values:
        values["phone_e164"] = phones.e164(values["phone"])
        values["phone_digits"] = phones.searchable(values["phone"], values["phone_e164"])
    return values


def set_search_fold(patient: Patient) -> None:
    """Set the search column from the other columns of the patient."""
    patient.search_fold = search_fold({name: getattr(patient, name) for name in FIELDS})


# --- Changing ------------------------------------------------------------------------------------------


def update(
    actor: Actor, patient: Patient, *, allow_duplicate: bool = False, **changes: Unpack[PatientChanges]
) -> Patient:
    """Change the given members of a patient.

    Raises 403 for a change of `is_active` without the permission to archive, and 409 `in_use` as `archive`.
    Raises 409 `possible_duplicate` if the change introduces a duplicate, unless `allow_duplicate`.
    """
    values = changed_members(patient, changes)
    if "is_active" in values:
        actor.require(Permission.PATIENTS_ARCHIVE)
        if not values["is_active"]:
            _check_archivable(patient)
    _check_date_of_birth(values)
    values = _add_search_forms(values)
    fields = duplicates.IDENTIFYING_FIELDS
    if not allow_duplicate and any(values.get(name) for name in fields):
        _check_duplicates({name: values.get(name, getattr(patient, name)) for name in fields}, patient)
    assign(patient, values)
    set_search_fold(patient)
    if "is_active" in values:
        audit_log.set_action(patient, "restore" if patient.is_active else "archive")
    return patient


def archive(_actor: Actor, patient: Patient) -> Patient:
    """Archive a patient. Raises 409 `in_use` while there are future appointments or an open balance."""
    if patient.is_active:
        _check_archivable(patient)
        patient.is_active = False
        audit_log.set_action(patient, "archive")
    return patient


def _check_archivable(patient: Patient) -> None:
    """Raise 409 `in_use` with all reasons: future appointments, debt, credit."""
    appointments = db.session.execute(
        select(Appointment.id, Appointment.start)
        .where(
            Appointment.patient_id == patient.id,
            Appointment.status == AppointmentStatus.SCHEDULED,
            Appointment.end > clock.now(),
        )
        .order_by(Appointment.start)
    ).all()
    balance = db.session.execute(
        select(func.coalesce(func.sum(LedgerEntry.amount), ZERO)).where(LedgerEntry.patient_id == patient.id)
    ).scalar_one()
    reasons: list[dict[str, Any]] = []
    if appointments:
        listed = [
            {"id": row.id, "start": clock.local(row.start).isoformat()} for row in appointments[:MAX_LISTED]
        ]
        message = f"The patient has {len(appointments)} future appointment(s). Cancel them first."
        reasons.append({"code": "future_appointments", "message": message, "appointments": listed})
    if balance:
        message = "The patient has a debt." if balance > 0 else "The patient has a credit."
        reasons.append({"code": "open_balance", "message": message, "account_balance": f"{balance:.2f}"})
    if reasons:
        raise ClinicError(
            "in_use", " ".join(str(reason["message"]) for reason in reasons), reasons=reasons
        ).about("patient", patient.id, patient.id)
