"""Prescriptions: prescribe, change, stop and cancel. `services.clinical.dispensing` dispenses them.

    active -> completed | cancelled
    expired -> cancelled

- An active prescription expires by itself after `expires_on`. A completed one has nothing left to dispense.
- The status says what can be dispensed. `services.clinical.therapy` says how long the patient takes a
  medication. A therapy that is stopped keeps the status of its prescription.
- Patient and doctor are those of the visit.
- A signed visit is closed, because its signature confirms what was ordered. A later prescription needs a new
  visit, for example a telephone call. A prescription from before the signature can still be changed,
  dispensed and cancelled, whatever the state of its visit.
- Every new active prescription and every dispensing passes the safety check
  (`services.clinical.medication_safety`). The patient's row is locked during the check. Otherwise two
  prescriptions at the same time could both miss the duplicate.
- The content can change until the first dispensing. Later, cancel it and write a new prescription.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, and_, bindparam, case, literal, or_, select
from sqlalchemy.orm import joinedload, selectinload

from column_types import is_blank_text
from database.functions import contains_text
from enums import PrescriptionStatus
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Dispensing, Patient, PrescribedMedication, Prescription, Visit
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.clinical import licences, medication_safety, therapy, visit_rows
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.related_rows import (
    doctor_column,
    doctor_filter,
    in_related,
    of_patient,
    patient_column,
    patient_filter,
)
from services.listing.spec import Filter, Kind, ListColumn, ListQuery, ListSpec, Page
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
    "unit",
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


def get(actor: Actor, prescription_id: int, *, lock: bool = False) -> Prescription:
    """Return the prescription, or raise 404 `not_found`, also without emergency access to its patient.

    A lock takes the patient's row first, so that the result of the safety check stays valid until commit.
    """
    if lock:
        patient_id = db.session.execute(
            select(Prescription.patient_id).where(Prescription.id == prescription_id)
        ).scalar_one_or_none()
        if patient_id is not None:
            get_or_404(Patient, patient_id, lock=True)
    row = get_or_404(Prescription, prescription_id, lock=lock)
    if not actor.may(Permission.PRESCRIPTIONS_READ, row.patient_id):
        raise not_found("prescription").about("prescription", row.id, row.patient_id)
    return row


def _visible(actor: Actor) -> ColumnElement[bool] | None:
    """Return the condition that emergency access covers the patient. None for a role that reads all."""
    patients = actor.covered_patients(Permission.PRESCRIPTIONS_READ)
    return None if patients is None else Prescription.patient_id.in_(sorted(patients))


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


def _matches_medication(text: str) -> ColumnElement[bool]:
    condition = words_in(PrescribedMedication.name_fold, text)
    return in_related(Prescription.id, PrescribedMedication.prescription_id, condition)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        _matches_medication(text),
        contains_text(Prescription.details, text),
        of_patient(Prescription.patient_id, text),
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
    scope=_visible,
    options=LOAD_OPTIONS,
    filters={
        "patient_name": patient_filter(Prescription.patient_id),
        "doctor_name": doctor_filter(Prescription.doctor_id),
        "medication": Filter(Kind.TEXT, _matches_medication, "Part of a medication's name."),
    },
    omit=frozenset({"version"}),
    computed={
        "patient_name": patient_column(Prescription.patient_id),
        "doctor_name": doctor_column(Prescription.doctor_id),
        "status": ListColumn(Kind.ENUM, STATUS_TODAY, tuple(Status), nullable=False),
    },
    newest_first=True,
)


def find(actor: Actor, query: ListQuery) -> Page[Prescription]:
    """Return one page of prescriptions."""
    return paging.page(actor, LIST, query)


def add_computed_fields(_actor: Actor, rows: Sequence[Prescription]) -> None:
    """Set today's status, and the warnings of current therapies; three queries at most."""
    for row in rows:
        row.shown_status = current_status(row)
        row.warnings = []
    current = [row for row in rows if _is_current(row)]
    records = medication_safety.load_records({row.patient_id for row in current}) if current else {}
    for row in current:
        row.warnings = medication_safety.find_warnings(
            medication_names(row), records[row.patient_id], row.id, row.details
        )


def current_status(row: Prescription) -> Status:
    """Return the status of today."""
    return status_on(clock.today(), row.status, row.expires_on)


def _is_current(row: Prescription) -> bool:
    """Return True if the prescription can be dispensed, or if the patient takes one of its medications."""
    if row.stopped_at is not None or row.status is Status.CANCELLED:
        return False
    return current_status(row) is Status.ACTIVE or bool(_current_names(row))


