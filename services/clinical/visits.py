"""Visits: document, change, sign, correct and void.

An open visit can change. A signed visit is read-only; corrections are addenda. A voided visit cannot change
any more. A visit never moves to another patient: void it and record it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, and_, exists, not_, or_, select
from sqlalchemy.orm import aliased, joinedload, selectinload

from column_types import is_blank_text
from enums import AppointmentStatus, LedgerKind, PaymentMethod, PrescriptionStatus, Role, TreatmentStatus
from errors import ClinicError, invalid, within
from extensions import db
from models import (
    Addendum,
    Appointment,
    Billing,
    Diagnosis,
    Doctor,
    LedgerEntry,
    Letter,
    Patient,
    PrescribedMedication,
    Prescription,
    Treatment,
    Visit,
)
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import ledger
from services.clinical import icd10, prescriptions, treatments, visit_columns
from services.inventory import stock
from services.listing import paging
from services.listing.related_rows import (
    doctor_filter,
    of_doctor,
    of_patient_or_file,
    patient_filter,
)
from services.listing.spec import Filter, Kind, ListQuery, ListSpec, Page
from services.patients import activity
from services.rows import assign, changed_members, forbid_members, get_or_404, get_referenced
from services.scheduling import appointments

CLOCK_TOLERANCE = timedelta(minutes=1)  # the clock of a client may be ahead by this much
TRANSITIONS: Mapping[str, tuple[str, ...]] = {"open": ("signed", "void"), "signed": (), "void": ()}


class VisitNotes(TypedDict, total=False):
    """The plain members of a visit, which have no rule of their own."""

    visit_type: str | None
    summary: str | None
    procedure_details: str | None
    chief_complaint: str | None
    notes: str | None
    follow_up_date: date | None


class VisitChanges(VisitNotes, total=False):
    """The members of a visit that a change may contain."""

    patient_id: int
    doctor_id: int | None
    appointment_id: int | None
    date: datetime | None
    diagnoses: Sequence[Mapping[str, Any]]
    vitals: Mapping[str, Any] | None


def get(actor: Actor, visit_id: int, *, lock: bool = False, appointment_ids: Iterable[int] = ()) -> Visit:
    """Return the visit, voided or not, or raise 404 `not_found`.

    `lock` first locks the appointments that the visit may be linked to, with their doctors and patients. A
    visit that has an appointment cannot be linked to another one.
    """
    if lock and appointment_ids:
        is_linked = select(Visit.id).where(Visit.id == visit_id, Visit.appointment_id.is_not(None))
        if db.session.execute(is_linked).first() is None:
            existing = select(Appointment.id).where(Appointment.id.in_(appointment_ids))
            for appointment_id in db.session.execute(existing).scalars().all():
                appointments.get(actor, appointment_id, lock=True)
    return get_or_404(Visit, visit_id, lock=lock)


def require_open(visit: Visit) -> None:
    """Raise 409 `read_only` for a signed or voided visit."""
    if visit.voided_at is not None:
        raise ClinicError("read_only", "The visit is voided.")
    if visit.signed_at is not None:
        raise ClinicError("read_only", "The visit is signed. Add an addendum instead.")


# --- Lists ---------------------------------------------------------------------------------------------


def _matches(text: str) -> ColumnElement[bool]:
    return or_(of_patient_or_file(Visit.patient_id, text), of_doctor(Visit.doctor_id, text))


def _has_state(state: str) -> ColumnElement[bool]:
    if state == "void":
        return Visit.voided_at.is_not(None)
    signed = Visit.signed_at.is_not(None)
    return and_(Visit.voided_at.is_(None), signed if state == "signed" else not_(signed))


def _is_follow_up_due(due: bool) -> ColumnElement[bool]:
    """Return the condition: the follow-up date has come, and the patient has no later visit."""
    later = aliased(Visit)
    has_later_visit = exists().where(
        later.patient_id == Visit.patient_id, later.date > Visit.date, later.voided_at.is_(None)
    )
    is_due = and_(
        Visit.follow_up_date.is_not(None),
        Visit.follow_up_date <= clock.today(),
        Visit.voided_at.is_(None),
        not_(has_later_visit),
    )
    return is_due if due else not_(is_due)


LIST: ListSpec[Visit] = ListSpec(
    name="visits",
    kept_since="created_at",
    model=Visit,
    area="visit",
    main_date="date",
    text=_matches,
    options=(
        joinedload(Visit.patient),
        joinedload(Visit.doctor),
        selectinload(Visit.diagnoses),
        selectinload(Visit.addenda).joinedload(Addendum.author),
        selectinload(Visit.treatments).options(
            joinedload(Treatment.patient),
            joinedload(Treatment.doctor),
            selectinload(Treatment.inventory_items),
        ),
        selectinload(Visit.prescriptions).options(*prescriptions.LOAD_OPTIONS),
    ),
    omit=frozenset({"version"}),
    computed=visit_columns.COLUMNS,
    newest_first=True,
    filters={
        "patient_name": patient_filter(Visit.patient_id),
        "doctor_name": doctor_filter(Visit.doctor_id),
        "status": Filter(
            Kind.ENUM, _has_state, "State of the visit: open, signed or void.", visit_columns.STATES
        ),
        "follow_up_due": Filter(
            Kind.BOOLEAN,
            _is_follow_up_due,
            "The follow-up date has come and the patient has no later visit.",
        ),
    },
)


def find(actor: Actor, query: ListQuery) -> Page[Visit]:
    """Return one page of visits."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Visit]) -> None:
    """Set the amounts of the visits, and the computed fields of their treatments and prescriptions.

    The number of queries does not depend on the number of visits. `balance` is the open amount of the
    visit's bills. `amount_paid` is the amount paid on these bills, credit included, plus the payment that
    was recorded with the visit, as far as it was not spent on these bills.
    """
    ids = [visit.id for visit in rows]
    by_bill = ledger.gather(
        ledger.sums_by(Billing.visit_id, Billing.visit_id.in_(ids)).join(
            Billing, Billing.id == LedgerEntry.billing_id
        )
    )
    by_visit = ledger.gather(ledger.sums_by(LedgerEntry.visit_id, LedgerEntry.visit_id.in_(ids)))
    for visit in rows:
        bills, account = by_bill.get(visit.id, ledger.EMPTY), by_visit.get(visit.id, ledger.EMPTY)
        spent = max(-bills.of(LedgerKind.CREDIT), ledger.ZERO)
        visit.amount_paid = bills.paid + max(account.collected - spent, ledger.ZERO)
        visit.balance = bills.balance
        visit.warnings = icd10.warnings(diagnosis.icd10 for diagnosis in visit.diagnoses)
    treatments.add_computed_fields(actor, [treatment for visit in rows for treatment in visit.treatments])
    prescriptions.add_computed_fields(
        actor, [prescription for visit in rows for prescription in visit.prescriptions]
    )


