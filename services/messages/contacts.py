"""The address of a patient on each channel, and whether messages are allowed there."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import exists, select

from enums import MessageChannel, MessageReason
from extensions import db
from models import ContactPreferences, ContactStop, Patient


def address_of(patient: Patient, channel: MessageChannel) -> str | None:
    """Return the e-mail address, or the phone number in E.164 form, or None."""
    if channel is MessageChannel.EMAIL:
        return patient.email
    return patient.phone_e164


def refusal_of(patient: Patient, channel: MessageChannel) -> MessageReason | None:
    """Return the reason why the patient gets no message on the channel, or None."""
    address = address_of(patient, channel)
    if address is None:
        return MessageReason.NO_ADDRESS
    preferences = db.session.get(ContactPreferences, patient.id, populate_existing=True)
    if preferences is not None and not getattr(preferences, channel.value):
        return MessageReason.NOT_ALLOWED
    return MessageReason.STOPPED if is_stopped(channel, address) else None


def is_stopped(channel: MessageChannel, number: str) -> bool:
    """Return True if the owner of the number answered STOP on the channel."""
    stop = exists().where(ContactStop.channel == channel, ContactStop.number == number)
    return bool(db.session.scalar(select(stop)))


def choose_channel(
    patient: Patient, channels: Sequence[MessageChannel]
) -> tuple[MessageChannel, MessageReason | None]:
    """Return the channel for a message: the preferred one first, then in the given order.

    If none can be used, return the first one with the reason.
    """
    preferences = db.session.get(ContactPreferences, patient.id)
    preferred = preferences.preferred_channel if preferences is not None else None
    ordered = sorted(channels, key=lambda channel: channel is not preferred)
    refusals = [(channel, refusal_of(patient, channel)) for channel in ordered]
    return next((pair for pair in refusals if pair[1] is None), refusals[0])
