"""Prescriptions: prescribe, change, cancel and dispense medications.

    active -> completed | cancelled
    expired -> cancelled

- An active prescription expires by itself after `expires_on`.
- Patient and doctor are those of the visit.
- A signed visit is closed, because its signature confirms what was ordered. A later prescription needs a new
  visit, for example a telephone call. A prescription from before the signature can still be changed,
  dispensed and cancelled, whatever the state of its visit.
- Every new active prescription and every dispensing passes the safety check
  (`services.clinical.medication_safety`). The patient's row is locked during the check. Otherwise two
  prescriptions at the same time could both miss the duplicate.
- The content can change until the first dispensing. Later, cancel it and write a new prescription.
- A medication without a quantity cannot be dispensed, because there is no limit to check.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, and_, bindparam, case, literal, or_, select
from sqlalchemy.orm import joinedload, selectinload

from enums import PrescriptionStatus
from errors import ClinicError, invalid
from extensions import db
from models import Dispensing, Patient, PrescribedMedication, Prescription, Visit
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.clinical import medication_safety, visit_rows
from services.listing import paging
from services.listing.related_rows import in_related, of_doctor, of_patient
from services.listing.spec import Filter, Kind, ListQuery, ListSpec, Page
from services.patients import activity
from services.rows import assign, changed_members, get_or_404
from services.search_key import search_key

Status = PrescriptionStatus
TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    Status.ACTIVE: (Status.COMPLETED, Status.CANCELLED),
    Status.COMPLETED: (),
    Status.CANCELLED: (),
    Status.EXPIRED: (Status.CANCELLED,),
}
MEDICATION_FIELDS = (
    "name",
    "dosage",
    "frequency",
    "route",
    "duration_days",
    "quantity",
    "refills",
    "instructions",
)


class PrescriptionChanges(TypedDict, total=False):
    """The members of a prescription that a change may contain."""

    details: str | None
    medications: Sequence[Mapping[str, Any]]
    status: Status
    issued_at: datetime | None
    expires_on: date | None
    override_reason: str | None
    cancellation_reason: str | None


# --- Reading -------------------------------------------------------------------------------------------


def get(_actor: Actor, prescription_id: int, *, lock: bool = False) -> Prescription:
    """Return the prescription, or raise 404 `not_found`.

    A lock takes the patient's row first, so that the result of the safety check stays valid until commit.
    """
    if lock:
        patient_id = db.session.execute(
            select(Prescription.patient_id).where(Prescription.id == prescription_id)
        ).scalar_one_or_none()
        if patient_id is not None:
            get_or_404(Patient, patient_id, lock=True)
    return get_or_404(Prescription, prescription_id, lock=lock)


def status_on(day: date, status: Status, expires_on: date | None) -> Status:
    """Return the status on a day of the clinic. `expires_on` is the last day of validity."""
    is_over = status is Status.ACTIVE and expires_on is not None and expires_on < day
    return Status.EXPIRED if is_over else status


# `status_on` as SQL. The day is bound when the statement runs.
STATUS_TODAY: ColumnElement[Any] = case(
    (
        and_(
            Prescription.status == Status.ACTIVE,
            Prescription.expires_on
            < bindparam("today", callable_=clock.today, type_=Prescription.expires_on.type),
        ),
        literal(Status.EXPIRED, Prescription.status.type),
    ),
    else_=Prescription.status,
)


def _matches_patient(text: str) -> ColumnElement[bool]:
    return of_patient(Prescription.patient_id, text)


def _matches_doctor(text: str) -> ColumnElement[bool]:
    return of_doctor(Prescription.doctor_id, text)


def _matches_medication(text: str) -> ColumnElement[bool]:
    condition = PrescribedMedication.name.icontains(text, autoescape=True)
    return in_related(Prescription.id, PrescribedMedication.prescription_id, condition)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        _matches_medication(text),
        Prescription.details.icontains(text, autoescape=True),
        _matches_patient(text),
    )


# Related rows that a response contains.
LOAD_OPTIONS = (
    joinedload(Prescription.patient),
    joinedload(Prescription.doctor),
    selectinload(Prescription.medications),
    selectinload(Prescription.dispensings).options(
        joinedload(Dispensing.medication), joinedload(Dispensing.dispensed_by)
    ),
)
LIST: ListSpec[Prescription] = ListSpec(
    name="prescriptions",
    kept_since="created_at",
    model=Prescription,
    area="prescription",
    main_date="issued_at",
    text=_matches,
    options=LOAD_OPTIONS,
    filters={
        "patient_name": Filter(Kind.TEXT, _matches_patient, "Words of the patient's name."),
        "doctor_name": Filter(Kind.TEXT, _matches_doctor, "Words of the doctor's name."),
        "medication": Filter(Kind.TEXT, _matches_medication, "Part of a medication's name."),
    },
    omit=frozenset({"version"}),
    shown={"status": STATUS_TODAY},
)


def find(actor: Actor, query: ListQuery) -> Page[Prescription]:
    """Return one page of prescriptions."""
    return paging.page(actor, LIST, query)


def add_computed_fields(_actor: Actor, rows: Sequence[Prescription]) -> None:
    """Set today's status, and the `unchecked` warnings of active prescriptions; three queries at most."""
    today = clock.today()
    for row in rows:
        row.shown_status = status_on(today, row.status, row.expires_on)
        row.warnings = []
    active = [row for row in rows if row.shown_status is Status.ACTIVE]
    records = medication_safety.load_records({row.patient_id for row in active}) if active else {}
    for row in active:
        names = [medication.name for medication in row.medications]
        row.warnings = (
            medication_safety.find_unchecked(names, records[row.patient_id], row.id)
            if names
            else medication_safety.free_text_warnings()
        )