# --- Documenting ---------------------------------------------------------------------------------------


def create(
    actor: Actor,
    *,
    patient_id: int,
    doctor_id: int | None = None,
    appointment_id: int | None = None,
    date: datetime | None = None,
    diagnoses: Sequence[Mapping[str, Any]] = (),
    vitals: Mapping[str, Any] | None = None,
    treatments: Sequence[Mapping[str, Any]] = (),
    prescriptions: Sequence[Mapping[str, Any]] = (),
    amount_paid: Decimal | None = None,
    payment_method: PaymentMethod | None = None,
    importing: bool = False,
    **notes: Unpack[VisitNotes],
) -> Visit:
    """Document a visit with its treatments and prescriptions, all or nothing.

    A visit from an appointment completes the appointment. The default `doctor_id` is the doctor of the
    appointment, then the doctor who sends the request. The default `date` is the start of the appointment if
    it is past, else now. `amount_paid` becomes credit of the patient. The permission to document the visit
    includes taking this payment; the ledger records the user. `importing` accepts a visit from before the
    archiving or death of the patient, which raises 409 `patient_inactive` otherwise.
    Raises 422 for values that do not fit together, 409 `conflict` for an appointment that is cancelled or
    has a visit, and the errors of treatments, prescriptions and payments.
    """
    appointment = None if appointment_id is None else _lock_appointment(actor, appointment_id)
    if doctor_id is None:
        doctor_id = appointment.doctor_id if appointment is not None else actor.doctor_id
    if doctor_id is None:
        raise invalid("doctor_id", "is required, because you are not a doctor")
    actor.require_own(doctor_id)
    doctor = get_referenced(Doctor, doctor_id, "doctor_id")
    # Archiving, death and the safety check of a prescription need the lock, before any lock on stock.
    patient = get_referenced(Patient, patient_id, "patient_id", lock=True)
    now = clock.now()
    if date is None:
        date = now if appointment is None else min(appointment.start, now)
    activity.require_active(patient, date if importing else None)
    visit = Visit(patient=patient, doctor=doctor, date=date, vitals=_merge_vitals(None, vitals), **notes)
    _check_dates(visit)
    _check_vitals(visit.vitals)
    visit.diagnoses = _new_diagnoses(diagnoses)
    if appointment is not None:
        _link_appointment(actor, visit, appointment)
    db.session.add(visit)
    db.session.flush()
    _add_orders(actor, visit, treatments, prescriptions, importing=importing)
    if amount_paid:
        method = payment_method or PaymentMethod.OTHER
        ledger.pay_account(actor, patient.id, amount_paid, method, visit_id=visit.id)
    return visit


