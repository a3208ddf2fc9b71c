"""A provider that records messages, and the worker that sends them, for tests of messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from enums import MessageKind
from models import Job, Message, MessageSettings
from services.jobs.worker import Worker
from services.messages import sending
from services.messages.providers import OutgoingMessage, Receipt
from tests.support.clinic import Clinic


class Outbox:
    """A provider that records each message. `answer` replaces its answer to the next messages."""

    name = "test"

    def __init__(self) -> None:
        self.sent: list[OutgoingMessage] = []
        self.answer: Callable[[OutgoingMessage], Receipt] = lambda message: Receipt(f"id-{message.reference}")

    def send(self, message: OutgoingMessage) -> Receipt:
        self.sent.append(message)
        return self.answer(message)

    def recipients(self) -> list[str]:
        return sorted(message.recipient for message in self.sent)


def enable_all(clinic: Clinic, **values: Any) -> None:
    """Send every kind of message, on every channel. `values` are further settings."""
    every = {"kinds": [kind.value for kind in MessageKind], "channels": ["email", "sms", "whatsapp"]}
    with clinic.inside() as session:
        session.execute(update(MessageSettings).values(**every | values))


@pytest.fixture
def outbox(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """Send every message of the test to an outbox, on all channels."""
    enable_all(clinic)
    outbox = Outbox()
    monkeypatch.setattr(sending, "provider_of", lambda _channel: outbox)
    return outbox


def run_worker(clinic: Clinic) -> None:
    """Dispatch all events and run all due jobs."""
    Worker(clinic.app.app_context, once=True).run()


def messages_of(clinic: Clinic, **filters: Any) -> list[dict[str, Any]]:
    """Return the messages as the front desk reads them, oldest first."""
    rows = clinic.receptionist.get("/messages", query_string={"per_page": 1000, "sort_by": "id"} | filters)
    assert rows.status_code == 200, rows.get_data(as_text=True)
    return list(rows.get_json())


def summary(clinic: Clinic, **filters: Any) -> list[tuple[str, str, str, str | None]]:
    """Return kind, channel, state and reason of the messages, oldest first."""
    return [
        (row["kind"], row["channel"], row["state"], row["reason"]) for row in messages_of(clinic, **filters)
    ]


def set_message(clinic: Clinic, message_id: int, **values: Any) -> None:
    """Change the stored row of a message."""
    with clinic.inside() as session:
        session.execute(update(Message).where(Message.id == message_id).values(**values))


def make_due(clinic: Clinic, now: datetime) -> None:
    """Make every queued message and its job due."""
    with clinic.inside() as session:
        session.execute(update(Message).where(Message.send_at > now).values(send_at=now))
        session.execute(update(Job).where(Job.run_at > now).values(run_at=now))


def token_in(text: str, path: str) -> str:
    """Return the token of the link to `/a` or `/u` in a text."""
    return text.partition(f"/{path}/")[2].split()[0].strip(".,)>")


def stored(clinic: Clinic, message_id: int) -> Message:
    """Return a message as it is stored."""
    with clinic.inside() as session:
        row: Message = session.scalars(select(Message).where(Message.id == message_id)).one()
        session.expunge(row)
        return row
