"""Contact preferences of patients, and the numbers whose owners answered STOP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from enums import MessageChannel
from extensions import db
from models import ContactPreferences, ContactStop, Patient
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.patients import patients
from services.rows import assign, changed_members, for_update

PHONE_CHANNELS = (MessageChannel.SMS, MessageChannel.WHATSAPP)


class PreferenceChanges(TypedDict, total=False):
    """Members of a change; absent ones stay as they are."""

    email: bool
    sms: bool
    whatsapp: bool
    preferred_channel: MessageChannel | None


def get(actor: Actor, patient_id: int, *, lock: bool = False) -> ContactPreferences:
    """Return the preferences of a patient, or raise 404. `lock` locks the patient.

    A patient without a row gets the defaults. They are stored with the first change.
    """
    patients.get(actor, patient_id, lock=lock)
    row = db.session.get(ContactPreferences, patient_id, populate_existing=True)
    return row or ContactPreferences(id=patient_id, email=True, sms=True, whatsapp=True, version=0)


def add_computed_fields(_actor: Actor, rows: Sequence[ContactPreferences]) -> None:
    """Set the channels that the owner of the patient's number has stopped."""
    for row in rows:
        patient = db.session.get_one(Patient, row.patient_id)
        stops = select(ContactStop.channel).where(ContactStop.number == patient.phone_e164)
        row.stopped = sorted(channel.value for channel in db.session.scalars(stops))


def update(
    _actor: Actor, row: ContactPreferences, **changes: Unpack[PreferenceChanges]
) -> ContactPreferences:
    """Change the given members. A stop by answer stays: only the owner of the number can end it."""
    values = changed_members(row, dict(changes))
    if values:
        assign(row, values)
        db.session.add(row)
        db.session.flush()
    return row


def turn_off(actor: Actor, patient_id: int, channel: MessageChannel) -> None:
    """Turn a channel off for a patient."""
    row = get(actor, patient_id, lock=True)
    if getattr(row, channel.value):
        setattr(row, channel.value, False)
        db.session.add(row)
        audit_log.set_action(row, "unsubscribe")


def stop(channel: MessageChannel, number: str) -> None:
    """Record that the owner of a number answered STOP. It holds for all patients with this number."""
    row = ContactStop(channel=channel, number=number, created_at=clock.now())
    try:
        with db.session.begin_nested():
            db.session.add(row)
            db.session.flush()
    except IntegrityError:
        return  # the number is stopped already
    _set_action(row, "stop")


def start(channel: MessageChannel, number: str) -> None:
    """Remove a stop: the owner of the number answered START."""
    statement = select(ContactStop).where(ContactStop.channel == channel, ContactStop.number == number)
    row = db.session.scalars(for_update(statement)).one_or_none()
    if row is not None:
        db.session.delete(row)
        _set_action(row, "start")


def _set_action(row: ContactStop, action: str) -> None:
    """Name the change in the audit log, with the patients who have the number."""
    audit_log.set_action(row, action)
    patients_of_number = db.session.scalars(select(Patient.id).where(Patient.phone_e164 == row.number))
    entry = audit_log.pending_entries().entry(ContactStop.__entity__ or "", row.id, action)
    entry.patient_ids |= set(patients_of_number)
