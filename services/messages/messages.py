"""Messages for the front desk: the list, sending by hand, and cancelling."""

from __future__ import annotations

import uuid

from sqlalchemy import or_, select
from sqlalchemy.orm import joinedload

from enums import AppointmentStatus, MessageChannel, MessageKind, MessageReason, MessageState
from errors import ClinicError
from extensions import db
from models import Appointment, Message
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.related_rows import of_patient_or_file, patient_column, patient_filter
from services.listing.spec import ListQuery, ListSpec, Page
from services.messages import planning
from services.messages.conditions import is_active
from services.messages.planning import Plan
from services.rows import get_or_404

LIST: ListSpec[Message] = ListSpec(
    name="messages",
    model=Message,
    area="message",
    main_date="send_at",
    text=lambda text: of_patient_or_file(Message.patient_id, text),
    options=(joinedload(Message.patient),),
    omit=frozenset({"version", "dedupe_key", "provider_message_id", "message_id_header"}),
    computed={"patient_name": patient_column(Message.patient_id)},
    filters={"patient_name": patient_filter(Message.patient_id)},
    kept_since="created_at",
    newest_first=True,
)
WAITING = (MessageState.QUEUED, MessageState.SENDING)


def find(actor: Actor, query: ListQuery) -> Page[Message]:
    """Return one page of messages."""
    return paging.page(actor, LIST, query)


def get(_actor: Actor, message_id: int, *, lock: bool = False) -> Message:
    """Return the message, or raise 404."""
    return get_or_404(Message, message_id, lock=lock)


def cancel(message: Message) -> Message:
    """Cancel a queued message. Raises 409 `invalid_transition` in another state."""
    if message.state is not MessageState.QUEUED:
        raise ClinicError(
            "invalid_transition", f"The message is {message.state}: only a queued one can be cancelled."
        )
    message.state, message.reason = MessageState.CANCELLED, MessageReason.BY_USER
    audit_log.set_action(message, "cancel")
    return message


def send_now(
    actor: Actor, appointment: Appointment, *, kind: MessageKind, channel: MessageChannel | None
) -> Message:
    """Queue a message about a future appointment. The caller has locked the appointment.

    Raises 409 `conflict` if the message would not be true, `patient_inactive`, and `already_done` with the id
    of an equal message that waits.
    """
    expected = AppointmentStatus.CANCELLED if kind is MessageKind.CANCELLED else AppointmentStatus.SCHEDULED
    if appointment.status is not expected:
        raise ClinicError("conflict", f"The appointment is {appointment.status}. Choose another kind.")
    if appointment.start <= clock.now():
        raise ClinicError("conflict", "The appointment has started already.")
    if kind is MessageKind.MOVED and appointment.previous_start is None:
        raise ClinicError("conflict", "The appointment was never moved. Choose another kind.")
    if not is_active(appointment.patient):
        raise ClinicError("patient_inactive", "The patient is archived or deceased.")
    _refuse_repeat(appointment, kind, channel)
    message = planning.plan(
        Plan(
            kind,
            appointment.patient,
            f"hand-{uuid.uuid4()}",
            clock.now(),
            appointment=appointment,
            channels=(channel,) if channel is not None else (),
            created_by_id=actor.user_id,
        )
    )
    if message is None:
        raise ClinicError("conflict", "The message settings have no channel. An administrator can add one.")
    return message


def _refuse_repeat(appointment: Appointment, kind: MessageKind, channel: MessageChannel | None) -> None:
    """Raise 409 if an equal message is sent now, at the end of the quiet hours, or again after a failure.

    A second click must not send a second message. A reminder that is planned for later does not count.
    """
    now = clock.now()
    conditions = [
        Message.appointment_id == appointment.id,
        Message.kind == kind,
        Message.appointment_start == appointment.start,
        Message.state.in_(WAITING),
        or_(
            Message.send_at <= planning.after_quiet_hours(kind, now, appointment),
            Message.attempts > 0,
            Message.created_by_id.is_not(None),
        ),
    ]
    if channel is not None:
        conditions.append(Message.channel == channel)
    waiting = db.session.scalar(select(Message.id).where(*conditions).limit(1))
    if waiting is not None:
        raise ClinicError("already_done", "An equal message is being sent.", id=waiting)
