"""The condition of each kind of message. It is checked when the message is planned and when it is sent."""

from __future__ import annotations

from sqlalchemy import exists, select

from enums import AppointmentStatus, MessageKind
from extensions import db
from models import Appointment, Billing, Message, Patient, Visit

OF_APPOINTMENT = (MessageKind.BOOKED, MessageKind.MOVED, MessageKind.CANCELLED, MessageKind.REMINDER)
# An appointment that replaces the follow-up: it takes place, or took place.
TAKING_PLACE = (AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED)


def is_active(patient: Patient) -> bool:
    """Return True unless the patient is archived or deceased."""
    return patient.is_active and patient.deceased_on is None


def still_holds(message: Message) -> bool:
    """Return True if the message is still true and needed.

    It locks the appointment until the end of the transaction: nobody can move or cancel it meanwhile.
    """
    if message.kind in OF_APPOINTMENT:
        return _appointment_is_unchanged(message)
    if message.kind is MessageKind.INVOICE:
        bill = db.session.get(Billing, message.billing_id, populate_existing=True)
        return bill is not None and bill.voided_at is None and bill.patient_id == message.patient_id
    return message.visit_id is not None and needs_follow_up(message.visit_id)


def _appointment_is_unchanged(message: Message) -> bool:
    statement = select(Appointment).where(Appointment.id == message.appointment_id).with_for_update(read=True)
    row = db.session.scalars(statement.execution_options(populate_existing=True)).one()
    if row.patient_id != message.patient_id:
        return False
    if message.kind is MessageKind.CANCELLED:
        return row.status is AppointmentStatus.CANCELLED
    return row.status is AppointmentStatus.SCHEDULED and row.start == message.appointment_start


def needs_follow_up(visit_id: int) -> bool:
    """Return True if the visit has a date for a follow-up and the patient has no later appointment."""
    visit = db.session.get(Visit, visit_id, populate_existing=True)
    if visit is None or visit.voided_at is not None or visit.follow_up_date is None:
        return False
    later = exists().where(
        Appointment.patient_id == visit.patient_id,
        Appointment.start > visit.date,
        Appointment.status.in_(TAKING_PLACE),
        Appointment.id.is_distinct_from(visit.appointment_id),
    )
    return not db.session.scalar(select(later))