def _add_orders(
    actor: Actor,
    visit: Visit,
    new_treatments: Sequence[Mapping[str, Any]],
    new_prescriptions: Sequence[Mapping[str, Any]],
    *,
    importing: bool,
) -> None:
    # Lock all items at once in ascending id. Locks treatment by treatment could deadlock.
    stock.lock_items(
        usage["item_id"] for values in new_treatments for usage in values.get("inventory_items", ())
    )
    for index, values in enumerate(new_treatments):
        with within(f"treatments.{index}"):
            treatments.add(actor, visit, **values)
    for index, values in enumerate(new_prescriptions):
        with within(f"prescriptions.{index}"):
            prescriptions.prescribe(actor, visit_id=visit.id, importing=importing, **values)
    if new_treatments or new_prescriptions:
        db.session.expire(visit, ["treatments", "prescriptions"])


def update(actor: Actor, visit: Visit, **changes: Unpack[VisitChanges]) -> Visit:
    """Change the members of an open visit.

    `vitals` merges member by member (RFC 7396), `diagnoses` replaces the list. A technician may change
    `vitals` only (403 otherwise). Raises 409 `read_only` for a visit that is not open, for a new patient,
    and for a new appointment if the visit has one.
    """
    actor.require_own(visit.doctor_id)
    if "vitals" in changes:
        changes["vitals"] = _merge_vitals(visit.vitals, changes["vitals"])
    new_diagnoses = changes.pop("diagnoses", None)
    values = changed_members(visit, changes)
    diagnoses = None if new_diagnoses is None else _new_diagnoses(new_diagnoses)
    if diagnoses is not None and _as_pairs(diagnoses) != _as_pairs(visit.diagnoses):
        values["diagnoses"] = diagnoses
    if not values:
        return visit
    if actor.role is Role.TECHNICIAN:
        forbid_members(values, set(values) - {"vitals"}, "You may record vitals only.")
    require_open(visit)
    _change_references(actor, visit, values)
    if values.get("date", visit.date) is None:
        raise invalid("date", "must not be null")
    assign(visit, values)
    _check_dates(visit)
    _check_vitals(visit.vitals)
    return visit


