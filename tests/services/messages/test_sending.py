"""Sending: the conditions, the results of the provider, quiet hours, and workers that end during a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from enums import MessageState
from models import AuditLog, Job
from services.jobs import storage, transactions
from services.jobs.storage import Claim
from services.messages import sending
from services.messages.providers import (
    NoAnswer,
    OutgoingMessage,
    PermanentFailure,
    Receipt,
    TemporaryFailure,
)
from tests.support.booking import later, monday_morning
from tests.support.clinic import Clinic
from tests.support.messages import Outbox, messages_of, outbox, run_worker, stored, summary

__all__ = ["monday_morning", "outbox"]
EMAIL, PHONE = "zawadi@example.com", "+1 555 767 7476"
TODAY_NOON = "2027-03-01T12:00:00+00:00"


def book(clinic: Clinic, date: str = TODAY_NOON, **members: Any) -> dict[str, Any]:
    """Book an appointment of a new patient with a new doctor."""
    members = {"email": EMAIL, "phone": PHONE, "allow_duplicate": True} | members
    patient_id = clinic.patient(**members)["id"]
    return clinic.appointment(patient_id=patient_id, date=date, doctor_id=clinic.doctor_row()["id"])


def fail(failure: Exception) -> Callable[[OutgoingMessage], Receipt]:
    def answer(_message: OutgoingMessage) -> Receipt:
        raise failure

    return answer


def first(clinic: Clinic) -> dict[str, Any]:
    return messages_of(clinic)[0]


# --- Results of the provider ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "state", "reason"),
    [
        (PermanentFailure("550 5.1.1"), "failed", "refused"),
        (NoAnswer("TimeoutError"), "unknown", "no_answer"),
        (TemporaryFailure("451"), "queued", "temporary"),
    ],
)
def test_a_failure_decides_about_the_next_attempt(
    clinic: Clinic, outbox: Outbox, failure: Exception, state: str, reason: str
) -> None:
    book(clinic)
    outbox.answer = fail(failure)

    run_worker(clinic)

    row = first(clinic)
    assert (row["state"], row["reason"], row["attempts"], row["sent_at"]) == (state, reason, 1, None)
    assert row["detail"] == str(failure)


def test_temporary_failures_are_repeated_until_the_message_is_accepted(
    clinic: Clinic, outbox: Outbox
) -> None:
    book(clinic)
    outbox.answer = fail(TemporaryFailure("451"))
    for minutes in (0, 1, 3, 6):
        with later(minutes=minutes):
            run_worker(clinic)
    outbox.answer = lambda _message: Receipt()

    with later(minutes=20):
        run_worker(clinic)

    row = first(clinic)
    assert (row["state"], row["reason"], row["detail"]) == ("sent", None, None)
    assert row["attempts"] == len(outbox.sent) >= 4
    assert len({message.message_id_header for message in outbox.sent}) == 1


def test_a_message_that_is_not_accepted_before_it_expires_has_failed(clinic: Clinic, outbox: Outbox) -> None:
    book(clinic)
    outbox.answer = fail(TemporaryFailure("421"))

    for hours in (0, 1, 2, 3, 3.9, 4, 5):
        with later(hours=hours):
            run_worker(clinic)

    assert [(row["state"], row["reason"]) for row in messages_of(clinic)] == [("failed", "expired")] * 2
    assert first(clinic)["detail"] == "421"


def test_a_worker_that_was_stopped_too_long_does_not_send_late(clinic: Clinic, outbox: Outbox) -> None:
    book(clinic)
    run_worker(clinic)

    with later(hours=4.5):
        run_worker(clinic)

    assert [(row["kind"], row["state"], row["reason"]) for row in messages_of(clinic)] == [
        ("booked", "sent", None),
        ("reminder", "failed", "expired"),
    ]


def test_a_leap_of_the_clock_forwards_and_back_sends_a_reminder_once(clinic: Clinic, outbox: Outbox) -> None:
    book(clinic, date="2027-03-03T12:00:00+00:00")
    run_worker(clinic)
    with later(days=-1):
        run_worker(clinic)
    assert len(outbox.sent) == 1

    for days in (1.2, -1, 0.5, 1.3):
        with later(days=days):
            run_worker(clinic)

    assert [row[2] for row in summary(clinic)] == ["sent", "sent", "queued"]
    assert len(outbox.sent) == 2


# --- Conditions ----------------------------------------------------------------------------------------


def test_the_conditions_are_checked_again_when_sending(clinic: Clinic, outbox: Outbox) -> None:
    rows = [book(clinic, date="2027-03-02T12:00:00+00:00") for _number in range(6)]
    run_worker(clinic)
    paths = [f"/patients/{row['patient_id']}" for row in rows]
    clinic.admin.patch(paths[0], {"email": None})
    clinic.admin.patch(f"{paths[1]}/contact-preferences", {"email": False})
    clinic.admin.patch(paths[2], {"deceased_on": "2027-03-01", "on_conflict": "cancel"})
    clinic.admin.patch(paths[3], {"email": "new@example.com"})
    clinic.admin.post(f"/messages/{first_reminder(clinic, rows[4])['id']}/cancel")

    with later(days=1, hours=2.5):
        run_worker(clinic)

    results = [first_reminder(clinic, row) for row in rows]
    assert [(row["state"], row["reason"]) for row in results] == [
        ("suppressed", "no_address"),
        ("suppressed", "not_allowed"),
        ("cancelled", "patient_inactive"),
        ("sent", None),
        ("cancelled", "by_user"),
        ("sent", None),
    ]


def first_reminder(clinic: Clinic, row: dict[str, Any]) -> dict[str, Any]:
    return messages_of(clinic, appointment_id=row["id"], kind="reminder")[0]


def test_a_message_goes_to_the_present_address(clinic: Clinic, outbox: Outbox) -> None:
    row = book(clinic, date="2027-03-03T12:00:00+00:00")
    run_worker(clinic)
    clinic.admin.patch(f"/patients/{row['patient_id']}", {"email": "new@example.com"})

    with later(days=1.2):
        run_worker(clinic)

    assert [message.recipient for message in outbox.sent] == [EMAIL, "new@example.com"]
    assert first_reminder(clinic, row)["recipient"] == "new@example.com"


def test_a_move_during_the_call_waits_for_no_lock(clinic: Clinic, outbox: Outbox) -> None:
    """No transaction is open during the call: the move succeeds, and the new time is in a second message."""
    row = book(clinic)

    def move_meanwhile(_message: OutgoingMessage) -> Receipt:
        moved = clinic.admin.patch(f"/appointments/{row['id']}", {"date": "2027-03-01T13:00:00+00:00"})
        assert moved.status_code == 200
        outbox.answer = lambda _message: Receipt()
        return Receipt()

    outbox.answer = move_meanwhile
    run_worker(clinic)

    assert [each[0::2] for each in summary(clinic)][:1] == [("booked", "sent")]
    assert ("moved", "email", "sent", None) in summary(clinic)


# --- Quiet hours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "waits"),
    [
        ({"date": "2027-03-02T13:00:00+00:00"}, "moved", True),
        ({"date": "2027-03-02T07:00:00+00:00"}, "moved", False),  # the new start is in the quiet hours
        ({"status": "cancelled"}, "cancelled", True),
    ],
)
def test_messages_of_the_evening_wait_until_the_morning(
    clinic: Clinic, outbox: Outbox, change: dict[str, str], kind: str, waits: bool
) -> None:
    assert evening_message(clinic, "2027-03-02T12:00:00+00:00", change, kind) == (
        ("queued", "2027-03-02T07:30:00+00:00") if waits else ("sent", "2027-03-01T21:00:00+00:00")
    )


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"date": "2027-03-02T13:00:00+00:00"}, "moved"), ({"status": "cancelled"}, "cancelled")],
)
def test_a_change_of_an_appointment_before_the_morning_is_sent_at_night(
    clinic: Clinic, outbox: Outbox, change: dict[str, str], kind: str
) -> None:
    assert evening_message(clinic, "2027-03-02T06:00:00+00:00", change, kind)[0] == "sent"


def evening_message(clinic: Clinic, date: str, change: dict[str, str], kind: str) -> tuple[str, str]:
    """Change an appointment at nine in the evening. Return state and time of the message about it."""
    row = book(clinic, date=date)
    run_worker(clinic)
    with later(hours=13):
        admin = clinic.sign_in("admin")
        assert admin.patch(f"/appointments/{row['id']}", change).status_code == 200
        run_worker(clinic)
    message = messages_of(clinic, kind=kind)[0]
    return message["state"], message["send_at"][:19] + "+00:00"


def test_a_reminder_that_waits_past_the_start_is_dropped(clinic: Clinic, outbox: Outbox) -> None:
    book(clinic, date="2027-03-03T06:00:00+00:00")

    run_worker(clinic)

    assert [(row["state"], row["reason"], row["send_at"][:16]) for row in messages_of(clinic)] == [
        ("sent", None, "2027-03-01T08:00"),
        ("queued", None, "2027-03-02T07:30"),
        ("cancelled", "quiet_hours", "2027-03-03T07:30"),
    ]


def test_a_message_that_becomes_due_in_quiet_hours_waits(clinic: Clinic, outbox: Outbox) -> None:
    """The worker was stopped when the reminder was due, and starts at night."""
    book(clinic, date="2027-03-04T12:00:00+00:00")
    run_worker(clinic)

    with later(days=2, hours=15):
        run_worker(clinic)
    assert len(outbox.sent) == 1
    with later(days=3):
        run_worker(clinic)

    assert len(outbox.sent) == 2


# --- Workers that end during a call --------------------------------------------------------------------


class Killed(BaseException):
    """The end of a worker process, at a place of the test."""


@pytest.mark.parametrize(
    ("channel", "state", "reason", "calls"),
    [
        ("email", "sent", None, 2),
        ("sms", "unknown", "interrupted", 1),
        ("whatsapp", "unknown", "interrupted", 1),
    ],
)
def test_after_a_crash_an_email_is_sent_again_and_an_sms_is_not(
    clinic: Clinic, outbox: Outbox, channel: str, state: str, reason: str | None, calls: int
) -> None:
    row = by_hand(clinic, channel)
    outbox.answer = fail(Killed())  # type: ignore[arg-type]
    payload = {"message_id": row["id"], "attempt": 1}
    with clinic.app.app_context(), pytest.raises(Killed):
        sending.send(payload)
    assert stored(clinic, row["id"]).state is MessageState.SENDING
    outbox.answer = lambda _message: Receipt()

    with clinic.app.app_context():
        sending.send(payload)

    after = clinic.admin.get(f"/messages/{row['id']}").get_json()
    assert (after["state"], after["reason"], after["attempts"]) == (state, reason, 1)
    assert len(outbox.sent) == calls
    assert len({message.message_id_header for message in outbox.sent}) == 1


def test_a_database_that_is_away_after_the_call_causes_no_second_email(
    clinic: Clinic, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "RETRY_INTERVAL", 0.01)
    errors = [OperationalError("UPDATE", {}, Exception("the server is away"))] * 2
    finish = storage.finish

    def fail_twice(claim: Claim) -> bool:
        if errors:
            raise errors.pop()
        return finish(claim)

    monkeypatch.setattr(storage, "finish", fail_twice)
    book(clinic)

    run_worker(clinic)

    assert (errors, len(outbox.sent)) == ([], 1)
    assert (first(clinic)["state"], first(clinic)["attempts"]) == ("sent", 1)


def interrupted(clinic: Clinic, outbox: Outbox) -> dict[str, Any]:
    """Interrupt the call for an e-mail by hand. Return its row."""
    row = by_hand(clinic, "email")
    outbox.answer = fail(Killed())  # type: ignore[arg-type]
    with clinic.app.app_context(), pytest.raises(Killed):
        sending.send({"message_id": row["id"], "attempt": 1})
    outbox.answer = lambda _message: Receipt()
    return row


def test_an_interrupted_email_is_not_repeated_after_the_patient_has_ended_them(
    clinic: Clinic, outbox: Outbox
) -> None:
    row = interrupted(clinic, outbox)
    path = f"/patients/{row['patient_id']}/contact-preferences"
    assert clinic.receptionist.patch(path, {"email": False}).status_code == 200

    with clinic.app.app_context():
        sending.send({"message_id": row["id"], "attempt": 1})

    assert stored(clinic, row["id"]).state is MessageState.UNKNOWN
    assert len(outbox.sent) == 1


def test_an_interrupted_email_is_repeated_after_the_quiet_hours(clinic: Clinic, outbox: Outbox) -> None:
    row = interrupted(clinic, outbox)

    with later(hours=13), clinic.app.app_context():
        sending.send({"message_id": row["id"], "attempt": 1})
    assert (stored(clinic, row["id"]).state, len(outbox.sent)) == (MessageState.QUEUED, 1)
    with later(hours=23.6), clinic.app.app_context():
        sending.send({"message_id": row["id"], "attempt": 1})

    mails = [message for message in outbox.sent if message.reference == f"clinic-{row['id']}"]
    assert stored(clinic, row["id"]).state is MessageState.SENT
    assert len(mails) == 2
    assert len({message.message_id_header for message in mails}) == 1


@pytest.mark.parametrize(("channel", "state"), [("email", "queued"), ("sms", "unknown")])
def test_a_fault_in_a_provider_leaves_no_message_in_sending(
    clinic: Clinic, outbox: Outbox, channel: str, state: str
) -> None:
    row = by_hand(clinic, channel)
    outbox.answer = fail(IndexError("a fault"))

    with clinic.app.app_context():
        sending.send({"message_id": row["id"], "attempt": 1})

    after = stored(clinic, row["id"])
    assert (after.state, after.detail) == (state, "IndexError")


def test_an_email_is_not_repeated_for_a_time_that_is_no_longer_booked(clinic: Clinic, outbox: Outbox) -> None:
    row = by_hand(clinic, "email")
    outbox.answer = fail(Killed())  # type: ignore[arg-type]
    payload = {"message_id": row["id"], "attempt": 1}
    with clinic.app.app_context(), pytest.raises(Killed):
        sending.send(payload)
    clinic.admin.delete(f"/appointments/{row['appointment_id']}")

    with clinic.app.app_context():
        sending.send(payload)

    assert stored(clinic, row["id"]).state is MessageState.UNKNOWN
    assert len(outbox.sent) == 1


def test_a_repeated_job_of_a_sent_message_sends_nothing(clinic: Clinic, outbox: Outbox) -> None:
    row = by_hand(clinic, "sms")
    run_worker(clinic)

    for attempt in (1, 2):
        with clinic.app.app_context():
            sending.send({"message_id": row["id"], "attempt": attempt})

    assert len([message for message in outbox.sent if message.reference == f"clinic-{row['id']}"]) == 1


def by_hand(clinic: Clinic, channel: str) -> dict[str, Any]:
    """Queue a reminder by hand and return it. The patient has booked before."""
    appointment = book(clinic, date="2027-03-02T12:00:00+00:00")
    row = clinic.receptionist.post(f"/appointments/{appointment['id']}/messages", {"channel": channel})
    assert row.status_code == 201, row.get_data(as_text=True)
    message: dict[str, Any] = row.get_json()
    return message


def test_each_sent_message_has_one_audit_entry_and_one_done_job(clinic: Clinic, outbox: Outbox) -> None:
    row = by_hand(clinic, "sms")
    run_worker(clinic)

    with clinic.inside() as session:
        statement = select(AuditLog.action).where(
            AuditLog.entity == "message", AuditLog.entity_id == row["id"]
        )
        actions = session.scalars(statement.order_by(AuditLog.id)).all()
        states = session.scalars(
            select(Job.state).where(Job.payload["message_id"].as_integer() == row["id"])
        ).all()
    assert [action for action in actions if action not in ("read", "list")] == ["create", "send"]
    assert states == ["done"]
