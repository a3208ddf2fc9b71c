"""Time off of a doctor, and the booked appointments that an absence affects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from enums import AppointmentStatus, CancelledBy
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Appointment, Doctor, Patient, TimeOff
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.spec import Condition, ListQuery, ListSpec, Page
from services.rows import get_or_404, get_referenced, lock_rows
from services.scheduling import appointments
from services.scheduling.booking_rules import BookingRequest, check_booking, format_instant

MAX_LISTED = 100  # booked appointments in a 409 response

LIST: ListSpec[TimeOff] = ListSpec(
    name="time_off",
    model=TimeOff,
    area="time_off",
    main_date="start",
    text=lambda text: TimeOff.reason.icontains(text, autoescape=True),
    options=(joinedload(TimeOff.doctor),),
)


def get(_actor: Actor, doctor_id: int, time_off_id: int, *, lock: bool = False) -> TimeOff:
    """Return a time off of the doctor, or raise 404. `lock` locks the doctor, whose calendar changes."""
    get_or_404(Doctor, doctor_id, lock=lock)
    time_off = get_or_404(TimeOff, time_off_id, lock=lock)
    if time_off.doctor_id != doctor_id:
        raise not_found("time_off")
    return time_off


def find(actor: Actor, doctor: Doctor, query: ListQuery) -> Page[TimeOff]:
    """Return one page of a doctor's time off."""
    query.conditions.append(Condition("doctor_id", "eq", doctor.id))
    return paging.page(actor, LIST, query)


def create(
    actor: Actor,
    doctor: Doctor,
    *,
    start: datetime,
    end: datetime,
    reason: str | None = None,
    on_conflict: str | Mapping[str, int] | None = None,
    reassign_to: int | None = None,
) -> TimeOff:
    """Record a time off of a doctor. The caller holds the lock on the doctor.

    `resolve_booked_appointments` cancels or reassigns booked appointments, or raises its errors.
    """
    actor.require_own(doctor.id)
    if start >= end:
        raise invalid("end", "must be after start")
    time_off = TimeOff(doctor=doctor, doctor_id=doctor.id, start=start, end=end, reason=reason)
    db.session.add(time_off)
    resolve_booked_appointments(
        actor,
        find_booked_appointments(doctor.id, start, end),
        "The doctor has time off.",
        on_conflict=on_conflict,
        reassign_to=reassign_to,
    )
    db.session.flush()
    return time_off


def delete(actor: Actor, time_off: TimeOff) -> TimeOff:
    """Delete a time off and return it as it was."""
    actor.require_own(time_off.doctor_id)
    # the response shows the doctor, and a deleted row cannot load relationships
    db.session.refresh(time_off, ["doctor"])
    db.session.delete(time_off)
    db.session.flush()
    return time_off


# --- Affected appointments -----------------------------------------------------------------------------


def find_booked_appointments(
    doctor_id: int, start: datetime, end: datetime | None = None
) -> list[Appointment]:
    """Return the doctor's scheduled appointments that overlap the period and are not over, soonest first."""
    conditions = [Appointment.end > max(start, clock.now())]
    if end is not None:
        conditions.append(Appointment.start < end)
    return list(
        db.session.execute(
            select(Appointment)
            .where(
                Appointment.doctor_id == doctor_id,
                Appointment.status == AppointmentStatus.SCHEDULED,
                *conditions,
            )
            .options(joinedload(Appointment.patient))
            .order_by(Appointment.start, Appointment.id)
        ).scalars()
    )


def resolve_booked_appointments(
    actor: Actor,
    booked: Sequence[Appointment],
    cancellation_reason: str,
    *,
    on_conflict: str | Mapping[str, int] | None = None,
    reassign_to: int | None = None,
) -> None:
    """Cancel all booked appointments (`on_conflict` "cancel"), or reassign all to another doctor.

    The caller holds the locks on the doctors. Without a choice it raises 409 `booked_appointments`, which
    lists the appointments. If a booking rule refuses one to the other doctor, it raises 409
    `appointment_conflict` with all conflicts, and changes nothing.
    """
    if on_conflict is not None and reassign_to is not None:
        raise invalid("reassign_to", "give either on_conflict or reassign_to")
    if isinstance(on_conflict, Mapping):
        reassign_to = on_conflict["reassign_to"]
    if not booked:
        return
    if on_conflict is None and reassign_to is None:
        raise _booked_appointments_error(booked)
    lock_rows(Patient, {appointment.patient_id for appointment in booked})
    lock_rows(Appointment, {appointment.id for appointment in booked})
    if reassign_to is not None:
        _reassign_all(actor, booked, reassign_to)
        return
    for appointment in booked:
        appointments.cancel(
            actor,
            appointment,
            cancellation_reason=cancellation_reason,
            cancelled_by=CancelledBy.CLINIC,
        )


def _booked_appointments_error(booked: Sequence[Appointment]) -> ClinicError:
    shown = booked[:MAX_LISTED]
    listed = [
        {
            "id": appointment.id,
            "patient_id": appointment.patient_id,
            "patient_name": appointment.patient.name,
            "start": format_instant(appointment.start),
            "end": format_instant(appointment.end),
        }
        for appointment in shown
    ]
    message = (
        f"There are {len(booked)} booked appointments. Cancel them with on_conflict 'cancel', "
        "or reassign them with on_conflict {'reassign_to': doctor_id}."
    )
    error = ClinicError("booked_appointments", message, appointments=listed, total=len(booked))
    error.shown_patient_ids = tuple(appointment.patient_id for appointment in shown)
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
