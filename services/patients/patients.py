"""Patients: registration, changes, archiving, and computed fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from itertools import chain, count
from typing import Any, TypedDict, Unpack

from sqlalchemy import bindparam, exists, func, insert, select
from sqlalchemy.orm.exc import StaleDataError

from column_types import unique_key
from database.functions import next_id
from enums import BirthDatePrecision, Gender
from errors import ClinicError, not_found
from extensions import db
from models import Appointment, Doctor, LedgerEntry, MedicalHistory, Patient, Visit
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.listing.spec import Records
from services.patients import birth_dates, duplicates, patient_columns, phones
from services.patients.search_column import FIELDS, search_fold
from services.rows import (
    Record,
    assign,
    changed_members,
    execute_core,
    get_or_404,
    lock_rows,
)
from services.scheduling import appointments, future_appointments
from services.search_key import search_key

ZERO = Decimal("0.00")
MAX_LISTED = 20  # appointments in a 409 response


class _PatientMembers(TypedDict, total=False):
    gender: Gender | None
    date_of_birth: date | str | None
    birth_date_precision: BirthDatePrecision | None
    estimated_age: int | None
    deceased_on: date | None
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
    language: str | None
    is_active: bool


class NewPatient(_PatientMembers):
    """Members of a registration; only the name is required.

    `date_of_birth` may be a text without day or month. `estimated_age` in years takes its place.
    """

    name: str


class PatientChanges(_PatientMembers, total=False):
    """Members of a change of a patient; absent ones stay as they are."""

    name: str
    file_number: str


def get(_actor: Actor, patient_id: int, *, lock: bool = False, with_booked_doctors: bool = False) -> Patient:
    """Return the patient, also an archived one, or raise 404.

    `with_booked_doctors` first locks the doctors of the future appointments, so that these can be cancelled.
    """
    if not with_booked_doctors:
        return get_or_404(Patient, patient_id, lock=lock)
    doctor_ids = future_appointments.doctors_of_patient(patient_id)
    lock_rows(Doctor, doctor_ids)
    patient = get_or_404(Patient, patient_id, lock=True)
    if future_appointments.doctors_of_patient(patient_id) - doctor_ids:
        # booked before the lock on the patient was granted: the request is retried
        raise StaleDataError("an appointment was booked while the doctors were locked")
    return patient


def add_computed_fields(_actor: Actor, rows: Sequence[Patient | Record]) -> None:
    """Set the known birth date, age, balance, last visit and next appointment, with one query.

    List rows (`Record`) already have them.
    """
    patients = {patient.id: patient for patient in rows if isinstance(patient, Patient)}
    birth_dates.add_computed_fields(patients.values())
    # a request that changes these values sets the balance to None, so values that are set are still correct
    missing = [patient.id for patient in patients.values() if patient.account_balance is None]
    if not missing:
        return
    for row in execute_core(_COMPUTED_FIELDS, ids=missing):
        patient = patients[row.id]
        patient.account_balance = row.account_balance
        patient.last_visit = row.last_visit
        patient.next_appointment = row.next_appointment


_COMPUTED_COLUMNS = (
    patient_columns.BALANCE.label("account_balance"),
    patient_columns.LAST_VISIT.label("last_visit"),
    patient_columns.NEXT_APPOINTMENT.label("next_appointment"),
)
_COMPUTED_FIELDS = select(Patient.id, *_COMPUTED_COLUMNS).where(
    Patient.id.in_(bindparam("ids", expanding=True))
)
_RECORDS = select(Patient.__table__, Patient.id.label("patient_id"), *_COMPUTED_COLUMNS).execution_options(
    prepare=True
)
_RECORD_BY_ID = _RECORDS.where(Patient.id == bindparam("row_id"))


def _add_ages(patients: Sequence[Record]) -> None:
    for patient in patients:
        patient.__entity__ = "patient"
    birth_dates.add_computed_fields(patients)


RECORDS = Records(_RECORDS, _add_ages)


def read(_actor: Actor, patient_id: int, **_lock: bool) -> Record:
    """Return the patient with all computed fields as a read-only record, or raise 404. It is never locked."""
    records = RECORDS.read(execute_core(_RECORD_BY_ID, row_id=patient_id))
    if not records:
        raise not_found("patient")
    return records[0]


# --- Registration --------------------------------------------------------------------------------------


def register(
    actor: Actor,
    *,
    file_number: str | None = None,
    allow_duplicate: bool = False,
    find_ignored: duplicates.FindIgnored = duplicates.ignore_nobody,
    **members: Unpack[NewPatient],
) -> Patient:
    """Register a patient with an empty medical history. Without `file_number` a new number is issued.

    Raises 409 `possible_duplicate` with the candidates, unless `allow_duplicate` or `find_ignored` returns
    all of them. Raises 409 `already_exists` if another patient has the file number. Raises 403 for
    `is_active` false without the permission to archive.
    """
    values = _add_search_forms(members)
    _set_birth_date(values)
    birth_dates.check(values["date_of_birth"], values.get("deceased_on"))
    if values.get("is_active") is False:
        actor.require(Permission.PATIENTS_ARCHIVE)
        values["archived_on"] = clock.today()
    if not allow_duplicate:
        _check_duplicates(values, find_ignored=find_ignored)
    patient = Patient(**values)
    if file_number is None:
        _issue_file_number(patient)
    else:
        patient.file_number = file_number
    set_search_fold(patient)
    db.session.add(patient)
    db.session.flush()
    patient.account_balance = ZERO
    now = clock.now()
    execute_core(_INSERT_HISTORY, patient_id=patient.id, version=1, created_at=now, updated_at=now)
    return patient


# A Core statement: the audit log must not record an empty history as a change of its own. It returns no id.
_INSERT_HISTORY = insert(MedicalHistory).inline().execution_options(prepare=True)


def _issue_file_number(patient: Patient) -> None:
    """Set the id and the file number `P-` with the id. Add a suffix if that number is taken."""
    patient.id = next_id(db.session.connection(), Patient.__tablename__)
    issued = f"P-{patient.id:06d}"
    numbers = chain([issued], (f"{issued}-{suffix}" for suffix in count(1)))
    patient.file_number = next(number for number in numbers if not _is_taken(number))


def _is_taken(file_number: str) -> bool:
    return bool(execute_core(_TAKEN, file_number=unique_key(file_number)).scalar_one())


_TAKEN = select(exists().where(Patient.file_number_key == bindparam("file_number"))).execution_options(
    prepare=True
)


def _set_birth_date(values: dict[str, Any], patient: Patient | None = None) -> None:
    """Replace the birth members of a request by the columns. Without one of them, nothing changes."""
    estimated_age = values.pop("estimated_age", None)
    precision = values.pop("birth_date_precision", None)
    is_given = "date_of_birth" in values
    if patient is not None and not is_given and estimated_age is precision is None:
        return
    stored: tuple[date | None, BirthDatePrecision | None] = (None, None)
    if patient is not None and not is_given:
        stored = (patient.date_of_birth, patient.birth_date_precision)
    values["date_of_birth"], values["birth_date_precision"] = birth_dates.to_columns(
        values.get("date_of_birth"), precision, estimated_age, stored
    )


def _check_birth_before_visits(patient: Patient, date_of_birth: date) -> None:
    """Raise 409 if the patient had a visit before the new date of birth."""
    first_visit = db.session.execute(
        select(func.min(Visit.date)).where(Visit.patient_id == patient.id, Visit.voided_at.is_(None))
    ).scalar_one()
    if first_visit is not None and clock.local(first_visit).date() < date_of_birth:
        problem = "must not be after a visit of the patient"
        raise ClinicError("conflict", f"date_of_birth: {problem}.", errors={"date_of_birth": problem}).about(
            "patient", patient.id, patient.id
        )


def _check_duplicates(
    values: Mapping[str, Any],
    patient: Patient | None = None,
    *,
    find_ignored: duplicates.FindIgnored = duplicates.ignore_nobody,
) -> None:
    """Raise 409 with likely duplicates. For an update, report only duplicates that the change introduces."""
    duplicates.lock_traits(values)
    candidates = duplicates.find_likely(
        values, except_id=patient.id if patient else 0, find_ignored=find_ignored
    )
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
        "date_of_birth": birth_dates.format_known(patient.date_of_birth, patient.birth_date_precision),
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


def identifying_values(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a registration with the values that the search for duplicates compares."""
    values = _add_search_forms(members)
    _set_birth_date(values)
    return values


