"""The job that sends one message.

It has three steps. A transaction checks the message again and sets it to `sending`. Then the provider is
called, without a transaction. A last transaction stores the result and finishes the job. A worker that is
killed in between leaves a message in the state `sending`. The next worker sends an e-mail again under the
same `Message-ID`. It does not send an SMS again: that message becomes `unknown`.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import update

from config import settings
from enums import MessageChannel, MessageKind, MessageReason, MessageState
from extensions import db
from models import Appointment, Billing, Message, Visit
from services import clock
from services.audit import audit_log
from services.calendar_feeds.ical import appointment_calendar
from services.clinic.record import clinic_record
from services.jobs.transactions import keep_trying, transaction
from services.messages import contacts, links, planning
from services.messages.conditions import is_active, still_holds
from services.messages.providers import (
    NoAnswer,
    OutgoingMessage,
    PermanentFailure,
    Provider,
    Receipt,
    TemporaryFailure,
)
from services.messages.providers.selection import provider_of
from services.messages.rendering import MessageVariables, render
from services.rows import execute_core, get_or_404

log = structlog.get_logger()

OPERATION = f"job {planning.SEND_EMAIL}"
FIRST_DELAY, LONGEST_DELAY = timedelta(minutes=1), timedelta(hours=1)
Result = Receipt | TemporaryFailure | PermanentFailure | NoAnswer  # of the call of a provider
EMAIL = MessageChannel.EMAIL
# The audit action of each final state that is not a success.
ACTIONS = {
    MessageState.FAILED: "fail",
    MessageState.CANCELLED: "cancel",
    MessageState.SUPPRESSED: "suppress",
    MessageState.UNKNOWN: "lose",
}


def send(payload: dict[str, Any]) -> None:
    """Send a message: one attempt. A temporary failure adds a job for the next one."""
    message_id, attempt = payload["message_id"], payload["attempt"]
    with transaction(OPERATION):
        outgoing, provider = _begin(message_id, attempt)
    if outgoing is None:
        _repeat_if_waiting(message_id, attempt)
        return
    result: Result
    try:
        result = provider.send(outgoing)
    except (TemporaryFailure, PermanentFailure, NoAnswer) as failure:
        result = failure
    except Exception as fault:  # of ours: the message must not stay in `sending`
        log.exception("provider_failed", message_id=message_id)
        may_repeat = bool(outgoing.message_id_header)
        result = (TemporaryFailure if may_repeat else NoAnswer)(type(fault).__name__)
    keep_trying(partial(_finish, message_id, attempt, result))


def _finish(message_id: int, attempt: int, result: Result) -> None:
    with transaction(OPERATION, finishes_job=True):
        _store(message_id, attempt, result)


def _repeat_if_waiting(message_id: int, attempt: int) -> None:
    """Add a job for a message that waits until the quiet hours end."""
    with transaction(OPERATION, finishes_job=True):
        message = get_or_404(Message, message_id, lock=True)
        if message.state is MessageState.QUEUED and message.attempts == attempt - 1:
            planning.enqueue(message)


# --- Before the call -----------------------------------------------------------------------------------


def _begin(message_id: int, attempt: int) -> tuple[OutgoingMessage | None, Provider]:
    """Check the message and set it to `sending`. Without an outgoing message there is nothing to send.

    The appointment is locked first, as everywhere. Nobody can move or cancel it before the commit, which is
    immediately before the call of the provider.
    """
    message = get_or_404(Message, message_id)
    provider = provider_of(message.channel)
    holds = still_holds(message)
    message = get_or_404(Message, message_id, lock=True)
    if message.state is MessageState.SENDING and message.attempts == attempt:
        if not _may_repeat(message, holds=holds):
            return None, provider
    elif (
        message.state is not MessageState.QUEUED
        or message.attempts != attempt - 1
        or not _is_due(message, holds=holds)
    ):
        return None, provider
    return _start(message, attempt, provider), provider


def _may_repeat(message: Message, *, holds: bool) -> bool:
    """Return True if a message whose call was interrupted may be sent again now: only an e-mail.

    Otherwise queue it for the end of the quiet hours, or set it to `unknown`.
    """
    now = clock.now()
    due_at = planning.after_quiet_hours(message.kind, now, _appointment_of(message))
    is_allowed = is_active(message.patient) and contacts.refusal_of(message.patient, message.channel) is None
    if message.channel is not EMAIL or not holds or not is_allowed or due_at >= message.expires_at:
        _end(message, MessageState.UNKNOWN, MessageReason.INTERRUPTED)
        return False
    if due_at > now:
        message.state, message.reason, message.send_at = MessageState.QUEUED, MessageReason.TEMPORARY, due_at
        message.attempts -= 1  # the same attempt follows
        return False
    return True


def _is_due(message: Message, *, holds: bool) -> bool:
    """Return True if a queued message may be sent now. Otherwise set its new state, or its new time."""
    now = clock.now()
    patient = message.patient
    refusal = contacts.refusal_of(patient, message.channel)
    if not is_active(patient):
        _end(message, MessageState.CANCELLED, MessageReason.PATIENT_INACTIVE)
    elif not holds:
        _end(message, MessageState.CANCELLED, MessageReason.NOT_NEEDED)
    elif now >= message.expires_at:
        _end(message, MessageState.FAILED, MessageReason.EXPIRED, message.detail)
    elif refusal is not None:
        _end(message, MessageState.SUPPRESSED, refusal)
    else:
        # the clock may have been set back since
        earliest = max(now, message.send_at)
        due_at = planning.after_quiet_hours(message.kind, earliest, _appointment_of(message))
        if due_at <= now:
            return True
        if due_at < message.expires_at:
            message.send_at = due_at
        elif message.attempts:
            _end(message, MessageState.FAILED, MessageReason.EXPIRED, message.detail)
        else:
            _end(message, MessageState.CANCELLED, MessageReason.QUIET_HOURS)
    return False


def _start(message: Message, attempt: int, provider: Provider) -> OutgoingMessage:
    """Set the message to `sending` and return its content."""
    clinic = clinic_record()
    patient, appointment = message.patient, _appointment_of(message)
    recipient = contacts.address_of(patient, message.channel) or ""
    variables = _variables(message, clinic.name, appointment)
    rendered = render(message.kind, message.channel, patient.language, variables)
    header = message.message_id_header
    outgoing = OutgoingMessage(f"clinic-{message.id}", recipient, rendered.text)
    if message.channel is EMAIL:
        header = header or f"<{uuid.uuid4()}@{settings().sender.domain}>"
        outgoing = replace(
            outgoing,
            subject=rendered.subject or "",
            sender_name=clinic.name,
            message_id_header=header,
            unsubscribe_url=variables.unsubscribe,
            calendar=_calendar(message, clinic.name, appointment),
        )
    # without the ORM: the audit log gets one entry, with the result
    execute_core(
        update(Message)
        .where(Message.id == message.id)
        .values(
            state=MessageState.SENDING,
            attempts=attempt,
            reason=None,
            detail=None,
            recipient=recipient,
            locale=rendered.locale,
            segments=rendered.segments,
            provider=provider.name,
            message_id_header=header,
            version=Message.version + 1,
            updated_at=clock.now(),
        )
    )
    return outgoing


def _appointment_of(message: Message) -> Appointment | None:
    return db.session.get(Appointment, message.appointment_id) if message.appointment_id else None


def _variables(message: Message, clinic_name: str, appointment: Appointment | None) -> MessageVariables:
    unsubscribe = links.unsubscribe_url(message.patient_id, EMAIL) if message.channel is EMAIL else None
    variables = MessageVariables(clinic_name, unsubscribe=unsubscribe)
    if appointment is not None:
        is_open = message.kind is not MessageKind.CANCELLED
        return replace(
            variables,
            start=appointment.start,
            old_start=appointment.previous_start,
            link=links.answer_url(appointment) if is_open else None,
        )
    if message.billing_id is not None:
        return replace(variables, day=get_or_404(Billing, message.billing_id).date)
    return replace(variables, day=get_or_404(Visit, message.visit_id or 0).follow_up_date)


def _calendar(message: Message, clinic_name: str, appointment: Appointment | None) -> bytes | None:
    if appointment is None:
        return None
    return appointment_calendar(
        appointment,
        clinic_name=clinic_name,
        cancelled=message.kind is MessageKind.CANCELLED,
        organizer=settings().sender.addr_spec,
    )


# --- After the call ------------------------------------------------------------------------------------


def _store(message_id: int, attempt: int, result: Result) -> None:
    """Store the result of the call. A temporary failure is repeated until the message expires."""
    message = get_or_404(Message, message_id, lock=True)
    if message.state not in (MessageState.SENDING, MessageState.UNKNOWN) or message.attempts != attempt:
        return
    if isinstance(result, Receipt):
        message.state, message.reason, message.sent_at = MessageState.SENT, None, clock.now()
        message.provider_message_id = result.provider_message_id
        audit_log.set_action(message, "send")
    elif isinstance(result, PermanentFailure):
        _end(message, MessageState.FAILED, MessageReason.REFUSED, result.detail)
    elif isinstance(result, NoAnswer):
        _end(message, MessageState.UNKNOWN, MessageReason.NO_ANSWER, result.detail)
    else:
        message.send_at = clock.now() + _delay(attempt)
        if message.send_at >= message.expires_at:
            _end(message, MessageState.FAILED, MessageReason.EXPIRED, result.detail)
        else:
            message.state, message.reason = MessageState.QUEUED, MessageReason.TEMPORARY
            message.detail = result.detail
            planning.enqueue(message)


def _end(message: Message, state: MessageState, reason: MessageReason, detail: str | None = None) -> None:
    message.state, message.reason, message.detail = state, reason, detail
    audit_log.set_action(message, ACTIONS[state])


def _delay(attempt: int) -> timedelta:
    """Return the time until the next attempt. The random part spreads the messages that failed together."""
    longest = min(FIRST_DELAY * int(2 ** min(attempt - 1, 10)), LONGEST_DELAY)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