def _change_references(actor: Actor, visit: Visit, values: Mapping[str, Any]) -> None:
    """Check and set a new doctor and a first appointment. The patient never changes."""
    if "patient_id" in values:
        raise ClinicError("read_only", "A visit cannot move to another patient. Void it and record it again.")
    if "doctor_id" in values:
        if values["doctor_id"] is None:
            raise invalid("doctor_id", "must not be null")
        actor.require_own(values["doctor_id"])
        visit.doctor = get_referenced(Doctor, values["doctor_id"], "doctor_id")
        if visit.appointment is not None and visit.appointment.doctor_id != values["doctor_id"]:
            raise invalid("doctor_id", "must be the doctor of the appointment")
    if "appointment_id" in values:
        if visit.appointment_id is not None or values["appointment_id"] is None:
            raise ClinicError(
                "read_only", "The appointment of a visit cannot change. Void the visit and record it again."
            )
        _link_appointment(actor, visit, _lock_appointment(actor, values["appointment_id"]))


def _lock_appointment(actor: Actor, appointment_id: int) -> Appointment:
    """Lock and return the appointment of a request body. Raise 422 if it does not exist."""
    get_referenced(Appointment, appointment_id, "appointment_id")
    return appointments.get(actor, appointment_id, lock=True)


def _link_appointment(actor: Actor, visit: Visit, appointment: Appointment) -> None:
    """Link the visit to the appointment, and complete the appointment."""
    if appointment.patient_id != visit.patient.id:
        raise invalid("patient_id", "must be the patient of the appointment")
    if appointment.doctor_id != visit.doctor.id:
        raise invalid("doctor_id", "must be the doctor of the appointment")
    if appointment.status is AppointmentStatus.CANCELLED:
        raise ClinicError("conflict", "A cancelled appointment cannot have a visit.")
    other_visit = select(Visit.id).where(Visit.appointment_id == appointment.id, Visit.voided_at.is_(None))
    with db.session.no_autoflush:  # the query must not find this visit
        if db.session.execute(other_visit).first() is not None:
            raise ClinicError("conflict", "This appointment already has a visit.")
        appointments.complete(actor, appointment)
    visit.appointment = appointment


def _check_dates(visit: Visit) -> None:
    day = clock.local(visit.date).date()
    if visit.date > clock.now() + CLOCK_TOLERANCE:
        raise invalid("date", "must not be in the future")
    if visit.patient.date_of_birth is not None and day < visit.patient.date_of_birth:
        raise invalid("date", "must not be before the birth of the patient")
    if visit.follow_up_date is not None and visit.follow_up_date < day:
        raise invalid("follow_up_date", "must not be before the visit")


