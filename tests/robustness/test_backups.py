"""Backups: consistent under load, identical after a restore, refused if damaged."""

from __future__ import annotations

import gzip
import hmac
import json
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import select, text, update

import commands.backup
import config
from commands.backup import TRANSIENT_TABLES
from enums import JobState
from models import Event, Job
from security import encrypted_file
from security.key_rings import Key
from services import clock
from services.jobs import leases, queue, storage
from services.jobs.registry import HANDLERS, SUBSCRIBERS
from services.jobs.transactions import queue_transaction
from services.jobs.worker import Worker
from tests.conftest import settings_for
from tests.robustness.abuse_targets import contents
from tests.robustness.cluster import Cluster, assert_consistent
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Clinic
from tests.support.database import objects_at
from tests.support.furnished import furnish
from tests.support.servers import PostgresServer

RESTORE_LIMIT_S = 60
MakeDatabase = Callable[[str], str]


@pytest.fixture
def make_empty(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeDatabase]:
    """Return a function that creates a database without tables."""
    created: list[tuple[PostgresServer, str]] = []

    def make(engine_name: str) -> str:
        if engine_name == "sqlite":
            return f"sqlite:///{tmp_path / f'restored-{len(list(tmp_path.iterdir()))}.db'}"
        server: PostgresServer = request.getfixturevalue("postgres")
        created.append((server, server.create()))
        return created[-1][1]

    yield make
    for server, url in created:
        server.drop(url)


@contextmanager
def clinic_on(url: str, **settings: Any) -> Iterator[Clinic]:
    """Create the application on another database for the block. Then restore the settings."""
    before = config.settings()
    clinic = Clinic(settings_for(url, **settings))
    try:
        yield clinic
    finally:
        clinic.close()
        config.use(before)


def backup(clinic: Clinic, *arguments: object, **options: Any) -> Result:
    """Run `flask backup` with the arguments."""
    words = ["backup", *map(str, arguments)]
    return clinic.app.test_cli_runner().invoke(args=words, catch_exceptions=False, **options)


def credit_note_of_a_void(clinic: Clinic) -> str:
    """Void a new bill and return the number of its credit note."""
    bill = clinic.bill("10.00")
    void = clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "typed twice"}).get_json()
    return str(void["credit_notes"][0]["number"])


