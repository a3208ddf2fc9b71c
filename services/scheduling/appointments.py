"""Appointments: booking, moving, cancelling, and how they end. Every path into the calendar asks the judge.

Locks are taken in one order: doctors by id, patients by id, then appointments. With the doctor's row held
nobody else can book, move or free that doctor's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm.exc import StaleDataError

from enums import AppointmentStatus, CancelledBy
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Doctor, Patient
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.rows import (
    Record,
    assign,
    changed_members,
    get_or_404,
    get_referenced,
    lock_rows,
)
from services.scheduling.availability import LONGEST, SHORTEST, Interval
from services.scheduling.booking_rules import BookingCheck, BookingRequest, check_booking

SCHEDULED, COMPLETED = AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED
CANCELLED, NO_SHOW = AppointmentStatus.CANCELLED, AppointmentStatus.NO_SHOW
# What an appointment can become. Missed only after its start; booked again within `REOPEN_WITHIN`.
TRANSITIONS: dict[AppointmentStatus, tuple[AppointmentStatus, ...]] = {
    SCHEDULED: (COMPLETED, CANCELLED, NO_SHOW),
    NO_SHOW: (COMPLETED, SCHEDULED),
    COMPLETED: (),
    CANCELLED: (),
}
MINUTE = timedelta(minutes=1)
REOPEN_WITHIN = timedelta(days=7)
PAST = (COMPLETED, CANCELLED, NO_SHOW)  # what an import may bring in from the past
TIMES = ("date", "start", "end", "duration")
MOVES = frozenset({*TIMES, "doctor_id", "patient_id"})
MEANINGS = {COMPLETED: "complete", CANCELLED: "cancel", NO_SHOW: "no_show", SCHEDULED: "reopen"}


# --- Finding -------------------------------------------------------------------------------------------


def get(
    actor: Actor,
    appointment_id: int,
    *,
    lock: bool = False,
    doctors: Iterable[int] = (),
    patients: Iterable[int] = (),
) -> Appointment:
    """The appointment or 404. `lock` holds its doctor and patient too, and those it is about to move to."""
    row = get_or_404(Appointment, appointment_id)
    if lock:
        neighbours = (row.doctor_id, row.patient_id)
        lock_rows(Doctor, {row.doctor_id, *doctors})
        lock_rows(Patient, {row.patient_id, *patients})
        get_or_404(Appointment, appointment_id, lock=True)
        if neighbours != (row.doctor_id, row.patient_id):
            raise StaleDataError("the appointment moved while its neighbours were locked")  # begin again
    return row


def future_of_patient(patient_id: int) -> list[Appointment]:
    """The patient's scheduled appointments that have not begun, soonest first."""
    return list(
        db.session.execute(
            select(Appointment)
            .where(
                Appointment.patient_id == patient_id,
                Appointment.status == SCHEDULED,
                Appointment.start > clock.now(),
            )
            .order_by(Appointment.start, Appointment.id)
        ).scalars()
    )


# --- Booking -------------------------------------------------------------------------------------------


def book(actor: Actor, *, importing: bool = False, **values: Any) -> Appointment:
    """Book a patient's time with a doctor.

    `patient_id`, `doctor_id`; `date` or `start`; `duration` (minutes) or `end`, by default the doctor's slot;
    `type`, `reason`, `notes`; `overbook` with `overbook_reason`. An import may bring past ones in as
    completed, cancelled or missed (`status`); every other rule judges them.
    Raises 409 `appointment_conflict` with every clash and the next free times (not sought for an import).
    """
    verdict = _propose(actor, importing, values)
    verdict.insist(offer=not importing)
    asked, why = verdict.proposal, values.pop("overbook_reason", None)
    row = Appointment(
        patient=asked.patient,
        doctor=asked.doctor,
        start=asked.start,
        end=asked.end,
        blocked_until=_blocked_until(asked.doctor, asked.end),
        overbooked=bool(verdict.passed),
        overbook_reason=why if verdict.passed else None,
        created_by_id=actor.user_id,
        **values,
    )
    db.session.add(row)
    db.session.flush()
    if row.overbooked:
        audit_log.set_action(row, "overbook")
    return row


def dry_run(actor: Actor, **values: Any) -> BookingCheck:
    """The judgement that `book` would give, with the same refusals of what is unreadable; books nothing."""
    return _propose(actor, False, values)


