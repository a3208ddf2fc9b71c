"""Letters of a doctor about a patient: sick notes, referrals and certificates.

A letter is issued once, with a number that is consecutive within a year. It never changes: a wrong letter is
voided and written again. It keeps the names and numbers that it shows (`printed`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, case, or_
from sqlalchemy.orm import joinedload

from database.functions import contains_text
from enums import LetterType
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Letter, Visit
from security.permissions import Actor, Permission
from services import clock, document_numbers
from services.audit import audit_log
from services.clinic import versions
from services.clinical import licences, visit_rows
from services.documents import letter_document
from services.listing import paging
from services.listing.related_rows import (
    doctor_column,
    doctor_filter,
    of_doctor,
    of_patient_or_file,
    patient_column,
    patient_filter,
)
from services.listing.spec import Condition, Kind, ListColumn, ListQuery, ListSpec, Page
from services.patients import activity, birth_dates
from services.rows import get_or_404

# A doctor can judge the days shortly before the visit, and not those of a year ago.
MAX_DAYS_BEFORE_VISIT = 14
REQUIRED_MEMBERS: Mapping[LetterType, tuple[str, ...]] = {
    LetterType.SICK_NOTE: ("from_date", "to_date"),
    LetterType.REFERRAL: ("text", "recipient"),
    LetterType.CERTIFICATE: ("text",),
}
MAX_SICK_DAYS = 366


class NewLetter(TypedDict):
    """The members of a new letter."""

    type: LetterType
    text: str | None
    from_date: date | None
    to_date: date | None
    recipient: str | None


# --- Reading -------------------------------------------------------------------------------------------


def get(actor: Actor, letter_id: int, *, lock: bool = False) -> Letter:
    """Return the letter, void or not. Raise 404 `not_found`, also without emergency access to its patient."""
    row = get_or_404(Letter, letter_id, lock=lock)
    if not actor.may(Permission.LETTERS_READ, row.patient_id):
        raise not_found("letter").about("letter", row.id, row.patient_id)
    return row


def _visible(actor: Actor) -> ColumnElement[bool] | None:
    """Return the condition that emergency access covers the patient. None for a role that reads all."""
    patients = actor.covered_patients(Permission.LETTERS_READ)
    return None if patients is None else Letter.patient_id.in_(sorted(patients))


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        contains_text(Letter.number, text),
        of_patient_or_file(Letter.patient_id, text),
        of_doctor(Letter.doctor_id, text),
    )


LIST: ListSpec[Letter] = ListSpec(
    name="letters",
    kept_since="created_at",
    model=Letter,
    area="letter",
    main_date="issued_on",
    text=_matches,
    scope=_visible,
    options=(joinedload(Letter.patient), joinedload(Letter.doctor)),
    filters={
        "patient_name": patient_filter(Letter.patient_id),
        "doctor_name": doctor_filter(Letter.doctor_id),
    },
    omit=frozenset({"version", "clinic_version_id"}),
    computed={
        "patient_name": patient_column(Letter.patient_id),
        "doctor_name": doctor_column(Letter.doctor_id),
        "status": ListColumn(
            Kind.ENUM,
            case((Letter.voided_at.is_not(None), "void"), else_="issued"),
            ("issued", "void"),
            nullable=False,
        ),
    },
    newest_first=True,
)


def find(actor: Actor, query: ListQuery) -> Page[Letter]:
    """Return one page of letters."""
    return paging.page(actor, LIST, query)


def of_visit(actor: Actor, visit: Visit, query: ListQuery) -> Page[Letter]:
    """Return one page of the letters of a visit."""
    query.conditions.append(Condition("visit_id", "eq", visit.id))
    return paging.page(actor, LIST, query)


# --- Issuing and voiding -------------------------------------------------------------------------------


def get_visit(_actor: Actor, visit_id: int, *, lock: bool = False) -> Visit:
    """Return the visit of a letter, or raise 404. A lock takes the patient first, then the visit."""
    if lock:
        visit_rows.lock_patient_of(visit_id)
    return get_or_404(Visit, visit_id, lock=lock)


def issue(actor: Actor, visit: Visit, **members: Unpack[NewLetter]) -> Letter:
    """Issue a letter of the doctor of a visit, signed or not. The caller has locked patient and visit.

    Raises 403 for the visit of another doctor, and 409 `conflict` for a void visit and for a doctor who is
    inactive or has no valid licence. Raises 422 for members that do not fit the type, and 422
    `unprintable_characters` for a text that no font can print. Raises 409 `patient_inactive` for an archived
    or deceased patient, except for a certificate.
    """
    actor.require_own(visit.doctor_id)
    if visit.voided_at is not None:
        raise ClinicError("conflict", "The visit is void. Write the letter at another visit.")
    licences.require_licensed(visit.doctor)
    if members["type"] is not LetterType.CERTIFICATE:  # a family may need one after a death
        activity.require_active(visit.patient)
    _check_members(members, visited_on=clock.local(visit.date).date())
    letter = Letter(
        **members,
        number="",
        visit_id=visit.id,
        patient=visit.patient,
        doctor=visit.doctor,
        clinic_version_id=versions.current_version().id,
        issued_on=clock.today(),
        printed=_printed_members(visit),
    )
    with db.session.no_autoflush:
        # A letter that cannot be printed cannot be corrected: refuse it before it takes a number.
        letter_document.check_printable(actor, letter)
        letter.number = document_numbers.next_number(document_numbers.LETTER, letter.issued_on.year)
    db.session.add(letter)
    db.session.flush()
    return letter


def _check_members(members: NewLetter, *, visited_on: date) -> None:
    """Check the members that a type of letter needs: ADR 5 lists the rules."""
    first, last = members["from_date"], members["to_date"]
    given: Mapping[str, Any] = members
    missing = [name for name in REQUIRED_MEMBERS[members["type"]] if not given[name]]
    if missing:
        problem = f"is required for a {members['type'].replace('_', ' ')}"
        raise ClinicError(
            "validation_failed",
            f"{' and '.join(missing)}: {problem}.",
            errors=dict.fromkeys(missing, problem),
        )
    if first is not None and last is not None and members["type"] is LetterType.SICK_NOTE:
        _check_sick_days(first, last, visited_on=visited_on)
    if members["type"] is LetterType.REFERRAL:
        for name, value in (("from_date", first), ("to_date", last)):
            if value is not None:
                raise invalid(name, "must be null: a referral has no period")
    if first is not None and last is not None and last < first:
        raise invalid("to_date", "must not be before from_date")


def _check_sick_days(first: date, last: date, *, visited_on: date) -> None:
    if first < visited_on - timedelta(days=MAX_DAYS_BEFORE_VISIT):
        problem = f"must be at most {MAX_DAYS_BEFORE_VISIT} days before the visit of {visited_on}"
        raise invalid("from_date", problem)
    if last - min(first, clock.today()) > timedelta(days=MAX_SICK_DAYS):
        raise invalid("to_date", f"must be at most {MAX_SICK_DAYS} days after from_date and after today")


def _printed_members(visit: Visit) -> Mapping[str, Any]:
    """Return the members of patient, doctor and visit that the letter shows, as JSON."""
    patient, doctor = visit.patient, visit.doctor
    return {
        "patient_name": patient.name,
        "file_number": patient.file_number,
        "date_of_birth": birth_dates.format_known(patient.date_of_birth, patient.birth_date_precision),
        "doctor_name": doctor.name,
        "specialty": doctor.specialty,
        "license_number": doctor.license_number,
        "visited_on": clock.local(visit.date).date().isoformat(),
    }


def void(actor: Actor, letter: Letter, *, reason: str) -> Letter:
    """Void a letter that is wrong; it stays readable. Raise 409 `read_only` for a void letter."""
    actor.require_own(letter.doctor_id)
    if letter.voided_at is not None:
        raise ClinicError("read_only", "The letter is void already.")
    letter.voided_at, letter.void_reason = clock.now(), reason
    audit_log.set_action(letter, "void")
    return letter
