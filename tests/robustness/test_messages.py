"""Messages while worker processes are killed, and while appointments move: none lost, no SMS twice."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from enums import AppointmentStatus, JobState, MessageKind, MessageState
from extensions import db
from models import Appointment, Doctor, Job, Message, Patient
from services import clock, integrity_checks
from services.messages import planning, sending
from services.messages.planning import Plan
from services.messages.providers import OutgoingMessage, Receipt
from services.search_key import search_key
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Clinic
from tests.support.gateways import Gateway, MailServer, http_gateway, mail_server
from tests.support.messages import Outbox, enable_all, run_worker
from tests.support.workers import WorkerProcess, start_worker

WAITING = (MessageState.QUEUED, MessageState.SENDING)


def queue_reminders(clinic: Clinic, count: int) -> None:
    """Queue reminders that are due now, e-mail and SMS in turns, each to another patient."""
    enable_all(clinic, quiet_start=None, quiet_end=None)
    start = clock.now().replace(microsecond=0) + timedelta(days=2)
    with clinic.inside() as session:
        doctor = Doctor(name="A", name_fold="a", specialty="general practice", license_number="L-1")
        session.add(doctor)
        for number in range(count):
            name = f"Patient Number{number}"
            patient = Patient(
                name=name, name_fold=search_key(name), search_fold=search_key(name), file_number=name
            )
            if number % 2:
                patient.phone = patient.phone_e164 = f"+2547{number:08d}"
            else:
                patient.email = f"patient{number}@example.com"
            row = Appointment(
                patient=patient,
                doctor=doctor,
                start=start,
                end=start + timedelta(minutes=30),
                blocked_until=start + timedelta(minutes=30),
                overbooked=True,
            )
            session.add_all([patient, row])
            session.flush()
            planning.plan(Plan(MessageKind.REMINDER, patient, "test", clock.now(), appointment=row))
            if number % 100 == 99:
                session.commit()


class WorkerPool:
    """Two worker processes that send through the given servers. A killed one is replaced."""

    def __init__(self, clinic: Clinic, folder: Path, mail_url: str, sms_url: str) -> None:
        settings = clinic.settings
        self.environment = {
            "DATABASE_URI": settings.database_url,
            "JWT_SECRET_KEY": settings.jwt_secret_key,
            "AUDIT_KEY": settings.audit_key,
            "AUDIT_HEADS_FILE": str(settings.heads_file),
            "SMTP_URL": mail_url,
            "MAIL_FROM": "clinic@example.com",
            "SMS_PROVIDER": "http",
            "SMS_HTTP_URL": sms_url,
            "SMS_HTTP_BODY": '{"to": "{to}", "text": "{text}", "id": "{id}"}',
            "SMS_HTTP_ID_PATH": "id",
        }
        self.log = folder / "workers"
        self.processes: list[WorkerProcess] = []
        for _number in range(2):
            self.start()

    def start(self) -> None:
        self.processes.append(start_worker(self.environment, self.log))

    def kill_one(self) -> int:
        """Kill the worker that was started first, and return its process id."""
        victim = self.processes.pop(0)
        victim.kill()
        victim.wait()
        return victim.pid

    def close(self) -> None:
        while self.processes:
            self.kill_one()


@pytest.fixture
def servers() -> Iterator[tuple[MailServer, str, Gateway, str]]:
    with mail_server() as (mails, mail_url), http_gateway() as (gateway, sms_url):
        yield mails, mail_url, gateway, sms_url


def states(clinic: Clinic) -> dict[int, Message]:
    with clinic.inside() as session:
        rows = {row.id: row for row in session.scalars(select(Message))}
        session.expunge_all()
    return rows


def interrupted_by_kill(clinic: Clinic, process_id: int) -> set[int]:
    """Return the messages that a killed worker left in `sending`."""
    with clinic.inside() as session:
        jobs = select(Job).where(Job.state == JobState.RUNNING, Job.locked_by.contains(f":{process_id}:"))
        ids = [job.payload["message_id"] for job in session.scalars(jobs)]
        rows = select(Message.id).where(Message.id.in_(ids), Message.state == MessageState.SENDING)
        return set(session.scalars(rows))


def test_killed_workers_lose_no_message_and_send_no_sms_twice(
    clinic: Clinic,
    servers: tuple[MailServer, str, Gateway, str],
    tmp_path: Path,
    level: LoadLevel,
    figures: Figures,
) -> None:
    mails, mail_url, gateway, sms_url = servers
    accepted: list[int] = []  # ids of messages that a server has accepted, before its answer
    gateway.on_request = lambda body: accept(json.loads(body)["id"].rpartition("-")[2])
    mails.on_accept = lambda mail: accept(ids[str(mail["Message-ID"])])
    gateway.answers({"id": "1"})
    ids = IdsByHeader(clinic)

    def accept(message_id: str | int) -> None:
        accepted.append(int(message_id))
        time.sleep(0.02)  # so that some workers are killed between the acceptance and their commit

    queue_reminders(clinic, level.messages)
    pool = WorkerPool(clinic, tmp_path, mail_url, sms_url)
    interrupted: list[set[int]] = []  # by each kill
    try:
        for number in range(level.message_kills):
            goal = (number + 1) * level.messages // (level.message_kills + 2)
            wait_for(lambda goal=goal: len(set(accepted)) >= goal)
            process_id = pool.kill_one()
            interrupted.append(interrupted_by_kill(clinic, process_id))
            pool.start()
        wait_for(lambda: not any(row.state in WAITING for row in states(clinic).values()))
    finally:
        pool.close()

    counts, rows = Counter(accepted), states(clinic)
    sms = {row.id for row in rows.values() if row.channel.value == "sms"}
    repeated = {message_id: count - 1 for message_id, count in counts.items() if count > 1}
    unknown = {row.id for row in rows.values() if row.state is MessageState.UNKNOWN}
    kills = Counter(message_id for ids in interrupted for message_id in ids)  # for each message
    figures["kills, e-mails accepted twice, SMS unknown"] = (
        len(interrupted),
        sum(repeated.values()),
        len(unknown),
    )
    assert len(rows) == level.messages
    assert {row.state for row in rows.values()} <= {MessageState.SENT, MessageState.UNKNOWN}
    assert set(rows) - unknown <= set(counts)  # none lost
    assert unknown <= sms & kills.keys()
    assert repeated.keys() & sms == set()
    assert all(len(ids - sms) <= 1 for ids in interrupted), interrupted
    assert all(count <= kills[message_id] for message_id, count in repeated.items())
    assert sum(repeated.values()) <= level.message_kills
    with clinic.inside():
        assert list(integrity_checks.violations()) == []


class IdsByHeader:
    """The id of a message by its Message-ID."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic

    def __getitem__(self, header: str) -> int:
        with self.clinic.inside() as session:
            return int(session.scalars(select(Message.id).where(Message.message_id_header == header)).one())


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds. The test runner ends a test that never does."""
    while not condition():
        time.sleep(0.02)


# --- Appointments that change meanwhile ----------------------------------------------------------------

CHANGES, APPOINTMENTS = 64, 16


def test_moves_and_cancels_under_way_cause_no_message_for_a_time_that_is_not_booked(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is sent for the time at which the appointment was when the message became `sending`.

    The appointment is locked then. A later change has a later time of change.
    """
    enable_all(clinic, quiet_start=None, quiet_end=None)
    checks: list[tuple[bool, int]] = []
    outbox = Outbox()
    outbox.answer = lambda outgoing: check(clinic, outgoing, checks)
    monkeypatch.setattr(sending, "provider_of", lambda _channel: outbox)
    rows = [clinic.appointment(patient_id=new_patient(clinic, number)) for number in range(APPOINTMENTS)]
    admins = [clinic.sign_in("admin") for _number in range(8)]
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            run_worker(clinic)
        run_worker(clinic)

    def change(number: int) -> int:
        row, admin = rows[number % APPOINTMENTS], admins[number % len(admins)]
        path = f"/appointments/{row['id']}"
        if number >= CHANGES - APPOINTMENTS // 2:
            return admin.delete(path).status_code
        start = clock.now() + timedelta(days=3, hours=number)
        return admin.patch(
            path, {"date": start.isoformat(), "doctor_id": clinic.doctor.doctor_id}
        ).status_code

    with ThreadPoolExecutor(10) as pool:
        workers = [pool.submit(work) for _number in range(2)]
        statuses = list(pool.map(change, range(CHANGES)))
        ended.set()
        for worker in workers:
            worker.result()

    assert Counter(statuses)[200] >= CHANGES * 3 // 4
    assert len(checks) >= APPOINTMENTS
    assert [message_id for is_right, message_id in checks if not is_right] == []
    told = {row.appointment_id for row in states(clinic).values() if row.state is MessageState.SENT}
    assert told == {row["id"] for row in rows}
    with clinic.inside():
        assert list(integrity_checks.violations()) == []


def new_patient(clinic: Clinic, number: int) -> int:
    return int(clinic.patient(email=f"patient{number}@example.com")["id"])


def check(clinic: Clinic, outgoing: OutgoingMessage, checks: list[tuple[bool, int]]) -> Receipt:
    """Record if the message is true, or the appointment changed after the message became `sending`."""
    message_id = int(outgoing.reference.rpartition("-")[2])
    with clinic.app.app_context(), db.engine.connect() as connection:
        statement = (
            select(
                Message.kind,
                Message.appointment_start,
                Message.updated_at,
                Appointment.start,
                Appointment.status,
                Appointment.updated_at.label("changed_at"),
            )
            .join_from(Message, Appointment, Appointment.id == Message.appointment_id)
            .where(Message.id == message_id)
        )
        row = connection.execute(statement).one()
    is_cancelled = row.status is AppointmentStatus.CANCELLED
    is_true = (
        is_cancelled
        if row.kind is MessageKind.CANCELLED
        else (not is_cancelled and row.start == row.appointment_start)
    )
    checks.append((is_true or row.changed_at >= row.updated_at, message_id))
    return Receipt()