def _propose(actor: Actor, importing: bool, values: dict[str, Any]) -> BookingCheck:
    """Judge a booking, taking out of `values` what the proposal holds."""
    doctor_id, patient_id = values.pop("doctor_id"), values.pop("patient_id")
    actor.require_own(doctor_id)
    overbook = values.pop("overbook", False)
    if overbook:
        _check_overbook(actor, values.get("overbook_reason"))
    doctor = get_referenced(Doctor, doctor_id, "doctor_id", lock=True)
    patient = get_referenced(Patient, patient_id, "patient_id", lock=True)
    start, end = _when({name: values.pop(name, None) for name in TIMES}, doctor.slot_minutes)
    status = values.setdefault("status", SCHEDULED)
    past = importing and status in PAST
    if status is not SCHEDULED and not (past and start < clock.now()):
        raise invalid("status", "a new appointment is scheduled")
    return check_booking(
        BookingRequest(doctor, patient, start, end, overbook=overbook, status=status, past=past)
    )


def _check_overbook(actor: Actor, why: str | None) -> None:
    actor.require(Permission.APPOINTMENTS_OVERBOOK, "Your role may not overbook.")
    if not why or not why.strip():
        raise invalid("overbook_reason", "is required for overbooking")


def _blocked_until(doctor: Doctor, end: datetime) -> datetime:
    return end + timedelta(minutes=doctor.buffer_minutes)


def _when(times: Mapping[str, Any], minutes: int, start: datetime | None = None) -> Interval:
    """The time that the members name, 422 where they disagree.

    `times` holds some of `TIMES`, None where it is not given; `start` and `minutes` are what it is otherwise.
    """
    given, alias = times.get("date"), times.get("start")
    if given and alias and given != alias:
        raise invalid("start", "disagrees with date")
    start = given or alias or start
    if start is None:
        raise invalid("date", "is required")
    end, duration = times.get("end"), times.get("duration")
    if end is None:
        field, length = "duration", timedelta(minutes=minutes if duration is None else duration)
    else:
        field, length = "end", end - start
        if duration is not None and length != timedelta(minutes=duration):
            raise invalid("duration", "disagrees with end")
        if length % timedelta(minutes=1):
            raise invalid("end", "must be a whole number of minutes after the start")
    if not timedelta(minutes=SHORTEST) <= length <= timedelta(minutes=LONGEST):
        raise invalid(field, f"an appointment takes {SHORTEST} to {LONGEST} minutes")
    return start, start + length


# --- Changing ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A change that may be made: the members to set, and the judgement where it is about time."""

    values: dict[str, Any]
    verdict: BookingCheck | None
    meaning: str | None


def update(actor: Actor, row: Appointment, **values: Any) -> Appointment:
    """Change the members given. A new start alone keeps the duration.

    Raises 409 `invalid_transition` naming the allowed steps, 409 `appointment_conflict` like `book`.
    """
    why = values.get("overbook_reason")
    plan = _plan(actor, row, values)
    if plan.verdict is not None:
        plan.verdict.insist()
        move(row, plan.verdict, why or row.overbook_reason)
    assign(row, plan.values)
    if plan.meaning is not None:
        audit_log.set_action(row, plan.meaning)
    db.session.flush()  # the database's last word, while the row is at hand
    return row


def dry_run_update(actor: Actor, row: Appointment, **values: Any) -> BookingCheck | None:
    """The judgement that `update` would give; None where the change is not about time. Changes nothing."""
    return _plan(actor, row, values).verdict


def _plan(actor: Actor, row: Appointment, values: dict[str, Any]) -> Plan:
    actor.require_own(row.doctor_id)
    overbook, why = values.pop("overbook", False), values.pop("overbook_reason", None)
    if overbook:
        _check_overbook(actor, why)
    for name in values.keys() & MOVES:
        if values[name] is None:
            raise invalid(name, "must not be null")
    values = changed_members(row, values)
    if values.get("date") == row.start:
        del values["date"]
    target = values.get("status", row.status)
    if target is not row.status:
        _check_step(row, target)
    moves = values.keys() & MOVES
    _check_members(row, values, target, moves)
    verdict = None
    if moves:
        verdict = _judge_move(actor, row, values, overbook)
    elif row.status is NO_SHOW and target is COMPLETED:
        verdict = _judge_late(row, overbook)
    meaning = MEANINGS[target] if target is not row.status else None
    if verdict is not None:
        if verdict.passed and overbook:
            meaning = "overbook"
        elif meaning is None:
            meaning = "reschedule" if verdict.proposal.doctor.id == row.doctor_id else "reassign"
    return Plan({name: value for name, value in values.items() if name not in MOVES}, verdict, meaning)


