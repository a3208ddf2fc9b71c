"""Appointments: booking, moving, cancelling and completing. The booking rules check every booking and move.

Locks are taken in one order: doctors by id, patients by id, then appointments. While a transaction holds the
doctor's row, no other one can book, move or free that doctor's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from sqlalchemy import bindparam, exists, select
from sqlalchemy.orm import aliased
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.exc import StaleDataError

from column_types import is_blank_text
from enums import AppointmentStatus, CancelledBy
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Doctor, Patient, Visit
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.rows import Record, assign, changed_members, get_or_404, get_referenced, lock_rows, no_such_row
from services.scheduling.availability import MAX_DURATION, MIN_DURATION, Interval
from services.scheduling.booking_rules import BookingCheck, BookingRequest, check_booking

SCHEDULED, COMPLETED = AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED
CANCELLED, NO_SHOW = AppointmentStatus.CANCELLED, AppointmentStatus.NO_SHOW
# Permitted status changes. `allowed_transitions` adds time limits: completed from the day of the appointment
# on, no_show only after its start, and from no_show back to scheduled only within `REOPEN_WITHIN`.
TRANSITIONS: dict[AppointmentStatus, tuple[AppointmentStatus, ...]] = {
    SCHEDULED: (COMPLETED, CANCELLED, NO_SHOW),
    NO_SHOW: (COMPLETED, SCHEDULED),
    COMPLETED: (),
    CANCELLED: (),
}
MINUTE = timedelta(minutes=1)
REOPEN_WITHIN = timedelta(days=7)
PAST_STATUSES = (COMPLETED, CANCELLED, NO_SHOW)  # an import may create past appointments with these
TIME_MEMBERS = ("date", "start", "end", "duration")
MOVING_MEMBERS = frozenset({*TIME_MEMBERS, "doctor_id", "patient_id"})
AUDIT_ACTIONS = {COMPLETED: "complete", CANCELLED: "cancel", NO_SHOW: "no_show", SCHEDULED: "reopen"}


# --- Reading -------------------------------------------------------------------------------------------


def get(
    _actor: Actor,
    appointment_id: int,
    *,
    lock: bool = False,
    doctors: Iterable[int] = (),
    patients: Iterable[int] = (),
) -> Appointment:
    """Return the appointment, or raise 404.

    `lock` also locks its doctor and its patient, and the `doctors` and `patients` that it may move to.
    """
    row = get_or_404(Appointment, appointment_id)
    if lock:
        doctor_and_patient = (row.doctor_id, row.patient_id)
        if {*doctors} <= {row.doctor_id} and {*patients} <= {row.patient_id}:
            doctor, patient = _lock_doctor_and_patient(row.doctor_id, row.patient_id)
        else:
            doctor = lock_rows(Doctor, {row.doctor_id, *doctors})[row.doctor_id]
            patient = lock_rows(Patient, {row.patient_id, *patients})[row.patient_id]
        get_or_404(Appointment, appointment_id, lock=True)
        if doctor_and_patient != (row.doctor_id, row.patient_id):
            # another request moved it before the locks were granted: the request is retried
            raise StaleDataError("the appointment moved while its doctor and patient were locked")
        set_committed_value(row, "doctor", doctor)
        set_committed_value(row, "patient", patient)
    return row


_LOCKED_DOCTOR = (
    select(Doctor).where(Doctor.id == bindparam("doctor_id")).with_for_update(key_share=True).cte("doctor")
)
_DOCTOR = aliased(Doctor, _LOCKED_DOCTOR)
# Create the columns now. Threads that run the statement first, at the same time, would each create their own,
# and SQLAlchemy would not find the columns of one in the rows of the other (NoSuchColumnError).
_LOCKED_DOCTOR.c.keys()
# No patient is locked before the row of the doctor is read, and this locks the doctor.
_DOCTOR_AND_PATIENT = (
    select(_DOCTOR, Patient)
    .join_from(_DOCTOR, Patient, Patient.id == bindparam("patient_id"))
    .with_for_update(key_share=True, of=Patient)
    .execution_options(populate_existing=True, prepare=True)
)


def _lock_doctor_and_patient(doctor_id: int, patient_id: int) -> tuple[Doctor, Patient]:
    """Lock the doctor, then the patient, with one statement. Raise 422 for one that does not exist."""
    ids = {"doctor_id": doctor_id, "patient_id": patient_id}
    row = db.session.execute(_DOCTOR_AND_PATIENT, ids).tuples().one_or_none()
    if row is not None:
        return row
    get_referenced(Doctor, doctor_id, "doctor_id")
    raise no_such_row(Patient, "patient_id")


# --- Booking -------------------------------------------------------------------------------------------


class _RequestMembers(TypedDict, total=False):
    date: datetime | None
    start: datetime | None
    end: datetime | None
    duration: int | None
    type: str | None
    reason: str | None
    notes: str | None
    overbook: bool
    overbook_reason: str | None
    status: AppointmentStatus


class NewAppointment(_RequestMembers):
    """Members of a booking: `date` or its alias `start`, and `duration` in minutes or `end`.

    The default duration is the doctor's `slot_minutes`. `overbook` needs `overbook_reason`.
    """

    patient_id: int
    doctor_id: int


def book(actor: Actor, *, importing: bool = False, **members: Unpack[NewAppointment]) -> Appointment:
    """Book an appointment of a patient with a doctor.

    An import may create past appointments with a `status` of `PAST_STATUSES`; all other rules apply to it.
    Raises 409 `appointment_conflict` with all conflicts and, except for an import, the next free times.
    Raises 422 for members that are missing or contradict each other.
    """
    check = _check_new(actor, members, importing=importing)
    check.raise_if_conflicting(suggest=not importing)
    request = check.request
    overbooked = bool(check.overridden_codes)
    row = Appointment(
        patient_id=request.patient.id,
        doctor_id=request.doctor.id,
        start=request.start,
        end=request.end,
        blocked_until=_blocked_until(request.doctor, request.end),
        status=request.status,
        type=members.get("type"),
        reason=members.get("reason"),
        notes=members.get("notes"),
        overbooked=overbooked,
        overbook_reason=members.get("overbook_reason") if overbooked else None,
        created_by_id=actor.user_id,
    )
    db.session.add(row)
    db.session.flush()  # callers need the id, and a violated constraint must raise here
    # not set before: with changed relationships, the flush would visit doctor and patient too
    set_committed_value(row, "doctor", request.doctor)
    set_committed_value(row, "patient", request.patient)
    if importing:
        audit_log.set_action(row, "import")  # not booked: the patient gets no confirmation
    elif overbooked:
        audit_log.set_action(row, "overbook")
    return row


def dry_run(actor: Actor, **members: Unpack[NewAppointment]) -> BookingCheck:
    """Return the booking check of `book` without booking. Raises the same 403 and 422."""
    return _check_new(actor, members, importing=False)


def _check_new(actor: Actor, members: NewAppointment, *, importing: bool) -> BookingCheck:
    actor.require_own(members["doctor_id"])
    overbook = members.get("overbook", False)
    if overbook:
        _check_overbook(actor, members.get("overbook_reason"))
    doctor, patient = _lock_doctor_and_patient(members["doctor_id"], members["patient_id"])
    start, end = _resolve_times(members, doctor.slot_minutes)
    status = members.get("status", SCHEDULED)
    allow_past = importing and status in PAST_STATUSES
    if status is not SCHEDULED and not (allow_past and start < clock.now()):
        raise invalid("status", "must be scheduled for a new appointment")
    return check_booking(
        BookingRequest(doctor, patient, start, end, overbook=overbook, status=status, allow_past=allow_past)
    )


def _check_overbook(actor: Actor, reason: str | None) -> None:
    actor.require(Permission.APPOINTMENTS_OVERBOOK, "Your role may not overbook.")
    if is_blank_text(reason or ""):
        raise invalid("overbook_reason", "is required for overbooking")


def _blocked_until(doctor: Doctor, end: datetime) -> datetime:
    return end + timedelta(minutes=doctor.buffer_minutes)


def _resolve_times(members: Mapping[str, Any], minutes: int, start: datetime | None = None) -> Interval:
    """Return start and end from the `TIME_MEMBERS` of a request; 422 if they are missing or disagree.

    `minutes` is the default duration, `start` the default start.
    """
    date, alias = members.get("date"), members.get("start")
    if date and alias and date != alias:
        raise invalid("start", "must be equal to date; send one of them")
    start = date or alias or start
    if start is None:
        raise invalid("date", "is required")
    end, duration = members.get("end"), members.get("duration")
    if end is None:
        field, length = "duration", timedelta(minutes=minutes if duration is None else duration)
    else:
        field, length = "end", end - start
        if duration is not None and length != timedelta(minutes=duration):
            raise invalid("duration", "must agree with end; send one of them")
        if length % MINUTE:
            raise invalid("end", "must be a whole number of minutes after the start")
    if not timedelta(minutes=MIN_DURATION) <= length <= timedelta(minutes=MAX_DURATION):
        raise invalid(field, f"an appointment takes {MIN_DURATION} to {MAX_DURATION} minutes")
    return start, start + length


# --- Changing ------------------------------------------------------------------------------------------


class AppointmentChanges(_RequestMembers, total=False):
    """Members of a change of an appointment; absent ones stay as they are."""

    patient_id: int
    doctor_id: int
    status_reason: str | None
    cancellation_reason: str | None
    cancelled_by: CancelledBy | None


@dataclass(frozen=True)
class CheckedChange:
    """A valid change: the members to set, the booking check of a moved time, and the audit action."""

    values: dict[str, Any]
    check: BookingCheck | None
    action: str | None


def update(actor: Actor, row: Appointment, **changes: Unpack[AppointmentChanges]) -> Appointment:
    """Change the given members of an appointment. A new start alone keeps the duration.

    Raises 409 `invalid_transition` with the allowed statuses, 409 `appointment_conflict` like `book`, and
    422 for members that contradict each other.
    """
    change = _check_change(actor, row, changes)
    if change.check is not None:
        change.check.raise_if_conflicting()
        move(row, change.check, changes.get("overbook_reason") or row.overbook_reason)
    assign(row, change.values)
    if change.action is not None:
        audit_log.set_action(row, change.action)
    db.session.flush()  # a violated constraint must raise here, inside the service
    return row


def dry_run_update(
    actor: Actor, row: Appointment, **changes: Unpack[AppointmentChanges]
) -> BookingCheck | None:
    """Return the booking check of `update` without changing anything; None if nothing about time changes."""
    return _check_change(actor, row, changes).check


def _check_change(actor: Actor, row: Appointment, changes: AppointmentChanges) -> CheckedChange:
    actor.require_own(row.doctor_id)
    values: dict[str, Any] = dict(changes)
    overbook, overbook_reason = values.pop("overbook", False), values.pop("overbook_reason", None)
    if overbook:
        _check_overbook(actor, overbook_reason)
    for name in values.keys() & MOVING_MEMBERS:
        if values[name] is None:
            raise invalid(name, "must not be null")
    values = changed_members(row, values)
    if values.get("date") == row.start:
        del values["date"]
    target = values.get("status", row.status)
    if target is not row.status:
        _check_transition(row, target)
        if target is CANCELLED:
            values["cancelled_at"] = clock.now()
    moving = values.keys() & MOVING_MEMBERS
    _check_members(row, values, target, moving)
    check = None
    if moving:
        check = _check_move(actor, row, values, overbook)
    elif row.status is NO_SHOW and target is COMPLETED:
        check = _check_late_completion(row, overbook)
    action = AUDIT_ACTIONS[target] if target is not row.status else None
    if check is not None:
        if check.overridden_codes and overbook:
            action = "overbook"
        elif action is None:
            action = "reschedule" if check.request.doctor.id == row.doctor_id else "reassign"
    return CheckedChange(
        {name: value for name, value in values.items() if name not in MOVING_MEMBERS}, check, action
    )


def _check_members(
    row: Appointment, values: dict[str, Any], target: AppointmentStatus, moving: set[str]
) -> None:
    """Raise 422 or 409 for members that the target status does not permit."""
    if moving and target is not SCHEDULED:
        if target is row.status:
            _require_scheduled(row, "moved")
        raise invalid("status", "cannot change together with the time, the doctor or the patient")
    if row.status is NO_SHOW and target is SCHEDULED:
        if not moving & {"date", "start"}:
            raise invalid("date", "is required to book a missed appointment again")
        values["status_reason"] = values.get("status_reason") or values.get("reason")
        if not values["status_reason"]:
            raise invalid("status_reason", "is required to book a missed appointment again")
    for name in ("cancellation_reason", "cancelled_by"):
        if name in values and target is not CANCELLED:
            raise invalid(name, "is allowed only with the status cancelled")


def _check_move(actor: Actor, row: Appointment, values: dict[str, Any], overbook: bool) -> BookingCheck:
    doctor_id, patient_id = values.get("doctor_id", row.doctor_id), values.get("patient_id", row.patient_id)
    actor.require_own(doctor_id)
    doctor, patient = row.doctor, row.patient  # locked by `get`
    if doctor_id != row.doctor_id:
        doctor = get_referenced(Doctor, doctor_id, "doctor_id", lock=True)
    if patient_id != row.patient_id:
        patient = get_referenced(Patient, patient_id, "patient_id", lock=True)
    start, end = _resolve_times(values, row.duration, row.start)
    return check_booking(BookingRequest(doctor, patient, start, end, appointment=row, overbook=overbook))


def _check_late_completion(row: Appointment, overbook: bool) -> BookingCheck:
    """Check a missed appointment that is completed late: others could book its time meanwhile.

    If it was overbooked at first, it may still overlap other appointments.
    """
    return check_booking(
        BookingRequest(
            row.doctor,
            row.patient,
            row.start,
            row.end,
            appointment=row,
            overbook=overbook or row.overbooked,
            allow_past=True,
            overlaps_only=True,
        )
    )


def move(row: Appointment, check: BookingCheck, overbook_reason: str | None) -> None:
    """Set doctor, patient and time of a checked request. The reason is stored only if it is overbooked."""
    request = check.request
    if request.start != row.start:
        row.checked_in_at = row.confirmed_at = None
        row.previous_start = row.start
        row.rescheduled_at = clock.now()
        row.reschedule_count += 1
    row.confirmed_at = row.confirmed_at if request.patient.id == row.patient_id else None
    row.doctor_id, row.patient_id = request.doctor.id, request.patient.id
    row.doctor, row.patient = request.doctor, request.patient
    row.start, row.end = request.start, request.end
    row.blocked_until = _blocked_until(request.doctor, request.end)
    row.overbooked = bool(check.overridden_codes)
    row.overbook_reason = overbook_reason if row.overbooked else None


# --- Status --------------------------------------------------------------------------------------------


def allowed_transitions(row: Appointment | Record) -> list[str]:
    """Return the statuses that the appointment can change to now."""
    now = clock.now()
    statuses = list(TRANSITIONS[row.status])
    if COMPLETED in statuses and _is_before_its_day(row):
        statuses.remove(COMPLETED)
    if NO_SHOW in statuses and now < row.start:
        statuses.remove(NO_SHOW)
    if row.status is NO_SHOW and now > row.start + REOPEN_WITHIN:
        statuses.remove(SCHEDULED)
    return [status.value for status in statuses]


def _is_before_its_day(row: Appointment | Record) -> bool:
    return row.start > clock.now() and clock.local(row.start).date() > clock.today()


def _check_transition(row: Appointment, target: AppointmentStatus) -> None:
    if target.value not in allowed_transitions(row):
        when = " before its day" if target is COMPLETED and _is_before_its_day(row) else ""
        raise _invalid_transition(row, f"The appointment is {row.status} and cannot become {target}{when}.")


def _require_scheduled(row: Appointment, change: str) -> None:
    if row.status is not SCHEDULED:
        message = f"The appointment is {row.status}: only a scheduled one can be {change}."
        raise _invalid_transition(row, message)


def _invalid_transition(row: Appointment, message: str) -> ClinicError:
    allowed = allowed_transitions(row)
    hint = f"It can become {' or '.join(allowed)}." if allowed else "This status is final."
    return ClinicError("invalid_transition", f"{message} {hint}", allowed=allowed)


def cancel(
    actor: Actor,
    row: Appointment,
    *,
    cancellation_reason: str | None = None,
    cancelled_by: CancelledBy | None = None,
) -> Appointment:
    """Cancel an appointment. Its time is free at once; the row is kept.

    Raises 409 `invalid_transition` unless it is scheduled.
    """
    actor.require_own(row.doctor_id)
    return _cancel(row, cancellation_reason, cancelled_by)


def cancel_for_clinic(row: Appointment, cancellation_reason: str) -> Appointment:
    """Cancel an appointment of any doctor that cannot take place. The caller holds the locks."""
    return _cancel(row, cancellation_reason, CancelledBy.CLINIC)


def _cancel(
    row: Appointment, cancellation_reason: str | None, cancelled_by: CancelledBy | None
) -> Appointment:
    _check_transition(row, CANCELLED)
    row.status, row.cancelled_at = CANCELLED, clock.now()
    row.cancellation_reason, row.cancelled_by = cancellation_reason, cancelled_by
    audit_log.set_action(row, "cancel")
    return row


def undo_import(row: Appointment, reason: str) -> None:
    """Cancel an imported appointment of any status, without a message to the patient.

    The caller holds its lock. Raises 409 `in_use` if it has a visit.
    """
    if db.session.execute(select(exists().where(Visit.appointment_id == row.id))).scalar_one():
        raise ClinicError("in_use", "The appointment has a visit.")
    if row.status is not CANCELLED:
        row.status, row.cancelled_at = CANCELLED, clock.now()
        row.cancellation_reason, row.cancelled_by = reason, CancelledBy.CLINIC
    audit_log.set_action(row, "undo_import")


def confirm(row: Appointment) -> Appointment:
    """Record that the patient confirmed the appointment; a second call keeps the first time.

    The caller has checked that the patient answers. Raises 409 `invalid_transition` unless it is scheduled.
    """
    _require_scheduled(row, "confirmed")
    if row.confirmed_at is None:
        row.confirmed_at = clock.now()
        audit_log.set_action(row, "confirm")
    return row


def check_in(actor: Actor, row: Appointment) -> Appointment:
    """Record the arrival of the patient; a second call keeps the first time.

    Raises 409 `invalid_transition` unless it is scheduled, and before its day.
    """
    actor.require_own(row.doctor_id)
    _require_scheduled(row, "checked in")
    if _is_before_its_day(row):
        raise _invalid_transition(row, "The patient can be checked in on the day of the appointment.")
    if row.checked_in_at is None:
        row.checked_in_at = clock.now()
        audit_log.set_action(row, "check_in")
    return row


def complete(_actor: Actor, row: Appointment) -> None:
    """Complete an appointment. The caller holds its lock from `get(lock=True)`.

    A completed one does not change. Raises 409 `invalid_transition` before its day, and for a missed one 409
    `appointment_conflict` if its time was booked meanwhile.
    """
    if row.status is COMPLETED and not _is_before_its_day(row):
        return
    _check_transition(row, COMPLETED)
    if row.status is NO_SHOW:
        check = _check_late_completion(row, overbook=False)
        check.raise_if_conflicting()
        move(row, check, row.overbook_reason)
    row.status = COMPLETED
    audit_log.set_action(row, "complete")
