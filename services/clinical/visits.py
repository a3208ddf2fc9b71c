"""Visits: documenting, signing, correcting, voiding.

An open visit may change; a signed one is read-only but for addenda; a voided one stays as it was found to be
wrong. A visit keeps its patient: what was written under the wrong name is voided and recorded anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, not_, or_, select
from sqlalchemy.orm import aliased, joinedload, selectinload

from enums import AppointmentStatus, LedgerKind, PaymentMethod, PrescriptionStatus, Role, TreatmentStatus
from errors import ClinicError, invalid
from extensions import db
from models import (
    Addendum,
    Appointment,
    Billing,
    Diagnosis,
    Doctor,
    LedgerEntry,
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
from services.clinical import icd10, prescriptions, treatments
from services.inventory import stock
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
)
from services.listing.related_rows import of_doctor, of_patient_or_file
from services.rows import (
    assign,
    changed_members,
    forbid_members,
    get_or_404,
    get_referenced,
)
from services.scheduling import appointments

SKEW = timedelta(minutes=1)  # a client's clock may be this much ahead
STATES = ("open", "signed", "void")
# What a visit can become; nothing leads back.
TRANSITIONS: Mapping[str, tuple[str, ...]] = {"open": ("signed", "void"), "signed": (), "void": ()}


def get(actor: Actor, visit_id: int, *, lock: bool = False) -> Visit:
    """The visit, voided ones included, or 404."""
    return get_or_404(Visit, visit_id, lock=lock)


def require_open(visit: Visit) -> None:
    """409 `read_only` for a visit that is signed or void."""
    if visit.voided_at is not None:
        raise ClinicError("read_only", "The visit is void.")
    if visit.signed_at is not None:
        raise ClinicError("read_only", "The visit is signed; add an addendum instead.")


# --- Lists ---------------------------------------------------------------------------------------------


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        of_patient_or_file(Visit.patient_id, text),
        of_doctor(Visit.doctor_id, text),
    )


def _in_state(state: str) -> ColumnElement[bool]:
    if state == "void":
        return Visit.voided_at.is_not(None)
    signed = Visit.signed_at.is_not(None)
    return and_(Visit.voided_at.is_(None), signed if state == "signed" else not_(signed))


def _follow_up_due(wanted: bool) -> ColumnElement[bool]:
    """Due: the date has come, and the patient has not been seen since that visit."""
    later = aliased(Visit)
    seen_since = exists().where(
        later.patient_id == Visit.patient_id, later.date > Visit.date, later.voided_at.is_(None)
    )
    due = and_(
        Visit.follow_up_date.is_not(None),
        Visit.follow_up_date <= clock.today(),
        Visit.voided_at.is_(None),
        not_(seen_since),
    )
    return due if wanted else not_(due)


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
    filters={
        "status": Filter(Kind.ENUM, _in_state, "Whether the visit is open, signed or void.", STATES),
        "follow_up_due": Filter(
            Kind.BOOLEAN, _follow_up_due, "The follow-up date has come and the patient was not seen since."
        ),
    },
)


def find(actor: Actor, query: ListQuery) -> Page[Visit]:
    """One page of visits."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Visit]) -> None:
    """What was paid and is owed, and the figures of what hangs on the visits; a constant number of queries.

    `balance` is what the visit's bills still ask. `amount_paid` is what was paid on them, credit included,
    and what was paid with the visit on the patient's account as far as it was not spent on them since.
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
    **values: Any,
) -> Visit:
    """Document a visit with what was done and prescribed, all or nothing.

    From an appointment it completes that. The doctor is the one named, else the appointment's, else the
    caller; the time the one named, else the appointment's start if that is past, else now. `amount_paid`
    becomes the patient's credit: whoever may document the visit may take its payment, and the ledger says
    who it was. Raises 422 for what does not fit together, 409 `conflict` for an appointment that is
    cancelled or has a visit, and whatever treatments, prescriptions and payments raise.
    """
    appointment = None if appointment_id is None else _appointment(actor, appointment_id)
    if doctor_id is None:
        doctor_id = appointment.doctor_id if appointment is not None else actor.doctor_id
    if doctor_id is None:
        raise invalid("doctor_id", "is required, since you are not a doctor")
    actor.require_own(doctor_id)
    doctor = get_referenced(Doctor, doctor_id, "doctor_id")
    # the gate of a prescription needs the patient held, and before any stock is
    patient = get_referenced(Patient, patient_id, "patient_id", lock=bool(prescriptions))
    now = clock.now()
    if date is None:
        date = now if appointment is None else min(appointment.start, now)
    visit = Visit(patient=patient, doctor=doctor, date=date, vitals=_merged(None, vitals), **values)
    _check_dates(visit)
    _check_vitals(visit.vitals)
    visit.diagnoses = _diagnoses(diagnoses)
    if appointment is not None:
        _link(actor, visit, appointment)
    db.session.add(visit)
    db.session.flush()
    _add_along(actor, visit, treatments, prescriptions)
    if amount_paid:
        method = payment_method or PaymentMethod.OTHER
        ledger.pay_account(actor, patient.id, amount_paid, method, visit_id=visit.id)
    return visit


def _add_along(
    actor: Actor,
    visit: Visit,
    ordered: Sequence[Mapping[str, Any]],
    prescribed: Sequence[Mapping[str, Any]],
) -> None:
    # all items at once, in their order: one treatment after the other would take them criss-cross
    stock.lock_items(usage["item_id"] for one in ordered for usage in one.get("inventory_items", ()))
    for one in ordered:
        treatments.add(actor, visit, **one)
    for one in prescribed:
        prescriptions.prescribe(actor, visit_id=visit.id, **one)
    if ordered or prescribed:
        db.session.expire(visit, ["treatments", "prescriptions"])


def update(actor: Actor, visit: Visit, **values: Any) -> Visit:
    """Change the members given; `vitals` merges member by member (RFC 7396), `diagnoses` replaces the list.

    A technician may change `vitals` only. Raises 409 `read_only` for a visit that is not open, and for its
    patient or its appointment, which stay what they are.
    """
    if "vitals" in values:
        values["vitals"] = _merged(visit.vitals, values["vitals"])
    wanted = values.pop("diagnoses", None)
    values = changed_members(visit, values)
    diagnoses = None if wanted is None else _diagnoses(wanted)
    if diagnoses is not None and _told(diagnoses) != _told(visit.diagnoses):
        values["diagnoses"] = diagnoses
    if not values:
        return visit
    if actor.role is Role.TECHNICIAN:
        forbid_members(values, set(values) - {"vitals"}, "You may record vitals only.")
    actor.require_own(visit.doctor_id)
    require_open(visit)
    _check_belonging(actor, visit, values)
    if values.get("date", visit.date) is None:
        raise invalid("date", "a visit has a date")
    assign(visit, values)
    _check_dates(visit)
    _check_vitals(visit.vitals)
    return visit


def _check_belonging(actor: Actor, visit: Visit, values: dict[str, Any]) -> None:
    """Who the visit is with may change within limits: never the patient, never an appointment once there."""
    if "patient_id" in values:
        raise ClinicError("read_only", "A visit keeps its patient; void it and record it anew.")
    if "doctor_id" in values:
        if values["doctor_id"] is None:
            raise invalid("doctor_id", "a visit has a doctor")
        actor.require_own(values["doctor_id"])
        visit.doctor = get_referenced(Doctor, values["doctor_id"], "doctor_id")
        if visit.appointment is not None and visit.appointment.doctor_id != values["doctor_id"]:
            raise invalid("doctor_id", "is not the appointment's doctor")
    if "appointment_id" in values:
        if visit.appointment_id is not None or values["appointment_id"] is None:
            raise ClinicError("read_only", "A visit keeps its appointment; void it and record it anew.")
        _link(actor, visit, _appointment(actor, values["appointment_id"]))


def _appointment(actor: Actor, appointment_id: int) -> Appointment:
    """The appointment that a body names, held."""
    get_referenced(Appointment, appointment_id, "appointment_id")
    return appointments.get(actor, appointment_id, lock=True)


def _link(actor: Actor, visit: Visit, appointment: Appointment) -> None:
    """Make the visit the appointment's, which is completed by it."""
    if appointment.patient_id != visit.patient.id:
        raise invalid("patient_id", "is not the appointment's patient")
    if appointment.doctor_id != visit.doctor.id:
        raise invalid("doctor_id", "is not the appointment's doctor")
    if appointment.status is AppointmentStatus.CANCELLED:
        raise ClinicError("conflict", "The appointment is cancelled; it cannot have a visit.")
    other = select(Visit.id).where(Visit.appointment_id == appointment.id, Visit.voided_at.is_(None))
    with db.session.no_autoflush:  # the visit itself is not to be found
        if db.session.execute(other).first() is not None:
            raise ClinicError("conflict", "This appointment already has a visit.")
        appointments.complete(actor, appointment)
    visit.appointment = appointment


