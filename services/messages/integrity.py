"""Integrity checks of messages to patients."""

from __future__ import annotations

from sqlalchemy import and_, or_, select

from enums import JobState, MessageState
from models import Billing, ContactStop, Job, Message, Visit
from services.integrity_rule import IntegrityCheck
from services.messages.planning import SEND_EMAIL, SEND_TO_PHONE

SENT = (MessageState.SENT, MessageState.DELIVERED)
NOT_SENT = (MessageState.FAILED, MessageState.CANCELLED, MessageState.SUPPRESSED, MessageState.UNKNOWN)
CALLED = (*SENT, MessageState.SENDING, MessageState.UNKNOWN)


def message_checks() -> list[IntegrityCheck]:
    """Return the checks of messages."""
    sent_id = Job.payload["message_id"].as_integer()
    # a payload without an id would make NOT IN find nothing
    jobs = select(sent_id).where(
        Job.kind.in_((SEND_EMAIL, SEND_TO_PHONE)), Job.state != JobState.DONE, sent_id.is_not(None)
    )
    delivered = Message.state == MessageState.DELIVERED
    return [
        IntegrityCheck(
            "A sent message has the time of sending, and exactly a delivered one the time of delivery.",
            select(Message.id).where(
                or_(
                    and_(Message.state.in_(SENT), Message.sent_at.is_(None)),
                    delivered != Message.delivered_at.is_not(None),
                )
            ),
        ),
        IntegrityCheck(
            "A message that was not sent has a reason, and a sent one has none.",
            select(Message.id).where(
                or_(
                    and_(Message.state.in_(NOT_SENT), Message.reason.is_(None)),
                    and_(Message.state.in_(SENT), Message.reason.is_not(None)),
                )
            ),
        ),
        IntegrityCheck(
            "A message that a provider may have accepted has at least one attempt.",
            select(Message.id).where(Message.state.in_(CALLED), Message.attempts == 0),
        ),
        IntegrityCheck(
            "A queued message has a job that sends it.",
            select(Message.id).where(
                Message.state.in_((MessageState.QUEUED, MessageState.SENDING)), Message.id.not_in(jobs)
            ),
        ),
        IntegrityCheck(
            "A message about a visit or a bill is to its patient.",
            select(Message.id)
            .outerjoin(Visit, Visit.id == Message.visit_id)
            .outerjoin(Billing, Billing.id == Message.billing_id)
            .where(or_(Visit.patient_id != Message.patient_id, Billing.patient_id != Message.patient_id)),
        ),
        IntegrityCheck(
            "No message that was due after a STOP was sent to the number.",
            select(Message.id)
            .join(
                ContactStop,
                and_(ContactStop.channel == Message.channel, ContactStop.number == Message.recipient),
            )
            .where(Message.state.in_(SENT), Message.send_at > ContactStop.created_at),
        ),
    ]
