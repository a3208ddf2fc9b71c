"""The planning of messages: subscribers of events write messages and the jobs that send them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select, true

from config import settings
from database.functions import insert_unless_exists
from enums import AppointmentStatus, MessageChannel, MessageKind, MessageReason, MessageState
from extensions import db
from models import Appointment, Billing, Event, Message, Patient, Visit
from services import clock
from services.audit import audit_log
from services.jobs import queue
from services.messages import contacts
from services.messages.conditions import is_active, needs_follow_up
from services.messages.quiet_hours import end_of_quiet
from services.messages.settings import message_settings

SEND_EMAIL = "messages.send"  # the kinds of jobs; earlier versions had only this one
SEND_TO_PHONE = "messages.send_to_phone"
FOLLOW_UP_NOTICE = timedelta(days=7)  # before the date of the follow-up, so that a time is still free
# These are sent in quiet hours if waiting would pass the old or the new start.
URGENT = (MessageKind.MOVED, MessageKind.CANCELLED)


@dataclass(frozen=True)
class Plan:
    """A message to plan. `cause` makes it unique: the id of an event, or the start and the offset.

    The message expires when the appointment starts, and some hours after it was due.
    """

    kind: MessageKind
    patient: Patient
    cause: str
    send_at: datetime
    appointment: Appointment | None = None
    visit: Visit | None = None
    billing: Billing | None = None
    channels: tuple[MessageChannel, ...] = ()
    created_by_id: int | None = None


def plan(request: Plan) -> Message | None:
    """Write a message, and the job that sends it. Return None if the same message exists."""
    policy = message_settings()
    channels = request.channels or tuple(map(MessageChannel, policy.channels))
    if not channels:
        return None
    channel, refusal = contacts.choose_channel(request.patient, channels)
    recipient = contacts.address_of(request.patient, channel)
    about = request.appointment or request.visit or request.billing
    entity, entity_id = (about.__entity__, about.id) if about is not None else ("patient", request.patient.id)
    send_at = after_quiet_hours(request.kind, request.send_at, request.appointment)
    expires_at = send_at + timedelta(hours=policy.expiry_hours)
    if request.appointment is not None:
        expires_at = min(expires_at, request.appointment.start)
    if send_at >= expires_at:
        state, reason = MessageState.CANCELLED, MessageReason.QUIET_HOURS
    elif refusal is not None and send_at <= clock.now():
        state, reason = MessageState.SUPPRESSED, refusal
    else:
        state, reason = MessageState.QUEUED, None
    message = _insert(
        kind=request.kind,
        channel=channel,
        state=state,
        reason=reason,
        recipient=recipient,
        patient_id=request.patient.id,
        appointment_id=request.appointment.id if request.appointment else None,
        visit_id=request.visit.id if request.visit else None,
        billing_id=request.billing.id if request.billing else None,
        appointment_start=request.appointment.start if request.appointment else None,
        dedupe_key=f"{request.kind}:{entity}:{entity_id}:{request.cause}:{channel}:{recipient or '-'}",
        send_at=send_at,
        expires_at=expires_at,
        created_by_id=request.created_by_id,
    )
    if message is not None and state is MessageState.QUEUED:
        enqueue(message)
    return message


def _insert(**values: Any) -> Message | None:
    """Insert a message, or return None if its dedupe key exists.

    A Core statement: savepoints, which the ORM needs for a violated key, are slow in a large transaction.
    """
    now = clock.now()
    values |= {"attempts": 0, "version": 1, "created_at": now, "updated_at": now}
    connection = db.session().connection()
    statement = insert_unless_exists(connection, Message, key="dedupe_key").returning(Message.id)
    message_id = connection.execute(statement, values).scalar_one_or_none()
    if message_id is None:
        return None
    message = db.session.get_one(Message, message_id)
    audit_log.record_creation(message)
    return message


def enqueue(message: Message) -> None:
    """Add the job of the next attempt."""
    payload = {"message_id": message.id, "attempt": message.attempts + 1}
    kind = SEND_EMAIL if message.channel is MessageChannel.EMAIL else SEND_TO_PHONE
    queue.enqueue(kind, payload, run_at=message.send_at)


def after_quiet_hours(kind: MessageKind, instant: datetime, appointment: Appointment | None) -> datetime:
    """Return the time at which a message that is due at an instant may be sent.

    An urgent one does not wait if the new or the old start of the appointment would pass meanwhile.
    """
    policy = message_settings()
    end = end_of_quiet(instant, policy.quiet_start, policy.quiet_end, settings().zone)
    if kind not in URGENT or appointment is None:
        return end
    starts = (appointment.previous_start, appointment.start)
    passes_start = any(start is not None and instant < start <= end for start in starts)
    return instant if passes_start else end


# --- Events --------------------------------------------------------------------------------------------


def _cancel_replaced(*conditions: ColumnElement[bool]) -> None:
    """Cancel the planned messages that wait, and that another one replaces: nobody gets the same twice.

    A locked one is being sent at this moment.
    """
    waiting = select(Message).where(
        Message.state == MessageState.QUEUED, Message.created_by_id.is_(None), *conditions
    )
    for message in db.session.scalars(waiting.order_by(Message.id).with_for_update(skip_locked=True)).all():
        message.state, message.reason = MessageState.CANCELLED, MessageReason.NOT_NEEDED
        audit_log.set_action(message, "cancel")


def _plan_about(row: Appointment, kind: MessageKind, cause: str, send_at: datetime) -> None:
    """Plan a message about an appointment in place of a waiting one with the same content.

    The waiting one may be to an earlier address or on another channel.
    """
    message = plan(Plan(kind, row.patient, cause, send_at, appointment=row))
    if message is not None:
        same_reminder = Message.dedupe_key.startswith(
            f"{kind}:appointment:{row.id}:{cause}:", autoescape=True
        )
        _cancel_replaced(
            Message.appointment_id == row.id,
            Message.kind == kind,
            Message.appointment_start == row.start,
            Message.id != message.id,
            same_reminder if kind is MessageKind.REMINDER else true(),
        )


def plan_for_appointment(event: Event) -> None:
    """Plan the messages about a booked, moved, reopened or cancelled appointment."""
    row = db.session.get(Appointment, event.entity_id)
    if row is None or row.start <= clock.now() or not is_active(row.patient):
        return
    kind = _kind_of(event)
    expected = AppointmentStatus.CANCELLED if kind is MessageKind.CANCELLED else AppointmentStatus.SCHEDULED
    moved_again = row.rescheduled_at is not None and row.rescheduled_at > event.at
    if kind is None or row.status is not expected or moved_again:
        return  # if it has changed again, another event follows
    if _is_on(kind):
        _plan_about(row, kind, str(event.id), clock.now())
    if kind is not MessageKind.CANCELLED and _is_on(MessageKind.REMINDER):
        _plan_reminders(row)


def plan_for_import(event: Event) -> None:
    """Plan the reminders of an imported appointment, without a confirmation.

    The patient knows the appointment. A clinic that moves in must not send hundreds of messages at once.
    """
    row = db.session.get(Appointment, event.entity_id)
    if row is None or row.start <= clock.now() or not is_active(row.patient):
        return
    if row.status is AppointmentStatus.SCHEDULED and _is_on(MessageKind.REMINDER):
        _plan_reminders(row)


def _kind_of(event: Event) -> MessageKind | None:
    change = event.type.partition(".")[2]
    if change in ("booked", "reopened"):
        return MessageKind.BOOKED
    if change == "cancelled":
        return MessageKind.CANCELLED
    if "patient_id" in event.fields:
        return MessageKind.BOOKED  # for the new patient
    return MessageKind.MOVED if "start" in event.fields else None  # another doctor at the same time


def _is_on(kind: MessageKind) -> bool:
    return kind.value in message_settings().kinds


def _plan_reminders(row: Appointment) -> None:
    times = ((hours, row.start - timedelta(hours=hours)) for hours in message_settings().reminder_hours)
    # of those that wait for the same end of the quiet hours, the one nearest to the start
    due = {
        after_quiet_hours(MessageKind.REMINDER, send_at, row): (hours, send_at)
        for hours, send_at in times
        if send_at > clock.now()
    }
    for hours, send_at in due.values():
        _plan_about(row, MessageKind.REMINDER, f"{row.start:%Y-%m-%dT%H:%MZ}:{hours}h", send_at)


def plan_for_visit(event: Event) -> None:
    """Plan the message about the follow-up of a visit, if its date is new."""
    if "follow_up_date" not in event.fields:
        return
    # a message about an earlier date
    _cancel_replaced(Message.visit_id == event.entity_id, Message.kind == MessageKind.FOLLOW_UP_DUE)
    visit = db.session.get(Visit, event.entity_id)
    if (
        not _is_on(MessageKind.FOLLOW_UP_DUE)
        or visit is None
        or visit.follow_up_date is None
        or not is_active(visit.patient)
    ):
        return
    if not needs_follow_up(visit.id) or visit.follow_up_date < clock.today():
        return
    notice = clock.day_start(visit.follow_up_date) - FOLLOW_UP_NOTICE
    send_at = max(notice, clock.now())
    plan(Plan(MessageKind.FOLLOW_UP_DUE, visit.patient, str(event.id), send_at, visit=visit))


def plan_for_bill(event: Event) -> None:
    """Plan the message about a new bill."""
    bill = db.session.get(Billing, event.entity_id)
    if bill is None or bill.voided_at is not None or not _is_on(MessageKind.INVOICE):
        return
    if not is_active(bill.patient):
        return
    plan(Plan(MessageKind.INVOICE, bill.patient, str(event.id), clock.now(), billing=bill))
