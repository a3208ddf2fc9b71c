"""Prescriptions: ordering medicine, changing, cancelling, handing it out.

    active -> completed | cancelled; it expires by itself after `expires_on`
    expired -> cancelled

- Patient and doctor are the visit's. A signed visit is closed: its signature says what was ordered, so a
  later prescription belongs to a visit of its own, be it a telephone call. What was prescribed before the
  signature keeps its own life: it is changed, handed out and cancelled whatever became of the visit.
- Every way into force and every handing-out passes `services.clinical.medication_safety`.
  The patient's row is locked meanwhile, so that two prescriptions at once cannot both miss each other.
- What is ordered can change until the first of it is handed out; after that cancel and write anew.
- Only what has a quantity can be handed out: without one nobody could say when it is too much.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, literal, or_, select
from sqlalchemy.orm import joinedload, selectinload

from enums import PrescriptionStatus
from errors import ClinicError, invalid
from extensions import db
from models import Dispensing, Patient, PrescribedMedication, Prescription, Visit
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.clinical import medication_safety
from services.clinical.medication_safety import Alert, Chart
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
)
from services.listing.related_rows import in_related, of_doctor, of_patient
from services.rows import (
    assign,
    changed_members,
    get_or_404,
    get_referenced,
)
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


# --- Reading -------------------------------------------------------------------------------------------


def get(actor: Actor, prescription_id: int, *, lock: bool = False) -> Prescription:
    """The prescription, or 404. A lock takes the patient first: the gate's judgement holds until the end."""
    if lock:
        patient_id = db.session.execute(
            select(Prescription.patient_id).where(Prescription.id == prescription_id)
        ).scalar_one_or_none()
        if patient_id is not None:
            get_or_404(Patient, patient_id, lock=True)
    return get_or_404(Prescription, prescription_id, lock=lock)


def status_on(day: date, status: Status, expires_on: date | None) -> Status:
    """The status as of a day of the clinic: an active one is valid through `expires_on`."""
    over = status is Status.ACTIVE and expires_on is not None and expires_on < day
    return Status.EXPIRED if over else status


# The same as `status_on`, for the database. The day is asked for when the statement runs.
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


def _of_patient(text: str) -> ColumnElement[bool]:
    return of_patient(Prescription.patient_id, text)


def _of_doctor(text: str) -> ColumnElement[bool]:
    return of_doctor(Prescription.doctor_id, text)


def _of_medication(text: str) -> ColumnElement[bool]:
    named = PrescribedMedication.name.icontains(text, autoescape=True)
    return in_related(Prescription.id, PrescribedMedication.prescription_id, named)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(_of_medication(text), Prescription.details.icontains(text, autoescape=True), _of_patient(text))


# What a shown prescription needs beside its own row.
NEIGHBOURS = (
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
    options=NEIGHBOURS,
    filters={
        "patient_name": Filter(Kind.TEXT, _of_patient, "Words of the patient's name."),
        "doctor_name": Filter(Kind.TEXT, _of_doctor, "Words of the doctor's name."),
        "medication": Filter(Kind.TEXT, _of_medication, "A part of a medication's name."),
    },
    omit=frozenset({"version"}),
    shown={"status": STATUS_TODAY},
)