def _merge_vitals(stored: Mapping[str, Any] | None, patch: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the vitals after a JSON merge patch (RFC 7396); None if no member is left."""
    if patch is None:
        return None
    merged = dict(stored or {}) | dict(patch)
    return {name: value for name, value in merged.items() if value is not None} or None


def _check_vitals(vitals: Mapping[str, Any] | None) -> None:
    systolic, diastolic = ((vitals or {}).get(name) for name in ("systolic", "diastolic"))
    if systolic is not None and diastolic is not None and diastolic >= systolic:
        raise invalid("vitals.diastolic", "must be below systolic")


def _new_diagnoses(entries: Sequence[Mapping[str, Any]]) -> list[Diagnosis]:
    """Return new diagnosis rows. A code without description gets its official title."""
    diagnoses = []
    for number, entry in enumerate(entries):
        code, description = entry.get("icd10"), entry.get("description")
        title = None if code is None else icd10.describe(code)
        if code is not None and title is None:
            raise invalid(f"diagnoses.{number}.icd10", f"is not an ICD-10-CM code of {icd10.RELEASE}")
        description = title if is_blank_text(description or "") else description
        if description is None:
            raise invalid(f"diagnoses.{number}.description", "is required without a code")
        diagnoses.append(
            Diagnosis(icd10=None if code is None else icd10.normalize(code), description=description)
        )
    return diagnoses


def _as_pairs(diagnoses: Sequence[Diagnosis]) -> list[tuple[str | None, str]]:
    return [(diagnosis.icd10, diagnosis.description) for diagnosis in diagnoses]


# --- Signing, correcting, voiding ----------------------------------------------------------------------


def sign(actor: Actor, visit: Visit) -> Visit:
    """Sign an open visit; it becomes read-only. Raise 409 `invalid_transition` unless it is open."""
    actor.require_own(visit.doctor_id)
    if visit.status != "open":
        raise ClinicError(
            "invalid_transition", f"Only an open visit can be signed. This one is {visit.status}."
        )
    visit.signed_at, visit.signed_by_id = clock.now(), actor.user_id
    audit_log.set_action(visit, "sign")
    return visit


def add_addendum(actor: Actor, visit: Visit, text: str) -> Addendum:
    """Add a correction to a signed visit, with its author and time.

    Raises 409 `conflict` for a visit that is not signed, and 403 `forbidden` without a signed-in user.
    """
    actor.require_own(visit.doctor_id)
    if actor.user_id is None:
        raise ClinicError("forbidden", "Sign in to add an addendum.")
    if visit.signed_at is None:
        raise ClinicError("conflict", "Only a signed visit can have addenda. Change the visit itself.")
    addendum = Addendum(visit_id=visit.id, author_id=actor.user_id, text=text)
    db.session.add(addendum)
    audit_log.set_action(visit, "addendum")
    return addendum


def void(actor: Actor, visit: Visit, reason: str | None) -> Visit:
    """Void a visit that was recorded by mistake.

    Its treatments are voided and their stock returns. Its prescriptions are cancelled or stopped. The payment
    that was recorded with it stays credit of the patient. Its appointment stays completed and may get another
    visit. Voiding it again changes nothing. Raises 409 `read_only` for a signed visit, 409 `in_use` for a
    billed visit, with a valid letter, or after a dispensing.
    """
    if visit.voided_at is not None:
        return visit
    if visit.signed_at is not None:
        raise ClinicError("read_only", "A signed visit cannot be voided. Add an addendum instead.")
    billed = exists().where(Billing.visit_id == visit.id, Billing.voided_at.is_(None))
    if db.session.execute(select(billed)).scalar_one():
        raise ClinicError("in_use", "The visit is billed. Void the bill first.")
    dispensed = exists().where(
        PrescribedMedication.prescription_id == Prescription.id,
        Prescription.visit_id == visit.id,
        PrescribedMedication.dispensed > 0,
    )
    if db.session.execute(select(dispensed)).scalar_one():
        raise ClinicError("in_use", "Medication of a prescription of this visit was dispensed.")
    valid_letter = exists().where(Letter.visit_id == visit.id, Letter.voided_at.is_(None))
    if db.session.execute(select(valid_letter)).scalar_one():
        raise ClinicError("in_use", "A letter of this visit is valid. Void the letter first.")
    to_cancel = [row for row in visit.treatments if row.status is not TreatmentStatus.CANCELLED]
    stock.lock_items(usage.item_id for row in to_cancel for usage in row.inventory_items)
    for treatment in to_cancel:
        treatments.cancel(actor, treatment, reason)
    for prescription in visit.prescriptions:
        if prescription.status is PrescriptionStatus.COMPLETED and prescription.stopped_at is None:
            prescriptions.stop(actor, prescription, reason=reason or "The visit was voided.")
        elif prescription.status is PrescriptionStatus.ACTIVE:
            prescriptions.cancel(actor, prescription, reason)
    visit.voided_at, visit.void_reason = clock.now(), reason
    audit_log.set_action(visit, "void")
    return visit