# --- Prescribing ---------------------------------------------------------------------------------------


def prescribe(
    actor: Actor,
    *,
    visit_id: int,
    details: str | None = None,
    medications: Sequence[Mapping[str, Any]] = (),
    status: Status = Status.ACTIVE,
    issued_at: datetime | None = None,
    expires_on: date | None = None,
    override_reason: str | None = None,
    patient_id: int | None = None,
    doctor_id: int | None = None,
    importing: bool = False,
) -> Prescription:
    """Prescribe medications at an open visit.

    `patient_id` and `doctor_id` are optional and must be those of the visit (422 otherwise). `importing`
    accepts a prescription from another system: with any status, and at a signed visit. Its default
    `issued_at` is the date of the visit. The safety check runs for active prescriptions only.
    Raises 409 `safety_alert` with `alerts` if `override_reason` is missing, 409 `read_only` for a signed or
    voided visit, and 403 `forbidden` for the visit of another doctor.
    """
    visit = _lock_visit(actor, visit_id, importing=importing)
    if patient_id is not None and patient_id != visit.patient_id:
        raise invalid("patient_id", "must be the patient of the visit; leave it out")
    if doctor_id is not None and doctor_id != visit.doctor_id:
        raise invalid("doctor_id", "must be the doctor of the visit; leave it out")
    if status is not Status.ACTIVE and not importing:
        raise invalid("status", "must be active for a new prescription")
    issued_at = issued_at or (visit.date if importing else clock.now())
    activity.require_active(visit.patient, issued_at if importing else None)
    _check_content(details, medications)
    _check_dates(issued_at, expires_on)
    overridden: list[medication_safety.Alert] = []
    if status_on(clock.today(), status, expires_on) is Status.ACTIVE:
        overridden = medication_safety.check(actor, visit.patient_id, _names(medications), override_reason)
    row = Prescription(
        visit=visit,
        patient=visit.patient,
        doctor=visit.doctor,
        details=details,
        medications=[PrescribedMedication(**medication) for medication in medications],
        status=status,
        issued_at=issued_at,
        expires_on=expires_on,
        override_reason=override_reason,
        overridden_alerts=overridden,
    )
    db.session.add(row)
    if overridden:
        audit_log.set_action(row, "override")
    return row


def _lock_visit(actor: Actor, visit_id: int, *, importing: bool) -> Visit:
    """Lock and return the visit of a new prescription with its patient."""
    visit = visit_rows.lock_with_patient(visit_id)
    actor.require_own(visit.doctor_id)
    if visit.voided_at is not None:
        raise ClinicError("read_only", "The visit is voided. Prescribe at another visit.")
    if visit.signed_at is not None and not importing:
        raise ClinicError(
            "read_only",
            "The visit is signed. To prescribe, record a new visit, for example a telephone call.",
        )
    return visit


def _check_content(details: str | None, medications: Sequence[Any]) -> None:
    if not medications and not (details or "").strip():
        raise invalid("medications", "enter at least one medication, or details")