def find(actor: Actor, query: ListQuery) -> Page[Prescription]:
    """One page of prescriptions."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Prescription]) -> None:
    """The status as of today, and for those in force what the gate cannot check; three queries at most."""
    today = clock.today()
    for row in rows:
        row.shown_status = status_on(today, row.status, row.expires_on)
    in_force = [row for row in rows if row.shown_status is Status.ACTIVE]
    charts = medication_safety.charts({row.patient_id for row in in_force}) if in_force else {}
    for row in rows:
        row.warnings = []
    for row in in_force:
        names = [medication.name for medication in row.medications]
        row.warnings = (
            medication_safety.unchecked(names, charts[row.patient_id], row.id)
            if names
            else medication_safety.unchecked_text()
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
    """Order medicine at an open visit. `patient_id` and `doctor_id` only say what the visit must agree with.

    `importing` brings in what happened elsewhere: at a signed visit too, issued with it unless told
    otherwise, in any status; the gate judges what is still in force.
    Raises 409 `safety_alert` with `alerts` unless `override_reason` passes them, 409 `read_only` for a
    closed visit, 403 for another doctor's.
    """
    visit = _visit(actor, visit_id, importing=importing)
    for field, named, wanted in (
        ("patient_id", patient_id, visit.patient_id),
        ("doctor_id", doctor_id, visit.doctor_id),
    ):
        if named is not None and named != wanted:
            raise invalid(field, "is not the visit's; leave it out")
    if status is not Status.ACTIVE and not importing:
        raise invalid("status", "a new prescription is active")
    issued_at = issued_at or (visit.date if importing else clock.now())
    _check_content(details, medications)
    _check_days(issued_at, expires_on)
    passed: list[Alert] = []
    if status_on(clock.today(), status, expires_on) is Status.ACTIVE:
        passed = medication_safety.check(
            actor, _chart(visit.patient_id), _names(medications), override_reason
        )
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
        overridden_alerts=passed,
    )
    db.session.add(row)
    if passed:
        audit_log.set_action(row, "override")
    return row


def _visit(actor: Actor, visit_id: int, *, importing: bool) -> Visit:
    """The visit to prescribe at, held together with its patient; in the order in which all take them."""
    patient_id = db.session.execute(select(Visit.patient_id).where(Visit.id == visit_id)).scalar_one_or_none()
    if patient_id is not None:
        get_or_404(Patient, patient_id, lock=True)
    visit = get_referenced(Visit, visit_id, "visit_id", lock=True)
    actor.require_own(visit.doctor_id)
    if visit.voided_at is not None:
        raise ClinicError("read_only", "The visit is void; prescribe at another one.")
    if visit.signed_at is not None and not importing:
        raise ClinicError(
            "read_only", "The visit is signed; record a new visit, such as a telephone call, to prescribe."
        )
    return visit


def _chart(patient_id: int) -> Chart:
    return medication_safety.charts([patient_id])[patient_id]


def _check_content(details: str | None, medications: Sequence[Any]) -> None:
    if not medications and not (details or "").strip():
        raise invalid("medications", "name at least one, or write details")


def _check_days(issued_at: datetime, expires_on: date | None) -> None:
    issued_on = clock.local(issued_at).date()
    if issued_on > clock.today():
        raise invalid("issued_at", "must not be in the future")
    if expires_on is not None and expires_on < issued_on:
        raise invalid("expires_on", "must not be before issued_at")


# --- Changing ------------------------------------------------------------------------------------------


def update(actor: Actor, row: Prescription, **values: Any) -> Prescription:
    """Change what is ordered, or end it by `status` completed or cancelled (with `cancellation_reason`).

    New medications, and a new `override_reason`, are judged by the gate again. Raises 409 `read_only` once
    anything is handed out or the prescription is no longer active, `invalid_transition` naming what is
    allowed, `safety_alert`.
    """
    actor.require_own(row.doctor_id)
    status = values.pop("status", None)
    reason = values.pop("cancellation_reason", None)
    if reason is not None and status is not Status.CANCELLED:
        raise invalid("cancellation_reason", "goes with the status cancelled")
    content = _real_changes(row, values)
    if content:
        _change_content(actor, row, content)
    if status is Status.CANCELLED:
        return cancel(actor, row, reason)
    if status is not None and status is not _status(row):
        _step(row, status)
        row.status = status
        audit_log.set_action(row, "complete")
    return row


def cancel(actor: Actor, row: Prescription, reason: str | None = None) -> Prescription:
    """Take the prescription out of force; it stays visible. Raises 409 `invalid_transition`."""
    actor.require_own(row.doctor_id)
    if row.status is not Status.CANCELLED:
        _step(row, Status.CANCELLED)
        row.status = Status.CANCELLED
        row.cancellation_reason = reason
        audit_log.set_action(row, "cancel")
    return row


def _status(row: Prescription) -> Status:
    return status_on(clock.today(), row.status, row.expires_on)


def _step(row: Prescription, wanted: Status) -> None:
    status = _status(row)
    allowed = [step.value for step in TRANSITIONS[status]]
    if wanted not in TRANSITIONS[status]:
        shown = ", ".join(allowed) or "nothing"
        raise ClinicError(
            "invalid_transition",
            f"From {status.value} the status can become {shown}; it expires by expires_on alone.",
            allowed=allowed,
        )


def _real_changes(row: Prescription, values: Mapping[str, Any]) -> dict[str, Any]:
    found = changed_members(row, values)
    if "medications" in found:
        wanted = [_as_stored(medication) for medication in found["medications"]]
        stored = [{name: getattr(one, name) for name in MEDICATION_FIELDS} for one in row.medications]
        if wanted == stored:
            del found["medications"]
    return found


def _as_stored(medication: Mapping[str, Any]) -> dict[str, Any]:
    return {name: medication.get(name) for name in MEDICATION_FIELDS} | {
        "refills": medication.get("refills", 0)
    }


def _change_content(actor: Actor, row: Prescription, content: dict[str, Any]) -> None:
    if any(medication.dispensed for medication in row.medications):
        raise ClinicError(
            "read_only", "Something of it has been handed out; cancel it and write a new prescription."
        )
    if _status(row) is not Status.ACTIVE:
        raise ClinicError("read_only", f"It is {_status(row).value}; write a new prescription.")
    if content.get("issued_at", row.issued_at) is None:
        raise invalid("issued_at", "cannot be cleared")
    if "override_reason" in content and content["override_reason"] is None and row.overridden_alerts:
        raise invalid("override_reason", "stays: alerts were passed with it")
    medications = content.pop("medications", None)
    _check_content(
        content.get("details", row.details), row.medications if medications is None else medications
    )
    _check_days(content.get("issued_at", row.issued_at), content.get("expires_on", row.expires_on))
    reason = content.get("override_reason")
    passed = False
    if medications is not None or reason:
        names = [one.name for one in row.medications] if medications is None else _names(medications)
        passed = _judge(actor, row, names, reason)
    assign(row, content)
    if medications is not None:
        # new rows with new ids: who read the old ones must not hand out by them what has changed since
        row.medications = [PrescribedMedication(**medication) for medication in medications]
    if passed:
        audit_log.set_action(row, "override")


def _names(medications: Sequence[Mapping[str, Any]]) -> list[str]:
    return [medication["name"] for medication in medications]


def _judge(
    actor: Actor,
    row: Prescription,
    names: Sequence[str],
    reason: str | None,
    concerning: Collection[str] | None = None,
) -> bool:
    """Ask the gate about a stored prescription; whether `reason` passed new alerts, which it then keeps."""
    passed = medication_safety.check(
        actor,
        _chart(row.patient_id),
        names,
        reason,
        prescription_id=row.id,
        passed=row.overridden_alerts,
        concerning=concerning,
    )
    if passed:
        row.overridden_alerts = [*row.overridden_alerts, *passed]
        row.override_reason = reason
    return bool(passed)


# --- Handing out ---------------------------------------------------------------------------------------


def dispense(
    actor: Actor, row: Prescription, *, items: Sequence[Mapping[str, Any]], override_reason: str | None = None
) -> Prescription:
    """Hand out medicine: `items` of `{medication, quantity}`, the medication by id or name, in its units.

    An alert that was overridden does not stop it, a new one does, unless a doctor gives a reason. All is
    handed out or nothing. Raises 409 `excessive_dispensing` with what is left of each, `conflict` where it
    is not active, `safety_alert`; 403 for who passes that without the right to prescribe.
    """
    actor.require_own(row.doctor_id)
    if actor.user_id is None:
        raise ClinicError("forbidden", "Only somebody signed in hands out medicine.")
    wanted = _wanted(row, items)
    _check_rest(wanted)
    if _status(row) is not Status.ACTIVE:
        raise ClinicError(
            "conflict", f"Only an active prescription is dispensed; it is {_status(row).value}."
        )
    names = [medication.name for medication in row.medications]
    passed = _judge(actor, row, names, override_reason, {medication.name for medication in wanted})
    for medication, quantity in wanted.items():
        medication.dispensed += quantity
        row.dispensings.append(
            Dispensing(medication=medication, quantity=quantity, dispensed_by_id=actor.user_id)
        )
    if all(medication.remaining == 0 for medication in row.medications):
        row.status = Status.COMPLETED
    audit_log.set_action(row, "override" if passed else "dispense")
    return row


def _wanted(row: Prescription, items: Sequence[Mapping[str, Any]]) -> dict[PrescribedMedication, int]:
    """How much of each medication is asked for; one named twice is added up."""
    wanted: dict[PrescribedMedication, int] = {}
    for number, item in enumerate(items):
        medication = _named(row, item["medication"], f"items.{number}.medication")
        wanted[medication] = wanted.get(medication, 0) + item["quantity"]
    return wanted


def _named(row: Prescription, named: int | str, field: str) -> PrescribedMedication:
    by_id = [one for one in row.medications if str(one.id) == str(named)]
    found = by_id or [one for one in row.medications if search_key(one.name) == search_key(str(named))]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{one.id} ({one.name})" for one in row.medications) or "no medications"
    if found:
        raise invalid(field, f"several have this name; name one by its id: {shown}")
    raise invalid(field, f"is not on this prescription; it has {shown}")


def _check_rest(wanted: Mapping[PrescribedMedication, int]) -> None:
    over = {one: asked for one, asked in wanted.items() if one.remaining is None or asked > one.remaining}
    if not over:
        return
    told = [
        f"{one.name} has no prescribed quantity, so that none can be handed out"
        if one.remaining is None
        else f"{one.remaining} of {one.name} are left, {asked} were asked for"
        for one, asked in over.items()
    ]
    raise ClinicError(
        "excessive_dispensing",
        "; ".join(told) + ".",
        remaining=[
            {
                "medication_id": one.id,
                "medication": one.name,
                "quantity": asked,
                "dispensed": one.dispensed,
                "remaining": one.remaining,
            }
            for one, asked in over.items()
        ],
    )
