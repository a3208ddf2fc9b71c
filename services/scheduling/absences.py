"""What a doctor's absence leaves behind: booked appointments, to be cancelled or handed over all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from enums import AppointmentStatus, CancelledBy
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Doctor, Patient
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.rows import get_referenced, lock_rows
from services.scheduling.appointments import cancel, move
from services.scheduling.booking_rules import BookingRequest, check_booking, told

LISTED = 100  # booked appointments that a refusal names


def booked_with(doctor_id: int, start: datetime, end: datetime | None = None) -> list[Appointment]:
    """The doctor's scheduled appointments that are not over and overlap the stretch, soonest first."""
    wheres = [Appointment.end > max(start, clock.now())]
    if end is not None:
        wheres.append(Appointment.start < end)
    return list(
        db.session.execute(
            select(Appointment)
            .where(
                Appointment.doctor_id == doctor_id, Appointment.status == AppointmentStatus.SCHEDULED, *wheres
            )
            .options(joinedload(Appointment.patient))
            .order_by(Appointment.start, Appointment.id)
        ).scalars()
    )


def resolve_booked_appointments(
    actor: Actor,
    booked: Sequence[Appointment],
    why: str,
    *,
    on_conflict: str | Mapping[str, int] | None = None,
    reassign_to: int | None = None,
) -> None:
    """Cancel all of a doctor's appointments (`on_conflict` "cancel") or hand all of them to another doctor.

    The caller holds the doctors' rows. Without a choice 409 `booked_appointments` lists them; where the judge
    refuses one to the other doctor, 409 `appointment_conflict` names each refusal and nothing is done.
    """
    if on_conflict is not None and reassign_to is not None:
        raise invalid("reassign_to", "give either on_conflict or reassign_to")
    if isinstance(on_conflict, Mapping):
        reassign_to = on_conflict["reassign_to"]
    if not booked:
        return
    if on_conflict is None and reassign_to is None:
        raise _still_booked(booked)
    lock_rows(Patient, {row.patient_id for row in booked})
    lock_rows(Appointment, {row.id for row in booked})
    if reassign_to is not None:
        _reassign(actor, booked, reassign_to)
        return
    for row in booked:
        cancel(actor, row, cancellation_reason=why, cancelled_by=CancelledBy.CLINIC)


def _still_booked(booked: Sequence[Appointment]) -> ClinicError:
    listed = [
        {
            "id": row.id,
            "patient_id": row.patient_id,
            "patient_name": row.patient.name,
            "start": told(row.start),
            "end": told(row.end),
        }
        for row in booked[:LISTED]
    ]
    message = (
        f"There are {len(booked)} booked appointments: cancel them with on_conflict 'cancel', "
        "or hand them over with on_conflict {'reassign_to': doctor_id}."
    )
    return ClinicError("booked_appointments", message, appointments=listed, total=len(booked))


def _reassign(actor: Actor, booked: Sequence[Appointment], doctor_id: int) -> None:
    actor.require_own(doctor_id)
    doctor = get_referenced(Doctor, doctor_id, "reassign_to", lock=True)
    if any(row.doctor_id == doctor_id for row in booked):
        raise invalid("reassign_to", "must be another doctor")
    refused: list[dict[str, Any]] = []
    for row in booked:
        verdict = check_booking(BookingRequest(doctor, row.patient, row.start, row.end, appointment=row))
        if not verdict.possible:
            refused += [{"appointment_id": row.id, **conflict} for conflict in verdict.conflicts]
            continue
        move(row, verdict, None)
        audit_log.set_action(row, "reassign")
    if refused:
        raise ClinicError(
            "appointment_conflict",
            "The other doctor cannot take all of the appointments; none was moved.",
            conflicts=refused,
        )