def set_search_fold(patient: Patient) -> None:
    """Set the search column from the other columns of the patient."""
    patient.search_fold = search_fold({name: getattr(patient, name) for name in FIELDS})


# --- Changing ------------------------------------------------------------------------------------------


def update(
    actor: Actor,
    patient: Patient,
    *,
    allow_duplicate: bool = False,
    on_conflict: str | None = None,
    **changes: Unpack[PatientChanges],
) -> Patient:
    """Change the given members of a patient.

    A `deceased_on` cancels the future appointments with `on_conflict` "cancel", or raises 409
    `booked_appointments`. Raises 403 for a change of `is_active` without the permission to archive, and 409
    `in_use` as `archive`. Raises 409 `possible_duplicate` if the change introduces a duplicate, unless
    `allow_duplicate`. Raises 409 `conflict` for a date of birth after a visit.
    """
    values = _add_search_forms(changed_members(patient, changes))
    _set_birth_date(values, patient)
    values = changed_members(patient, values)
    if "is_active" in values:
        actor.require(Permission.PATIENTS_ARCHIVE)
    _check_dates(patient, values)
    fields = duplicates.IDENTIFYING_FIELDS
    if not allow_duplicate and any(values.get(name) for name in fields):
        _check_duplicates({name: values.get(name, getattr(patient, name)) for name in fields}, patient)
    if values.get("deceased_on") is not None:
        _resolve_appointments_of_deceased(patient, on_conflict)
    if "is_active" in values:
        _set_active(patient, values.pop("is_active"))
    assign(patient, values)
    set_search_fold(patient)
    return patient