def _check_dates(issued_at: datetime, expires_on: date | None) -> None:
    issued_on = clock.local(issued_at).date()
    if issued_on > clock.today():
        raise invalid("issued_at", "must not be in the future")
    if expires_on is not None and expires_on < issued_on:
        raise invalid("expires_on", "must not be before issued_at")


# --- Changing ------------------------------------------------------------------------------------------


def update(actor: Actor, row: Prescription, **changes: Unpack[PrescriptionChanges]) -> Prescription:
    """Change the content, or end the prescription by `status` completed or cancelled.

    `cancellation_reason` belongs to the status cancelled (422 otherwise). New medications and a new
    `override_reason` run the safety check again. Raises 409 `read_only` for a content change after the first
    dispensing or of an inactive prescription, 409 `invalid_transition` with the allowed statuses, and 409
    `safety_alert`.
    """
    actor.require_own(row.doctor_id)
    status = changes.pop("status", None)
    reason = changes.pop("cancellation_reason", None)
    if reason is not None and status is not Status.CANCELLED:
        raise invalid("cancellation_reason", "is allowed only with the status cancelled")
    content = _changed_content(row, changes)
    if content:
        _change_content(actor, row, content)
    if status is Status.CANCELLED:
        return cancel(actor, row, reason)
    if status is not None and status is not _current_status(row):
        _check_transition(row, status)
        row.status = status
        audit_log.set_action(row, "complete")
    return row


def cancel(actor: Actor, row: Prescription, reason: str | None = None) -> Prescription:
    """Cancel the prescription; it stays visible. Cancelling it again changes nothing.

    Raises 409 `invalid_transition` for a completed prescription.
    """
    actor.require_own(row.doctor_id)
    if row.status is not Status.CANCELLED:
        _check_transition(row, Status.CANCELLED)
        row.status = Status.CANCELLED
        row.cancellation_reason = reason
        audit_log.set_action(row, "cancel")
    return row


def _current_status(row: Prescription) -> Status:
    return status_on(clock.today(), row.status, row.expires_on)


def _check_transition(row: Prescription, new_status: Status) -> None:
    status = _current_status(row)
    allowed = [target.value for target in TRANSITIONS[status]]
    if new_status not in TRANSITIONS[status]:
        targets = ", ".join(allowed) or "nothing"
        raise ClinicError(
            "invalid_transition",
            f"A prescription with the status {status.value} can become: {targets}. "
            "It expires only by expires_on.",
            allowed=allowed,
        )


def _changed_content(row: Prescription, changes: PrescriptionChanges) -> dict[str, Any]:
    content = changed_members(row, changes)
    if "medications" in content:
        new = [_as_stored(medication) for medication in content["medications"]]
        stored = [{name: getattr(item, name) for name in MEDICATION_FIELDS} for item in row.medications]
        if new == stored:
            del content["medications"]
    return content


def _as_stored(medication: Mapping[str, Any]) -> dict[str, Any]:
    return {name: medication.get(name) for name in MEDICATION_FIELDS} | {
        "refills": medication.get("refills", 0)
    }


def _change_content(actor: Actor, row: Prescription, content: dict[str, Any]) -> None:
    if any(medication.dispensed for medication in row.medications):
        raise ClinicError(
            "read_only",
            "Medication of this prescription was dispensed. Cancel it and write a new prescription.",
        )
    status = _current_status(row)
    if status is not Status.ACTIVE:
        raise ClinicError("read_only", f"The prescription is {status.value}. Write a new prescription.")
    if content.get("issued_at", row.issued_at) is None:
        raise invalid("issued_at", "must not be null")
    if "override_reason" in content and content["override_reason"] is None and row.overridden_alerts:
        raise invalid("override_reason", "must not be removed: it overrides safety alerts")
    medications = content.pop("medications", None)
    if medications is not None:
        activity.require_active(row.patient)
    _check_content(
        content.get("details", row.details), row.medications if medications is None else medications
    )
    _check_dates(content.get("issued_at", row.issued_at), content.get("expires_on", row.expires_on))
    reason = content.get("override_reason")
    has_override = False
    if medications is not None or reason:
        names = (
            [medication.name for medication in row.medications]
            if medications is None
            else _names(medications)
        )
        has_override = _check_safety(actor, row, names, reason)
    assign(row, content)
    if medications is not None:
        # New rows have new ids. A client with the old ids cannot dispense a medication that has changed.
        row.medications = [PrescribedMedication(**medication) for medication in medications]
    if has_override:
        audit_log.set_action(row, "override")


