"""Stored messages: integrity checks, metrics, backup, and what the log provider writes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

import config
from enums import MessageChannel
from models import ContactStop, Job
from services import clock, integrity_checks
from services.messages import planning
from services.messages.providers import OutgoingMessage
from services.messages.providers.log import LogProvider
from tests.conftest import settings_for
from tests.support.clinic import Clinic
from tests.support.messages import Outbox, messages_of, outbox, run_worker, set_message

__all__ = ["outbox"]


def sent(clinic: Clinic) -> int:
    """Send a message by SMS, at any hour. Return its id; a reminder is still queued."""
    clinic.admin.patch("/messages/settings", {"quiet_start": None, "quiet_end": None})
    clinic.appointment(patient_id=clinic.patient(phone="+254712345678")["id"], date="2030-03-04T10:00:00Z")
    run_worker(clinic)
    message_id: int = messages_of(clinic, kind="booked")[0]["id"]
    return message_id


def violated(clinic: Clinic) -> list[str]:
    with clinic.inside():
        return [rule for rule, *_ids in integrity_checks.violations()]


def forget_time(clinic: Clinic) -> None:
    set_message(clinic, sent(clinic), state="sent", reason=None, sent_at=None)


def forget_reason(clinic: Clinic) -> None:
    set_message(clinic, sent(clinic), state="failed", reason=None)


def forget_attempts(clinic: Clinic) -> None:
    set_message(clinic, sent(clinic), state="unknown", reason="interrupted", attempts=0)


def remove_jobs(clinic: Clinic) -> None:
    sent(clinic)
    with clinic.inside() as session:
        session.execute(delete(Job))
        session.add(Job(kind=planning.SEND_EMAIL, state="queued", run_at=clock.now(), created_at=clock.now()))


def send_after_stop(clinic: Clinic) -> None:
    message_id = sent(clinic)
    now = clock.now()
    values: dict[str, Any] = {"state": "sent", "reason": None, "sent_at": now, "send_at": now, "attempts": 1}
    with clinic.inside() as session:
        stop = ContactStop(
            channel=MessageChannel.SMS, number="+254712345678", created_at=now.replace(year=2020)
        )
        session.add(stop)
    set_message(clinic, message_id, **values)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (forget_time, "time of sending"),
        (forget_reason, "has a reason"),
        (forget_attempts, "at least one attempt"),
        (remove_jobs, "has a job"),
        (send_after_stop, "after a STOP"),
    ],
)
def test_verify_finds_messages_that_cannot_be(
    clinic: Clinic, outbox: Outbox, change: Callable[[Clinic], None], rule: str
) -> None:
    change(clinic)

    rules = violated(clinic)

    assert len(rules) == 1
    assert rule in rules[0]


def test_messages_of_the_worker_have_no_violation(clinic: Clinic, outbox: Outbox) -> None:
    sent(clinic)

    assert violated(clinic) == []


def test_the_metrics_count_the_messages_of_the_day(clinic: Clinic, outbox: Outbox) -> None:
    now = clock.now()
    set_message(clinic, sent(clinic), send_at=now)

    text = clinic.admin.get("/metrics").get_data(as_text=True)

    lines = [line for line in text.splitlines() if line.startswith("clinic_messages{")]
    assert len(lines) == 1
    assert 'channel="sms"' in lines[0]
    assert 'kind="booked"' in lines[0]
    assert lines[0].endswith(" 1.0")


def test_a_backup_contains_messages_preferences_and_stops(
    clinic: Clinic, outbox: Outbox, tmp_path: Path, new_database: Callable[[str], str], engine_name: str
) -> None:
    message = clinic.admin.get(f"/messages/{sent(clinic)}").get_json()
    path = f"/patients/{message['patient_id']}/contact-preferences"
    clinic.admin.patch(path, {"whatsapp": False})
    with clinic.inside() as session:
        session.add(ContactStop(channel=MessageChannel.SMS, number="+254712345678", created_at=clock.now()))
    before = [clinic.admin.get(each).get_json() for each in ("/messages", path)]
    file = tmp_path / "clinic.backup"
    created = clinic.app.test_cli_runner().invoke(args=["backup", "create", str(file)])
    assert created.exit_code == 0, created.output

    url = new_database(engine_name)
    if engine_name == "sqlite":
        Path(url.removeprefix("sqlite:///")).unlink()
    restored = Clinic(settings_for(url, audit_heads_file=clinic.settings.heads_file))
    result = restored.app.test_cli_runner().invoke(args=["backup", "restore", str(file)])

    assert result.exit_code == 0, result.output
    restored.numbers = itertools.count(100)  # other users than the restored ones
    caller = restored.sign_in("admin")
    assert [caller.get(each).get_json() for each in ("/messages", path)] == before
    restored.close()


def test_the_log_provider_hides_tokens_and_in_production_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = OutgoingMessage("clinic-7", "+254712345678", "Confirm: https://clinic.example/a/Abc-_123 now")
    settings = settings_for("sqlite:///clinic.db")
    written = []
    for production in (False, True):
        config.use(settings.model_copy(update={"environment": "production"} if production else {}))
        LogProvider().send(message)
        written.append(capsys.readouterr().err)

    assert "Confirm: https://clinic.example/a/... now" in written[0]
    assert not any("Abc-_123" in text for text in written)
    assert "clinic-7" in written[1]
    assert "254712345678" not in written[1]
    assert "Confirm" not in written[1]
