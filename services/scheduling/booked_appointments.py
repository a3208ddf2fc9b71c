"""Booked appointments that a change of a doctor's calendar affects: keep, cancel or reassign them.

Time off, deactivation, new working hours, a longer buffer and an earlier licence date use the same mechanism.
It compares the booked appointments that violate the booking rules before and after the change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypedDict, Unpack

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from enums import AppointmentStatus, CancelledBy, Role
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Doctor, Patient
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.rows import execute_core, get_referenced, lock_rows
from services.scheduling import appointments
from services.scheduling.availability import MAX_BLOCKED_TIME, Calendar, load_calendars
from services.scheduling.booking_rules import (
    OVERBOOKABLE,
    BookingRequest,
    check_booking,
    find_calendar_conflicts,
    format_instant,
)

MAX_LISTED = 100  # booked appointments in a 409 response
KEEP, CANCEL = "keep", "cancel"


class ConflictChoice(TypedDict, total=False):
    """The choice for affected appointments: "keep", "cancel", or another doctor in one of two forms."""

    on_conflict: str | Mapping[str, int] | None
    reassign_to: int | None


@contextmanager
def resolve_conflicts(
    actor: Actor,
    doctor: Doctor,
    cancellation_reason: str,
    *,
    may_keep: bool = False,
    **choice: Unpack[ConflictChoice],
) -> Iterator[None]:
    """Run a change of a doctor, and resolve the booked appointments that fit before and not after it.

    The caller holds the locks on the doctor and on the other doctor of the choice. Without a choice it raises
    409 `booked_appointments`, which lists the appointments. `may_keep` permits "keep" (422 otherwise). If a
    booking rule refuses one to the other doctor, it raises 409 `appointment_conflict` with all conflicts.
    """
    on_conflict, reassign_to = choice.get("on_conflict"), choice.get("reassign_to")
    if on_conflict is not None and reassign_to is not None:
        raise invalid("reassign_to", "give either on_conflict or reassign_to")
    if on_conflict == KEEP and not may_keep:
        raise invalid("on_conflict", "these appointments cannot be kept: cancel or reassign them")
    if isinstance(on_conflict, Mapping):
        reassign_to = on_conflict["reassign_to"]
    before = find_violations(doctor.id)
    yield
    after = find_violations(doctor.id)
    affected = _load([key for key, codes in after.items() if codes - before.get(key, set())])
    if not affected or on_conflict == KEEP:
        return
    if on_conflict is None and reassign_to is None:
        raise _booked_appointments_error(actor, affected, may_keep=may_keep)
    lock_rows(Patient, {appointment.patient_id for appointment in affected})
    lock_rows(Appointment, {appointment.id for appointment in affected})
    if reassign_to is not None:
        _reassign_all(actor, affected, reassign_to)
        return
    for appointment in affected:
        appointments.cancel(
            actor, appointment, cancellation_reason=cancellation_reason, cancelled_by=CancelledBy.CLINIC
        )


def find_violations(doctor_id: int | None = None) -> dict[int, set[str]]:
    """Return the booking rules that scheduled appointments violate now, by id of the appointment.

    It checks appointments that are not over, of one doctor or of all, with three queries. Overbooking permits
    the violation of some rules. An overbooked appointment does not count as a neighbour of another one.
    """
    statement = (
        select(
            Appointment.id, Appointment.doctor_id, Appointment.start, Appointment.end, Appointment.overbooked
        )
        .where(Appointment.status == AppointmentStatus.SCHEDULED, Appointment.end > clock.now())
        .order_by(Appointment.start, Appointment.id)
    )
    if doctor_id is not None:
        statement = statement.where(Appointment.doctor_id == doctor_id)
    booked = execute_core(statement).all()
    if not booked:
        return {}
    of_doctor: dict[int, list[Any]] = defaultdict(list)
    for row in booked:
        of_doctor[row.doctor_id].append(row)
    doctors = db.session.scalars(select(Doctor).where(Doctor.id.in_(of_doctor))).all()
    calendars = load_calendars(doctors, booked[0].start, max(row.end for row in booked))
    violations: dict[int, set[str]] = {}
    for key, rows in of_doctor.items():
        violations |= _violations_of_doctor(calendars[key], rows)
    return violations


def _violations_of_doctor(calendar: Calendar, rows: Sequence[Any]) -> dict[int, set[str]]:
    buffer = timedelta(minutes=calendar.doctor.buffer_minutes)
    neighbours = [row for row in rows if not row.overbooked]
    starts = [row.start for row in neighbours]
    violations: dict[int, set[str]] = {}
    for row in rows:
        near = slice(
            bisect_left(starts, row.start - MAX_BLOCKED_TIME), bisect_left(starts, row.end + MAX_BLOCKED_TIME)
        )
        others = [
            (other.start, other.end, other.end + buffer) for other in neighbours[near] if other.id != row.id
        ]
        codes = find_calendar_conflicts(replace(calendar, booked=others), row.start, row.end)
        if row.overbooked:
            codes -= OVERBOOKABLE
        if codes:
            violations[row.id] = codes
    return violations


def _load(ids: Sequence[int]) -> list[Appointment]:
    if not ids:
        return []
    return list(
        db.session.scalars(
            select(Appointment)
            .where(Appointment.id.in_(ids))
            .options(joinedload(Appointment.patient))
            .order_by(Appointment.start, Appointment.id)
        )
    )


def _booked_appointments_error(actor: Actor, booked: Sequence[Appointment], *, may_keep: bool) -> ClinicError:
    listed = [
        {
            "id": appointment.id,
            "patient_id": appointment.patient_id,
            "patient_name": appointment.patient.name,
            "start": format_instant(appointment.start),
            "end": format_instant(appointment.end),
        }
        for appointment in booked[:MAX_LISTED]
    ]
    keep = "Keep them with on_conflict 'keep', cancel" if may_keep else "Cancel"
    reassign = (
        "or ask an administrator to reassign them"  # a doctor writes no appointments of another doctor
        if actor.role is Role.DOCTOR
        else "or reassign them with on_conflict {'reassign_to': doctor_id}"
    )
    message = (
        f"The change affects {len(booked)} booked appointments. {keep} them with on_conflict 'cancel', "
        f"{reassign}."
    )
    error = ClinicError("booked_appointments", message, appointments=listed, total=len(booked))
    error.shown_patient_ids = tuple({appointment.patient_id for appointment in booked[:MAX_LISTED]})
    return error


def _reassign_all(actor: Actor, booked: Sequence[Appointment], doctor_id: int) -> None:
    actor.require_own(doctor_id)
    doctor = get_referenced(Doctor, doctor_id, "reassign_to", lock=True)
    if any(appointment.doctor_id == doctor_id for appointment in booked):
        raise invalid("reassign_to", "must be another doctor")
    conflicts: list[dict[str, Any]] = []
    for appointment in booked:
        check = check_booking(
            BookingRequest(
                doctor, appointment.patient, appointment.start, appointment.end, appointment=appointment
            )
        )
        if not check.possible:
            conflicts += [{"appointment_id": appointment.id, **conflict} for conflict in check.conflicts]
            continue
        appointments.move(appointment, check, None)
        audit_log.set_action(appointment, "reassign")
    if conflicts:
        raise ClinicError(
            "appointment_conflict",
            "The other doctor cannot take all of the appointments; none was moved.",
            conflicts=conflicts,
        )
