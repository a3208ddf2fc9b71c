"""The links in messages: addresses below `PUBLIC_URL` with a token."""

from __future__ import annotations

from enums import MessageChannel
from models import Appointment, Patient
from security import link_tokens
from security.link_tokens import Purpose


def answer_url(appointment: Appointment) -> str | None:
    """Return the link to confirm or cancel an appointment, or None without `PUBLIC_URL`."""
    token = link_tokens.create(Purpose.ANSWER, appointment.id, appointment.patient_id)
    return link_tokens.public_url("a", token)


def unsubscribe_url(patient_id: int, channel: MessageChannel) -> str | None:
    """Return the link to end messages to a patient on a channel, or None without `PUBLIC_URL`."""
    return link_tokens.public_url("u", link_tokens.create(Purpose.UNSUBSCRIBE, patient_id, channel.value))


def channel_of(token: str, patient: Patient) -> MessageChannel | None:
    """Return the channel of a token to unsubscribe the patient, or None for another token."""
    return next(
        (
            channel
            for channel in MessageChannel
            if link_tokens.is_genuine(token, Purpose.UNSUBSCRIBE, patient.id, channel.value)
        ),
        None,
    )