def _check_dates(patient: Patient, values: Mapping[str, Any]) -> None:
    if values.keys().isdisjoint({"date_of_birth", "birth_date_precision", "deceased_on"}):
        return
    date_of_birth = values.get("date_of_birth", patient.date_of_birth)
    birth_dates.check(date_of_birth, values.get("deceased_on", patient.deceased_on))
    if "date_of_birth" in values and date_of_birth is not None:
        _check_birth_before_visits(patient, date_of_birth)


# --- Death and archiving -------------------------------------------------------------------------------


def archive(_actor: Actor, patient: Patient) -> Patient:
    """Archive a patient. Raises 409 `in_use` while there are future appointments or an open balance."""
    if patient.is_active:
        _set_active(patient, False)
    return patient


def _set_active(patient: Patient, is_active: bool) -> None:
    if not is_active:
        _check_archivable(patient)
    patient.is_active = is_active
    patient.archived_on = None if is_active else clock.today()
    audit_log.set_action(patient, "restore" if is_active else "archive")


def _resolve_appointments_of_deceased(patient: Patient, on_conflict: str | None) -> None:
    """Cancel the future appointments if the request says so. Otherwise raise 409 that lists them."""
    booked = future_appointments.of_patient(patient.id)
    if not booked:
        return
    if on_conflict != "cancel":
        message = (
            f"The patient has {len(booked)} future appointment(s). Cancel them with on_conflict 'cancel'."
        )
        raise ClinicError(
            "booked_appointments", message, appointments=_list_appointments(booked), total=len(booked)
        ).about("patient", patient.id, patient.id)
    lock_rows(Appointment, (appointment.id for appointment in booked))
    for appointment in booked:
        appointments.cancel_for_clinic(appointment, "The patient has died.")
    patient.account_balance = None  # `add_computed_fields` computes the next appointment again


def _list_appointments(booked: Sequence[Appointment]) -> list[dict[str, Any]]:
    return [
        {"id": appointment.id, "start": clock.local(appointment.start).isoformat()}
        for appointment in booked[:MAX_LISTED]
    ]


def _check_archivable(patient: Patient) -> None:
    """Raise 409 `in_use` with all reasons: future appointments, debt, credit."""
    booked = future_appointments.of_patient(patient.id)
    balance = db.session.execute(
        select(func.coalesce(func.sum(LedgerEntry.amount), ZERO)).where(LedgerEntry.patient_id == patient.id)
    ).scalar_one()
    reasons: list[dict[str, Any]] = []
    if booked:
        message = f"The patient has {len(booked)} future appointment(s). Cancel them first."
        listed = _list_appointments(booked)
        reasons.append({"code": "future_appointments", "message": message, "appointments": listed})
    if balance:
        message = "The patient has a debt." if balance > 0 else "The patient has a credit."
        reasons.append({"code": "open_balance", "message": message, "account_balance": f"{balance:.2f}"})
    if reasons:
        raise ClinicError(
            "in_use", " ".join(str(reason["message"]) for reason in reasons), reasons=reasons
        ).about("patient", patient.id, patient.id)