def _check_members(
    row: Appointment, values: dict[str, Any], target: AppointmentStatus, moves: set[str]
) -> None:
    """422 or 409 for members that do not go together with the status."""
    if moves and target is not SCHEDULED:
        if target is row.status:
            raise _not_allowed(row, f"The appointment is {row.status}: only a scheduled one can be moved.")
        raise invalid("status", "cannot change together with the time, the doctor or the patient")
    if row.status is NO_SHOW and target is SCHEDULED:
        if not moves & {"date", "start"}:
            raise invalid("date", "is required to book a missed appointment again")
        values["status_reason"] = values.get("status_reason") or values.get("reason")
        if not values["status_reason"]:
            raise invalid("status_reason", "is required to book a missed appointment again")
    for name in ("cancellation_reason", "cancelled_by"):
        if name in values and target is not CANCELLED:
            raise invalid(name, "goes with the status cancelled only")


def _judge_move(actor: Actor, row: Appointment, values: dict[str, Any], overbook: bool) -> BookingCheck:
    doctor_id, patient_id = values.get("doctor_id", row.doctor_id), values.get("patient_id", row.patient_id)
    actor.require_own(doctor_id)
    doctor, patient = row.doctor, row.patient  # locked by `get`
    if doctor_id != row.doctor_id:
        doctor = get_referenced(Doctor, doctor_id, "doctor_id", lock=True)
    if patient_id != row.patient_id:
        patient = get_referenced(Patient, patient_id, "patient_id", lock=True)
    start, end = _when({name: values.get(name) for name in TIMES}, row.duration, row.start)
    return check_booking(BookingRequest(doctor, patient, start, end, appointment=row, overbook=overbook))


def _judge_late(row: Appointment, overbook: bool) -> BookingCheck:
    """A missed appointment that took place after all: its time was free for others meanwhile.

    One that was overbooked from the first may stand beside others as it did.
    """
    return check_booking(
        BookingRequest(
            row.doctor,
            row.patient,
            row.start,
            row.end,
            appointment=row,
            overbook=overbook or row.overbooked,
            past=True,
            overlaps_only=True,
        )
    )


def move(row: Appointment, verdict: BookingCheck, why: str | None) -> None:
    """Put the row where a judgement allows it; `why` is kept where it is overbooked there."""
    asked = verdict.proposal
    if asked.start != row.start:
        row.checked_in_at = None
    row.doctor_id, row.patient_id = asked.doctor.id, asked.patient.id
    row.doctor, row.patient = asked.doctor, asked.patient
    row.start, row.end = asked.start, asked.end
    row.blocked_until = _blocked_until(asked.doctor, asked.end)
    row.overbooked = bool(verdict.passed)
    row.overbook_reason = why if verdict.passed else None


# --- Status --------------------------------------------------------------------------------------------


def allowed_transitions(row: Appointment | Record) -> list[str]:
    """What the appointment can become now."""
    now = clock.now()
    found = list(TRANSITIONS[row.status])
    if NO_SHOW in found and now < row.start:
        found.remove(NO_SHOW)
    if row.status is NO_SHOW and now > row.start + REOPEN_WITHIN:
        found.remove(SCHEDULED)
    return [status.value for status in found]


def _check_step(row: Appointment, target: AppointmentStatus) -> None:
    if target.value not in allowed_transitions(row):
        raise _not_allowed(row, f"The appointment is {row.status} and cannot become {target}.")


def _not_allowed(row: Appointment, what: str) -> ClinicError:
    allowed = allowed_transitions(row)
    rest = f" It can become {' or '.join(allowed)}." if allowed else " That is final."
    return ClinicError("invalid_transition", what + rest, allowed=allowed)


def cancel(
    actor: Actor,
    row: Appointment,
    *,
    cancellation_reason: str | None = None,
    cancelled_by: CancelledBy | None = None,
) -> Appointment:
    """Cancel: the time is free at once, the row stays. 409 where it is completed, missed or cancelled."""
    actor.require_own(row.doctor_id)
    _check_step(row, CANCELLED)
    row.status, row.cancellation_reason, row.cancelled_by = CANCELLED, cancellation_reason, cancelled_by
    audit_log.set_action(row, "cancel")
    return row


def check_in(actor: Actor, row: Appointment) -> Appointment:
    """The patient is here; the first time counts. 409 unless it is scheduled."""
    actor.require_own(row.doctor_id)
    if row.status is not SCHEDULED:
        raise _not_allowed(row, f"The appointment is {row.status}: only a scheduled one can be checked in.")
    if row.checked_in_at is None:
        row.checked_in_at = clock.now()
        audit_log.set_action(row, "check_in")
    return row


def complete(actor: Actor, row: Appointment) -> None:
    """It took place; the caller holds the row by `get(lock=True)`.

    A completed one stays so; a missed one is judged, since its time may have gone to somebody else.
    """
    if row.status is COMPLETED:
        return
    _check_step(row, COMPLETED)
    if row.status is NO_SHOW:
        verdict = _judge_late(row, overbook=False)
        verdict.insist()
        move(row, verdict, row.overbook_reason)
    row.status = COMPLETED
    audit_log.set_action(row, "complete")