def medication_names(row: Prescription) -> list[str]:
    """Return the names of the medications in their order."""
    return [medication.name for medication in row.medications]


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
    stopped: tuple[datetime, str] | None = None,
    importing: bool = False,
) -> Prescription:
    """Prescribe medications at an open visit.

    `patient_id` and `doctor_id` are optional and must be those of the visit (422 otherwise). `importing`
    accepts a prescription from another system: with any status, at a signed visit, and with the instant and
    the reason of a stop in `stopped`. Its default `issued_at` is the date of the visit. The safety check
    runs unless the therapy is over, or the imported status is not active.
    Raises 409 `safety_alert` with `alerts` if `override_reason` is missing, 409 `read_only` for a signed or
    voided visit, and 403 `forbidden` for the visit of another doctor. Raises 409 `conflict` for a doctor who
    is inactive or has no valid licence.
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
    if not importing:
        licences.require_licensed(visit.doctor)
    _check_content(details, medications)
    _check_dates(issued_at, expires_on)
    stopped_at, stop_reason = stopped or (None, None)
    row = Prescription(
        details=details,
        medications=list(map(_to_row, medications)),
        status=status,
        issued_at=issued_at,
        expires_on=expires_on,
        stopped_at=stopped_at,
        stop_reason=stop_reason,
        override_reason=override_reason,
    )
    therapy.set_last_days(row)
    if status is Status.ACTIVE and _is_current(row):
        row.overridden_alerts = medication_safety.check(
            actor, visit.patient_id, medication_names(row), override_reason
        )
    row.visit, row.patient, row.doctor = visit, visit.patient, visit.doctor
    db.session.add(row)
    if row.overridden_alerts:
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
    if not medications and is_blank_text(details or ""):
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

    `cancellation_reason` belongs to the status cancelled (422 otherwise). New medications, new dates and a
    new `override_reason` run the safety check again. Raises 409 `read_only` for a content change after the
    first dispensing or of an inactive prescription, 409 `invalid_transition` with the allowed statuses, and
    409 `safety_alert`.
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
    if status is not None and status is not current_status(row):
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


def stop(actor: Actor, row: Prescription, *, reason: str) -> Prescription:
    """End the therapy before its supply ends. The status stays, and nothing more can be dispensed.

    Raises 409 `conflict` for a therapy that is already stopped, and for a cancelled prescription.
    """
    actor.require_own(row.doctor_id)
    if row.stopped_at is not None:
        raise ClinicError("conflict", "The therapy is already stopped. Read `stopped_at` and `stop_reason`.")
    if row.status is Status.CANCELLED:
        raise ClinicError("conflict", "The prescription is cancelled. This has ended the therapy.")
    row.stopped_at, row.stop_reason = clock.now(), reason
    audit_log.set_action(row, "stop")
    return row


def _check_transition(row: Prescription, new_status: Status) -> None:
    status = current_status(row)
    allowed = [target.value for target in TRANSITIONS[status]]
    if new_status not in TRANSITIONS[status]:
        targets = ", ".join(allowed) or "nothing"
        raise ClinicError(
            "invalid_transition",
            f"A prescription with the status {status.value} can become: {targets}. "
            f"It expires only by expires_on. POST /prescriptions/{row.id}/stop ends the therapy.",
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


def _to_row(medication: Mapping[str, Any]) -> PrescribedMedication:
    return PrescribedMedication(**medication, name_fold=search_key(medication["name"]))


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
    status = current_status(row)
    if status is not Status.ACTIVE or row.stopped_at is not None:
        state = "stopped" if status is Status.ACTIVE else status.value
        raise ClinicError("read_only", f"The prescription is {state}. Write a new prescription.")
    if content.get("issued_at", row.issued_at) is None:
        raise invalid("issued_at", "must not be null")
    if "override_reason" in content and content["override_reason"] is None and row.overridden_alerts:
        raise invalid("override_reason", "must not be removed: it overrides safety alerts")
    medications = content.pop("medications", None)
    if medications is not None:
        activity.require_active(row.patient)
        licences.require_licensed(row.doctor)
    _check_content(
        content.get("details", row.details), row.medications if medications is None else medications
    )
    _check_dates(content.get("issued_at", row.issued_at), content.get("expires_on", row.expires_on))
    reason = content.get("override_reason")
    assign(row, content)
    if medications is not None:
        # New rows have new ids. A client with the old ids cannot dispense a medication that has changed.
        row.medications = list(map(_to_row, medications))
    therapy.set_last_days(row)
    # With a later last day, a therapy is current again. Others may have been prescribed meanwhile.
    continued = None if medications is not None or reason else _current_names(row)
    has_new_dates = bool(content.keys() & {"issued_at", "expires_on"})
    if (continued is None or has_new_dates) and check_safety(actor, row, reason, continued):
        audit_log.set_action(row, "override")


def _current_names(row: Prescription) -> set[str]:
    """Return the names of the medications whose therapy is not over."""
    today = clock.today()
    return {each.name for each in row.medications if not therapy.is_over(each, today)}


def check_safety(
    actor: Actor, row: Prescription, reason: str | None, only: Collection[str] | None = None
) -> bool:
    """Run the safety check for a stored prescription. Return True if `reason` overrides new alerts.

    The prescription then stores these alerts and the reason.
    """
    overridden = medication_safety.check(
        actor,
        row.patient_id,
        medication_names(row),
        reason,
        prescription_id=row.id,
        overridden=row.overridden_alerts,
        only=only,
    )
    if overridden:
        row.overridden_alerts = [*row.overridden_alerts, *overridden]
        row.override_reason = reason
    return bool(overridden)
