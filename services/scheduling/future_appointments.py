"""The scheduled appointments of a patient that are not over: an archived patient must not keep them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select

from enums import AppointmentStatus
from extensions import db
from models import Appointment
from services import clock


def of_patient(patient_id: int) -> Sequence[Appointment]:
    """Return the scheduled appointments of a patient that are not over, soonest first."""
    statement = select(Appointment).where(*_of_patient(patient_id))
    return db.session.execute(statement.order_by(Appointment.start, Appointment.id)).scalars().all()


def doctors_of_patient(patient_id: int) -> set[int]:
    """Return the ids of the doctors of the scheduled appointments of a patient that are not over."""
    return set(db.session.execute(select(Appointment.doctor_id).where(*_of_patient(patient_id))).scalars())


def _of_patient(patient_id: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Appointment.patient_id == patient_id,
        Appointment.status == AppointmentStatus.SCHEDULED,
        Appointment.end > clock.now(),
    )