def _check_dates(visit: Visit) -> None:
    day = clock.local(visit.date).date()
    if visit.date > clock.now() + SKEW:
        raise invalid("date", "must not be in the future")
    if visit.patient.date_of_birth is not None and day < visit.patient.date_of_birth:
        raise invalid("date", "must not be before the patient's birth")
    if visit.follow_up_date is not None and visit.follow_up_date < day:
        raise invalid("follow_up_date", "must not be before the visit")


def _merged(stored: Mapping[str, Any] | None, patch: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A JSON merge patch of the vitals: null takes a member away, null for all of them takes all."""
    if patch is None:
        return None
    merged = dict(stored or {}) | dict(patch)
    return {name: value for name, value in merged.items() if value is not None} or None


def _check_vitals(vitals: Mapping[str, Any] | None) -> None:
    systolic, diastolic = ((vitals or {}).get(name) for name in ("systolic", "diastolic"))
    if systolic is not None and diastolic is not None and diastolic >= systolic:
        raise invalid("vitals.diastolic", "must be below systolic")


def _diagnoses(wanted: Sequence[Mapping[str, Any]]) -> list[Diagnosis]:
    found = []
    for number, one in enumerate(wanted):
        code, description = one.get("icd10"), one.get("description")
        title = None if code is None else icd10.describe(code)
        if code is not None and title is None:
            raise invalid(f"diagnoses.{number}.icd10", f"is no ICD-10-CM code of the {icd10.RELEASE} release")
        description = description if description and description.strip() else title
        if description is None:
            raise invalid(f"diagnoses.{number}.description", "is required without a code")
        found.append(
            Diagnosis(icd10=None if code is None else icd10.normalize(code), description=description)
        )
    return found


def _told(diagnoses: Sequence[Diagnosis]) -> list[tuple[str | None, str]]:
    return [(one.icd10, one.description) for one in diagnoses]


# --- Signing, correcting, voiding ----------------------------------------------------------------------


def sign(actor: Actor, visit: Visit) -> Visit:
    """Close the documentation, once: 409 `invalid_transition` unless the visit is open."""
    actor.require_own(visit.doctor_id)
    if visit.status != "open":
        raise ClinicError("invalid_transition", f"The visit is {visit.status}; only an open one is signed.")
    visit.signed_at, visit.signed_by_id = clock.now(), actor.user_id
    audit_log.set_action(visit, "sign")
    return visit


def add_addendum(actor: Actor, visit: Visit, text: str) -> Addendum:
    """A correction to a signed visit, with its author and time; 409 `conflict` for one that is not signed."""
    actor.require_own(visit.doctor_id)
    if actor.user_id is None:
        raise ClinicError("forbidden", "An addendum has an author: sign in.")
    if visit.signed_at is None:
        raise ClinicError("conflict", "Only a signed visit has addenda; change the visit itself.")
    addendum = Addendum(visit_id=visit.id, author_id=actor.user_id, text=text)
    db.session.add(addendum)
    audit_log.set_action(visit, "addendum")
    return addendum


def void(actor: Actor, visit: Visit, reason: str | None) -> Visit:
    """Take back a visit that should not be there; what hangs on it goes with it.

    Its treatments are voided (their stock goes back), its prescriptions cancelled; what was paid with it
    stays the patient's credit. Its appointment stays completed and may get another visit. Voiding a voided
    one again changes nothing. Raises 409 `read_only` after signing, 409 `in_use` while it is billed or once
    something was dispensed, 422 without a reason.
    """
    if visit.voided_at is not None:
        return visit
    if visit.signed_at is not None:
        raise ClinicError("read_only", "A signed visit is not voided; add an addendum instead.")
    if reason is None:
        raise invalid("reason", "is required to void a visit")
    billed = exists().where(Billing.visit_id == visit.id, Billing.voided_at.is_(None))
    if db.session.execute(select(billed)).scalar_one():
        raise ClinicError("in_use", "The visit is billed; void the bill first.")
    dispensed = exists().where(
        PrescribedMedication.prescription_id == Prescription.id,
        Prescription.visit_id == visit.id,
        PrescribedMedication.dispensed > 0,
    )
    if db.session.execute(select(dispensed)).scalar_one():
        raise ClinicError("in_use", "Medicine was dispensed on a prescription of this visit.")
    undone = [one for one in visit.treatments if one.status is not TreatmentStatus.CANCELLED]
    stock.lock_items(usage.item_id for one in undone for usage in one.inventory_items)
    for treatment in undone:
        treatments.cancel(actor, treatment, reason)
    for prescription in visit.prescriptions:
        if prescription.status is PrescriptionStatus.ACTIVE:
            prescriptions.cancel(actor, prescription, reason)
    visit.voided_at, visit.void_reason = clock.now(), reason
    audit_log.set_action(visit, "void")
    return visit
