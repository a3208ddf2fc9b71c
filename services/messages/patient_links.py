"""Actions of a patient by a link in a message: confirm or cancel an appointment, end messages on a channel.

A token that is unknown, of another purpose, or dead gives the same 404.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from enums import AppointmentStatus, CancelledBy, MessageChannel
from errors import ClinicError, not_found
from extensions import db
from models import Appointment, Patient
from security import link_tokens
from security.link_tokens import Purpose
from security.permissions import Actor
from services import clock
from services.messages import links, preferences
from services.scheduling import appointments

Row = TypeVar("Row", Appointment, Patient)


@dataclass(frozen=True)
class Unsubscription:
    """The patient and the channel of a link that ends messages."""

    patient: Patient
    channel: MessageChannel
    is_off: bool


def appointment_of(actor: Actor, token: str, *, lock: bool = False) -> Appointment:
    """Return the appointment of a token. Raises 404 for another token, and after the start."""
    row = _row_of(Appointment, token)
    if row is None or not link_tokens.is_genuine(token, Purpose.ANSWER, row.id, row.patient_id):
        raise unknown_link()
    if lock:
        patient_id = row.patient_id
        row = appointments.get(actor, row.id, lock=True)
        if row.patient_id != patient_id:
            raise unknown_link()
    if row.start <= clock.now():
        raise unknown_link()
    return row


def confirm(actor: Actor, token: str, start: datetime | None) -> Appointment:
    """Confirm the appointment. `start` is the time that the patient saw, if known.

    Raises 409 `conflict` if it has moved since, and 409 `invalid_transition` unless it is scheduled.
    """
    row = appointment_of(actor, token, lock=True)
    _check_start(row, start)
    return appointments.confirm(row)


def cancel(actor: Actor, token: str, start: datetime | None) -> Appointment:
    """Cancel the appointment for the patient. A cancelled one stays cancelled. Raises 409 like `confirm`."""
    row = appointment_of(actor, token, lock=True)
    if row.status is AppointmentStatus.CANCELLED:
        return row
    _check_start(row, start)
    return appointments.cancel(actor, row, cancelled_by=CancelledBy.PATIENT)


def unsubscription_of(token: str) -> Unsubscription:
    """Return the patient and the channel of a token. Raises 404 for another token."""
    patient = _row_of(Patient, token)
    channel = None if patient is None else links.channel_of(token, patient)
    if patient is None or channel is None:
        raise unknown_link()
    row = preferences.get(Actor(None, "", None), patient.id)
    return Unsubscription(patient, channel, is_off=not getattr(row, channel.value))


def unsubscribe(actor: Actor, token: str) -> Unsubscription:
    """Turn the channel of a token off for its patient. Nothing else changes."""
    link = unsubscription_of(token)
    preferences.turn_off(actor, link.patient.id, link.channel)
    return Unsubscription(link.patient, link.channel, is_off=True)


def unknown_link() -> ClinicError:
    """Return the 404 of every link that does not work."""
    return not_found("link")


def _row_of(model: type[Row], token: str) -> Row | None:
    row_id = link_tokens.row_id_of(token)
    return None if row_id is None else db.session.get(model, row_id)


def _check_start(row: Appointment, start: datetime | None) -> None:
    if start is not None and row.start != start:
        raise ClinicError("conflict", "The appointment has moved. Look at the new time and answer again.")