def _names(medications: Sequence[Mapping[str, Any]]) -> list[str]:
    return [medication["name"] for medication in medications]


def _check_safety(
    actor: Actor,
    row: Prescription,
    names: Sequence[str],
    reason: str | None,
    only: Collection[str] | None = None,
) -> bool:
    """Run the safety check for a stored prescription. Return True if `reason` overrides new alerts.

    The prescription then stores these alerts and the reason.
    """
    overridden = medication_safety.check(
        actor,
        row.patient_id,
        names,
        reason,
        prescription_id=row.id,
        overridden=row.overridden_alerts,
        only=only,
    )
    if overridden:
        row.overridden_alerts = [*row.overridden_alerts, *overridden]
        row.override_reason = reason
    return bool(overridden)


# --- Dispensing ----------------------------------------------------------------------------------------


def dispense(
    actor: Actor, row: Prescription, *, items: Sequence[Mapping[str, Any]], override_reason: str | None = None
) -> Prescription:
    """Dispense medications: all `items` or nothing.

    An item is `{medication, quantity}`: the id or the name of the medication, and the quantity in its units.
    The safety check runs again for these medications. It ignores alerts that were overridden before.
    Raises 409 `excessive_dispensing` with the remaining quantities, 409 `conflict` if the prescription is
    not active, 409 `safety_alert`, and 403 `forbidden` for an `override_reason` without the permission to
    prescribe.
    """
    actor.require_own(row.doctor_id)
    if actor.user_id is None:
        raise ClinicError("forbidden", "Sign in to dispense medications.")
    quantities = _requested_quantities(row, items)
    _check_remaining(quantities)
    status = _current_status(row)
    if status is not Status.ACTIVE:
        raise ClinicError(
            "conflict", f"Only an active prescription can be dispensed. This one is {status.value}."
        )
    activity.require_active(row.patient)
    names = [medication.name for medication in row.medications]
    has_override = _check_safety(
        actor, row, names, override_reason, {medication.name for medication in quantities}
    )
    for medication, quantity in quantities.items():
        medication.dispensed += quantity
        row.dispensings.append(
            Dispensing(medication=medication, quantity=quantity, dispensed_by_id=actor.user_id)
        )
    if all(medication.remaining == 0 for medication in row.medications):
        row.status = Status.COMPLETED
    audit_log.set_action(row, "override" if has_override else "dispense")
    return row


def _requested_quantities(
    row: Prescription, items: Sequence[Mapping[str, Any]]
) -> dict[PrescribedMedication, int]:
    """Return the quantity of each medication. Several items of one medication are added up."""
    quantities: dict[PrescribedMedication, int] = {}
    for number, item in enumerate(items):
        medication = _find_medication(row, item["medication"], f"items.{number}.medication")
        quantities[medication] = quantities.get(medication, 0) + item["quantity"]
    return quantities


def _find_medication(row: Prescription, id_or_name: int | str, field: str) -> PrescribedMedication:
    text = str(id_or_name)
    matches = [item for item in row.medications if str(item.id) == text] or [
        item for item in row.medications if search_key(item.name) == search_key(text)
    ]
    if len(matches) == 1:
        return matches[0]
    available = ", ".join(f"{item.id} ({item.name})" for item in row.medications) or "no medications"
    if matches:
        raise invalid(field, f"is the name of several medications; send the id of one of them: {available}")
    raise invalid(field, f"is not on this prescription, which contains: {available}")


def _check_remaining(quantities: Mapping[PrescribedMedication, int]) -> None:
    excessive = {
        medication: quantity
        for medication, quantity in quantities.items()
        if medication.remaining is None or quantity > medication.remaining
    }
    if not excessive:
        return
    messages = [
        f"{medication.name} has no prescribed quantity and cannot be dispensed"
        if medication.remaining is None
        else f"{medication.name}: {medication.remaining} remaining, {quantity} requested"
        for medication, quantity in excessive.items()
    ]
    raise ClinicError(
        "excessive_dispensing",
        "; ".join(messages) + ".",
        remaining=[
            {
                "medication_id": medication.id,
                "medication": medication.name,
                "quantity": quantity,
                "dispensed": medication.dispensed,
                "remaining": medication.remaining,
            }
            for medication, quantity in excessive.items()
        ],
    )
