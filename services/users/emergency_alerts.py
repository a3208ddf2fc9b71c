"""The alert of an emergency access: an e-mail to each administrator who may review it, at once.

It has no name of the patient and no reason: e-mail is not encrypted, and mailboxes have other readers.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from config import settings
from enums import MessageChannel, Role
from extensions import db
from models import EmergencyAccess, Event, User
from services import clock
from services.clinic.record import clinic_record
from services.jobs import queue
from services.jobs.failures import Dead, RetryLater
from services.jobs.transactions import transaction
from services.messages.providers import NoAnswer, OutgoingMessage, PermanentFailure, TemporaryFailure
from services.messages.providers.selection import provider_of
from services.rows import get_or_404

ALERT = "emergency_access.alert"  # kind of the job
TEXT = (
    "{user} opened the record of a patient in an emergency, on {at}.\n\n"
    "Review this access: {url}/emergency-access/{id}\n"
)


def plan(event: Event) -> None:
    """Add a job for each other active administrator."""
    access = get_or_404(EmergencyAccess, event.entity_id or 0)
    others = select(User.id).where(User.role == Role.ADMIN, User.is_active, User.id != access.user_id)
    for admin_id in db.session.execute(others.order_by(User.id)).scalars().all():
        queue.enqueue(ALERT, {"emergency_access_id": access.id, "user_id": admin_id})


def send(payload: dict[str, Any]) -> None:
    """Send the alert to one administrator. A repeat has the same `Message-ID`."""
    with transaction(f"job {ALERT}"):
        message = _message(**payload)
    if message is None:
        return
    try:
        provider_of(MessageChannel.EMAIL).send(message)
    except TemporaryFailure as failure:
        raise RetryLater(failure.detail) from None
    except (PermanentFailure, NoAnswer) as failure:
        raise Dead(failure.detail) from None


def _message(*, emergency_access_id: int, user_id: int) -> OutgoingMessage | None:
    """Return the alert, or None for a user who may not review the access any more."""
    access, admin = get_or_404(EmergencyAccess, emergency_access_id), get_or_404(User, user_id)
    if admin.role is not Role.ADMIN or not admin.is_active:
        return None
    reference = f"emergency-access-{access.id}-{admin.id}"
    at = clock.local(access.created_at).isoformat(sep=" ", timespec="minutes")
    url = settings().public_url or ""
    return OutgoingMessage(
        reference,
        admin.email,
        TEXT.format(user=access.user.name, at=at, url=url, id=access.id),
        subject="Emergency access to the record of a patient",
        sender_name=clinic_record().name,
        message_id_header=f"<{reference}-{int(access.created_at.timestamp())}@{settings().sender.domain}>",
    )