def test_a_restored_database_is_identical(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    furnish(clinic)
    clinic.admin.patch("/clinic", {"name": "Restored Clinic"})
    assert credit_note_of_a_void(clinic).endswith("-000001")
    file, source, target = tmp_path / "clinic.backup", clinic.settings.database_url, make_empty(engine_name)

    created = backup(clinic, "create", file)
    checked = backup(clinic, "check", file)
    with clinic_on(target) as restored:
        response = backup(restored, "restore", file)

        assert (created.exit_code, checked.exit_code, response.exit_code) == (0, 0, 0), response.output
        stored, copied = contents(source), contents(target)
        assert {name for name in TRANSIENT_TABLES if stored.pop(name)} >= {"exports", "user_sessions"}
        assert [copied.pop(name) for name in TRANSIENT_TABLES] == [[]] * len(TRANSIENT_TABLES)
        assert copied == stored
        assert objects_at(target) == objects_at(source)
        filled = {name for name, rows in contents(target).items() if rows}
        assert filled >= {"patients", "ledger_entries", "credit_notes", "clinic_record_versions"}
        assert_consistent(restored)
        # the sequences and the numbers continue after the restored ones
        restored.patient()
        assert restored.admin.patch("/clinic", {"name": "Later Clinic"}).status_code == 200
        assert credit_note_of_a_void(restored).endswith("-000002")
        assert_consistent(restored)
    private = [file, Path(target.removeprefix("sqlite:///"))] if engine_name == "sqlite" else [file]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


@pytest.mark.parametrize("of_earlier_version", [False, True])
def test_a_restore_makes_no_ended_session_and_no_used_token_valid_again(
    clinic: Clinic,
    engine_name: str,
    make_empty: MakeDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_earlier_version: bool,
) -> None:
    """Earlier versions wrote sessions and tokens to the backup."""
    file, target, leaver = tmp_path / "clinic.backup", make_empty(engine_name), clinic.receptionist
    reset = clinic.admin.post(f"/users/{leaver.user_id}/password-reset").get_json()["token"]
    with monkeypatch.context() as patch:
        if of_earlier_version:
            patch.setattr(commands.backup, "TRANSIENT_TABLES", ("export_chunks", "exports"))
        backup(clinic, "create", file)
    new_password = {"token": reset, "new_password": "another harbour at dusk"}
    assert clinic.nobody.post("/auth/reset-password", new_password).status_code == 200
    assert leaver.get("/auth/me").status_code == 401

    with clinic_on(target) as restored:
        assert backup(restored, "restore", file).exit_code == 0
        leaver.clinic = restored
        refreshed = restored.nobody.post("/auth/refresh-token", {"refresh_token": leaver.refresh_token})

        assert (leaver.get("/auth/me").status_code, refreshed.status_code) == (401, 401)
        assert restored.nobody.post("/auth/reset-password", new_password).status_code == 401


def test_jobs_and_events_continue_after_a_restore(
    clinic: Clinic,
    engine_name: str,
    make_empty: MakeDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job that ran at the time of the backup has the lease of a worker that does not exist any more."""
    monkeypatch.setattr(leases, "CONFIRMATION", 0.2)
    seen: list[int] = []
    monkeypatch.setitem(HANDLERS, "test", lambda payload: seen.append(payload["number"]))
    monkeypatch.setitem(SUBSCRIBERS, "patient.created", [lambda event: add_job(event.id) and None])
    with clinic.inside():
        add_job(1)
        add_job(2)
    with clinic.app.app_context(), queue_transaction():
        assert [claim.payload for claim in storage.claim("a worker", 1)] == [{"number": 1}]
    clinic.patient()
    with clinic.inside() as session:
        session.execute(
            update(Job).where(Job.state == JobState.RUNNING).values(locked_until=clock.now() - storage.LEASE)
        )
    file, target = tmp_path / "clinic.backup", make_empty(engine_name)
    backup(clinic, "create", file)

    with clinic_on(target) as restored:
        assert backup(restored, "restore", file).exit_code == 0
        Worker(restored.app.app_context, once=True).run()

        assert len(seen) == 3
        assert {1, 2} <= set(seen)
        with restored.inside() as session:
            assert set(session.scalars(select(Job.state).where(Job.kind == "test"))) == {JobState.DONE}
            assert session.scalars(select(Event).where(Event.dispatched_at.is_(None))).all() == []
        assert_consistent(restored)


def add_job(number: int) -> Job | None:
    return queue.enqueue("test", {"number": number})


def test_a_backup_can_be_piped(clinic: Clinic, engine_name: str, make_empty: MakeDatabase) -> None:
    clinic.patient(name="Ada Quill")
    target = make_empty(engine_name)

    piped = backup(clinic, "create", "-").stdout_bytes
    with clinic_on(target) as restored:
        response = backup(restored, "restore", "-", input=piped)

        assert response.exit_code == 0, response.output
        assert contents(target)["patients"] == contents(clinic.settings.database_url)["patients"]


def test_a_failed_backup_changes_and_leaves_no_file(clinic: Clinic, tmp_path: Path) -> None:
    file, folder = tmp_path / "clinic.backup", tmp_path / "nowhere" / "clinic.backup"
    file.write_text("kept")

    again, nowhere = backup(clinic, "create", file), backup(clinic, "create", folder)

    assert (again.exit_code, nowhere.exit_code) == (1, 1)
    assert file.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [file]


# --- Damage --------------------------------------------------------------------------------------------


def damage(content: bytes, rng: random.Random) -> bytes:
    """Return the backup truncated or with one changed bit, in one of three cases in the header lines."""
    index = rng.choice((rng.randrange(len(content)), rng.randrange(200), len(content) - 1))
    if rng.random() < 0.5:
        return content[:index]
    return content[:index] + bytes([content[index] ^ (1 << rng.randrange(8))]) + content[index + 1 :]


def test_a_damaged_backup_is_refused_and_changes_nothing(
    clinic: Clinic,
    engine_name: str,
    make_empty: MakeDatabase,
    tmp_path: Path,
    level: LoadLevel,
    figures: Figures,
) -> None:
    clinic.bill("12.00")
    file, target, rng = tmp_path / "clinic.backup", make_empty(engine_name), random.Random(7)
    backup(clinic, "create", file)
    content = file.read_bytes()

    refused = 0
    with clinic_on(target) as restored:
        for _ in range(level.damages // 2):
            file.write_bytes(damage(content, rng))
            response = backup(restored, "restore", file)
            assert (response.exit_code, contents(target)) == (1, {}), response.output
            refused += "Nothing was changed." in response.output

        file.write_bytes(content)
        assert backup(restored, "restore", file).exit_code == 0
    figures["damaged backups refused"] = f"{refused} of {level.damages // 2}"
    assert refused == level.damages // 2


# --- Encryption ----------------------------------------------------------------------------------------

OTHER_KEY = "another-" + "h3N7b5Rq" * 5


def content_of(file: Path) -> bytes:
    """Return the decrypted content of a backup."""
    with file.open("rb") as source:
        return encrypted_file.reader(source.readline(), source).read()


def unpacked(content: bytes) -> bytes:
    """Return the content of a backup without compression."""
    header_line, _, data = content.partition(b"\n")
    return data if json.loads(header_line)["engine"] == "sqlite" else gzip.decompress(data)


def test_no_value_of_a_patient_is_in_the_file(clinic: Clinic, tmp_path: Path) -> None:
    file, words = tmp_path / "clinic.backup", [b"Zebulon", b"Quillfeather"]
    clinic.patient(name="Zebulon Quillfeather")

    assert backup(clinic, "create", file).exit_code == 0

    content = content_of(file)
    assert all(word in unpacked(content) for word in words)
    for part in (content[100:130], *words):  # neither the text nor its compressed form
        assert part not in file.read_bytes()
    assert b"sqlite" not in file.read_bytes()
    assert list(tmp_path.iterdir()) == [file]


def test_a_backup_is_restored_with_an_earlier_key_and_refused_without(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    file, target, key = tmp_path / "clinic.backup", make_empty(engine_name), clinic.settings.backup_key
    clinic.patient()
    backup(clinic, "create", file)

    with clinic_on(target, backup_key=OTHER_KEY) as restored:
        for command in ("restore", "check"):
            refused = backup(restored, command, file)
            assert (refused.exit_code, contents(target)) == (1, {})
            assert f"encrypted under the key '{Key.of(key).id}'" in refused.output
    with clinic_on(target, backup_key=OTHER_KEY, backup_keys_previous=[key]) as restored:
        assert backup(restored, "restore", file).exit_code == 0
        assert contents(target)["patients"] == contents(clinic.settings.database_url)["patients"]


def test_a_backup_of_an_earlier_version_is_restored(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    """It has no encryption, but a MAC under the key of the audit log."""
    file, target, key = tmp_path / "clinic.backup", make_empty(engine_name), clinic.settings.audit_key
    clinic.patient()
    backup(clinic, "create", file)
    header_line, _, data = content_of(file).partition(b"\n")
    signed = b"backup\n" + header_line + b"\n" + data
    mac = hmac.digest(key.encode(), signed, "sha256").hex().encode()
    plain = b"\n".join((header_line, mac, data))

    with clinic_on(target, audit_key=OTHER_KEY) as restored:
        file.write_bytes(plain)
        refused = backup(restored, "restore", file)
        assert (refused.exit_code, contents(target)) == (1, {})
        assert "unknown AUDIT_KEY" in refused.output
    with clinic_on(target, audit_key=OTHER_KEY, audit_keys_previous=[key]) as restored:
        for wrong in (plain[:-1], plain + b"x", plain.replace(mac, b"0" * 64), plain[:300], header_line, b""):
            file.write_bytes(wrong)
            assert (backup(restored, "restore", file).exit_code, contents(target)) == (1, {})
        file.write_bytes(plain)
        assert backup(restored, "restore", file).exit_code == 0
        assert contents(target)["patients"] == contents(clinic.settings.database_url)["patients"]


def test_a_restore_into_a_database_with_data_is_refused(clinic: Clinic, tmp_path: Path) -> None:
    file = tmp_path / "clinic.backup"
    clinic.patient()
    backup(clinic, "create", file)
    clinic.patient()
    before = contents(clinic.settings.database_url)

    response = backup(clinic, "restore", file)

    assert response.exit_code == 1
    assert contents(clinic.settings.database_url) == before


def test_a_backup_of_the_other_engine_is_refused(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    other = "postgresql" if engine_name == "sqlite" else "sqlite"
    file, target = tmp_path / "clinic.backup", make_empty(other)
    backup(clinic, "create", file)

    with clinic_on(target) as restored:
        response = backup(restored, "restore", file)

        assert (response.exit_code, contents(target)) == (1, {})
        assert f"a backup of {engine_name}" in response.output


# --- Consistency------------------------------------------------------------------------------------------


def test_entries_after_the_backup_are_reported_as_lost(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "clinic.backup"
    clinic.patient()
    backup(clinic, "create", file)
    for _ in range(3):
        clinic.patient()
    clinic.app.test_cli_runner().invoke(args=["audit", "heads"])

    with clinic_on(make_empty(engine_name), audit_heads_file=clinic.settings.heads_file) as restored:
        backup(restored, "restore", file)
        run = restored.app.test_cli_runner().invoke
        before = run(args=["audit", "verify"])
        recorded = run(args=["audit", "restored", "--reason", "backup of last night"])
        after = run(args=["audit", "verify"])

    assert (before.exit_code, recorded.exit_code, after.exit_code) == (1, 0, 0), recorded.output
    assert "is missing" in before.output
    assert "lost: chain" in recorded.output


def test_a_backup_under_load_is_consistent(
    cluster: Cluster, make_empty: MakeDatabase, tmp_path: Path, figures: Figures
) -> None:
    clinic, file = cluster.clinic, tmp_path / "clinic.backup"
    config.use(clinic.settings)
    doctor, stop, lock = clinic.doctor_row()["id"], threading.Event(), threading.Lock()
    acknowledged: list[tuple[float, float, int]] = []  # sent, answered, patient id

    def work() -> None:
        while not stop.is_set():
            sent = time.monotonic()
            row = cluster.send("POST", "/patients", {"name": f"Written {sent:.6f}"}).json()
            with lock:
                acknowledged.append((sent, time.monotonic(), row["id"]))
            visit = {"patient_id": row["id"], "doctor_id": doctor, "amount_paid": "5.00"}
            assert cluster.send("POST", "/visits", visit).status_code == 201

    writers = [threading.Thread(target=work) for _ in range(8)]
    for writer in writers:
        writer.start()
    while len(acknowledged) < len(writers) and all(writer.is_alive() for writer in writers):
        time.sleep(0.05)
    started = time.monotonic()
    created = backup(clinic, "create", file)
    ended = time.monotonic()
    time.sleep(0.5)
    stop.set()
    for writer in writers:
        writer.join()

    assert created.exit_code == 0, created.output
    with clinic_on(make_empty(cluster.engine_name)) as restored:
        assert backup(restored, "restore", file).exit_code == 0
        assert_consistent(restored)
        with restored.inside() as session:
            restored_ids = set(session.execute(text("SELECT id FROM patients")).scalars())
    assert {row_id for _, answered, row_id in acknowledged if answered < started} <= restored_ids
    assert not {row_id for sent, _, row_id in acknowledged if sent > ended} & restored_ids
    assert [row_id for sent, answered, row_id in acknowledged if answered < started and sent < ended]
    figures["patients written meanwhile"] = len(acknowledged)


def test_the_demo_clinic_is_restored_and_verified_in_a_minute(
    clinic: Clinic,
    engine_name: str,
    make_empty: MakeDatabase,
    tmp_path: Path,
    level: LoadLevel,
    figures: Figures,
) -> None:
    file, load = tmp_path / "clinic.backup", ["demo", "load", "--patients", str(level.demo_patients)]
    assert clinic.app.test_cli_runner().invoke(args=load).exit_code == 0
    assert backup(clinic, "create", file).exit_code == 0

    with clinic_on(make_empty(engine_name)) as restored:
        started = time.monotonic()
        assert backup(restored, "restore", file).exit_code == 0
        assert_consistent(restored)
        duration_s = time.monotonic() - started

    figures["patients"] = level.demo_patients
    figures["restored and verified, s"] = round(duration_s, 2)
    assert duration_s < RESTORE_LIMIT_S
