"""Exports: the request, the job that writes the file, the file, and its removal."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from python_calamine import CalamineWorkbook
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from api import list_exports, list_files
from enums import ExportState, JobState, Role
from models import AuditLog, Export, ExportChunk, Job, User
from services import clock
from services.audit import audit_log
from services.exports import exports, files
from services.integrity_checks import violations
from services.jobs import housekeeping, storage, transactions
from services.jobs.failures import LeaseLost
from services.jobs.worker import Worker
from tests.support.clinic import Caller, Clinic


def run_worker(clinic: Clinic) -> None:
    Worker(clinic.app.app_context, once=True).run()


def ask(caller: Caller, path: str, file_format: str = "csv") -> int:
    """Ask for an export and return its id."""
    response = caller.post("/exports", {"path": path, "format": file_format})
    assert response.status_code == 202, response.get_data(as_text=True)
    export_id: int = response.get_json()["id"]
    assert response.headers["Location"] == f"/exports/{export_id}"
    return export_id


def exported(clinic: Clinic, caller: Caller, path: str, file_format: str = "csv") -> dict[str, Any]:
    """Let a job write an export and return it."""
    export_id = ask(caller, path, file_format)
    run_worker(clinic)
    export: dict[str, Any] = caller.get(f"/exports/{export_id}").get_json()
    return export


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_a_job_writes_the_rows_of_the_query_string(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_files, "BATCH", 2)
    monkeypatch.setattr(files, "CHUNK_SIZE", 100)
    for name in ("Amina", "Bo", "Chen", "Dagny", "Eve"):
        clinic.patient(name=name, gender="female" if name != "Bo" else "male")

    path = "/patients?gender=female&sort_by=name&sort_order=desc"
    export = exported(clinic, clinic.admin, path)
    sheet = exported(clinic, clinic.admin, path, "xlsx")
    file = clinic.admin.get(export["file"])
    content = file.get_data()

    assert export | {"id": 0, "created_at": 0, "finished_at": 0, "expires_at": 0, "digest": 0} == {
        "id": 0,
        "path": path,
        "format": "csv",
        "state": "ready",
        "count": 4,
        "left_out": 0,
        "size": len(content),
        "digest": 0,
        "problem": None,
        "file": f"/exports/{export['id']}/file",
        "created_at": 0,
        "finished_at": 0,
        "expires_at": 0,
    }
    assert export["digest"] == hashlib.sha256(content).hexdigest()
    assert [row["name"] for row in table(content)] == ["Eve", "Dagny", "Chen", "Amina"]
    assert content == clinic.admin.get(f"{path}&format=csv").get_data()
    assert file.headers["Content-Disposition"].startswith('attachment; filename="patients-')
    assert file.headers["Cache-Control"] == "no-store"
    workbook = CalamineWorkbook.from_filelike(io.BytesIO(clinic.admin.get(sheet["file"]).get_data()))
    rows = workbook.get_sheet_by_index(0).to_python()
    assert [row[rows[0].index("name")] for row in rows[1:]] == ["Eve", "Dagny", "Chen", "Amina"]
    ready = clinic.admin.get("/exports?state=ready").get_json()
    assert [row["id"] for row in ready] == [sheet["id"], export["id"]]
    with clinic.inside() as session:
        assert session.scalar(select(func.count()).select_from(ExportChunk)) > 4
        assert list(violations()) == []


WRONG_PATHS = [
    "/patients/1",
    "/nowhere",
    "patients",
    "https://other.example/patients",
    "//patients",
    "/patients#top",
    "/messages/templates",
    "/patients?page=2",
    "/patients?nothing=1",
    "/patients?sort_by=nothing",
    "/patients?format=csv",
    "/exports?state=lost",
    "/patients?filter={",
]


def test_a_wrong_path_is_refused_at_once_as_the_list_itself(clinic: Clinic) -> None:
    def statuses(caller: Caller, *paths: str) -> list[int]:
        return [caller.post("/exports", {"path": path, "format": "csv"}).status_code for path in paths]

    assert statuses(clinic.admin, *WRONG_PATHS) == [422] * len(WRONG_PATHS)
    assert statuses(clinic.receptionist, "/users", "/prescriptions", "/visits?sort_by=summary") == [403] * 3
    assert statuses(clinic.technician, "/patients?account_balance_gte=1") == [403]
    assert (
        statuses(clinic.admin, "/patients/999/access-log", "/doctors/99999999999999999999/time-off")
        == [404] * 2
    )
    assert clinic.admin.post("/exports", {"path": "/patients", "format": "pdf"}).status_code == 422
    assert clinic.nobody.post("/exports", {"path": "/patients", "format": "csv"}).status_code == 401
    assert clinic.admin.get("/exports").get_json() == []


def test_a_list_below_a_row_is_exported_and_audited_once(clinic: Clinic) -> None:
    patient = clinic.patient()["id"]
    with clinic.inside() as session:
        before = session.scalar(select(func.max(AuditLog.id)))

    export = exported(clinic, clinic.admin, f"/patients/{patient}/access-log")

    assert export["state"] == "ready", export["problem"]
    entries = clinic.admin.get(f"/audit-logs?id_gte={before + 1}&action_ne=create").get_json()
    assert [(entry["action"], entry["patient_ids"]) for entry in entries] == [("export", [patient])]


def test_only_the_creator_sees_an_export(clinic: Clinic) -> None:
    export = exported(clinic, clinic.receptionist, "/patients")

    for path in (f"/exports/{export['id']}", export["file"]):
        assert clinic.admin.get(path).status_code == 404
        assert clinic.receptionist.get(path).status_code == 200
    (read,) = clinic.admin.get("/audit-logs?entity=export&action=read").get_json()
    assert (read["entity_id"], read["user_id"]) == (export["id"], clinic.receptionist.user_id)
    assert clinic.admin.get("/exports").get_json() == []


def test_an_idempotency_key_gives_one_export(clinic: Clinic) -> None:
    body, headers = {"path": "/doctors", "format": "csv"}, {"Idempotency-Key": "once"}

    first, second = (clinic.admin.post("/exports", body, headers=headers) for _ in range(2))

    assert first.get_json() == second.get_json()
    assert second.headers["Location"] == first.headers["Location"]
    assert len(clinic.admin.get("/exports").get_json()) == 1


def test_a_user_has_few_open_exports(clinic: Clinic) -> None:
    for _ in range(exports.MAX_OPEN):
        ask(clinic.admin, "/doctors")

    refused = clinic.admin.post("/exports", {"path": "/doctors", "format": "csv"})
    run_worker(clinic)

    assert (refused.status_code, refused.get_json()["error"]) == (409, "conflict")
    ask(clinic.admin, "/doctors")
    ask(clinic.receptionist, "/doctors")


def set_role(clinic: Clinic, user_id: int, **values: Any) -> None:
    with clinic.inside() as session:
        session.execute(update(User).where(User.id == user_id).values(**values))


@pytest.mark.parametrize("change", [{"is_active": False}, {"role": Role.RECEPTIONIST}])
def test_nothing_is_written_for_a_user_whose_rights_changed(clinic: Clinic, change: dict[str, Any]) -> None:
    technician = clinic.technician
    clinic.patient()
    export_id = ask(technician, "/patients")
    set_role(clinic, technician.user_id, **change)

    run_worker(clinic)

    with clinic.inside() as session:
        export = session.get(Export, export_id)
        assert (export.state, export.count) == (ExportState.FAILED, None)
        assert "rights" in export.problem
        assert session.scalar(select(func.count()).select_from(ExportChunk)) == 0
        assert session.scalar(select(func.count()).where(AuditLog.action == "export")) == 0


def test_nothing_is_sent_to_a_user_whose_rights_changed_after_the_writing(clinic: Clinic) -> None:
    file = exported(clinic, clinic.technician, "/patients")["file"]
    set_role(clinic, clinic.technician.user_id, role=Role.RECEPTIONIST)

    changed = clinic.technician.get(file)
    set_role(clinic, clinic.technician.user_id, role=Role.TECHNICIAN, is_active=False)
    inactive = clinic.technician.get(file)

    assert (changed.status_code, inactive.status_code) == (403, 401)
    assert "Your rights have changed" in changed.get_json()["message"]


def test_the_rights_are_checked_with_every_batch(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_files, "BATCH", 1)
    technician = clinic.technician
    for _ in range(3):
        clinic.patient()
    export_id = ask(technician, "/patients")
    read: Callable[..., Any] = list_exports.ListReader.read_rows

    def read_and_demote(reader: Any, actor: Any, keys: Any) -> Any:
        rows = read(reader, actor, keys)
        list_exports.db.session.execute(
            update(User).where(User.id == technician.user_id).values(role=Role.DOCTOR)
        )
        return rows

    monkeypatch.setattr(list_exports.ListReader, "read_rows", read_and_demote)
    run_worker(clinic)

    set_role(clinic, technician.user_id, role=Role.TECHNICIAN)
    assert technician.get(f"/exports/{export_id}").get_json()["state"] == "failed"


def test_rows_that_vanish_meanwhile_are_left_out_and_counted(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.patient()
    export_id = ask(clinic.admin, "/patients")
    read: Callable[..., Any] = list_exports.ListReader.read_keys
    vanished = 99
    monkeypatch.setattr(
        list_exports.ListReader, "read_keys", lambda *arguments: [*read(*arguments), vanished]
    )

    run_worker(clinic)

    export = clinic.admin.get(f"/exports/{export_id}").get_json()
    assert (export["state"], export["count"], export["left_out"]) == ("ready", 1, 1)


def test_one_entry_has_filter_count_and_digest_and_others_index_the_patients(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_files, "BATCH", 1)
    monkeypatch.setattr(list_exports, "PART", 2)
    patients = [clinic.patient(name=f"Amina {number}")["id"] for number in range(5)]

    export = exported(clinic, clinic.receptionist, "/patients?q=amina&is_active=true")

    entries = clinic.admin.get("/audit-logs?action=export&sort_by=id").get_json()
    *parts, last = entries
    assert [entry["patient_ids"] for entry in entries] == [patients[:2], patients[2:4], patients[4:]]
    assert [entry["fields"] for entry in parts] == [
        [f"export={export['id']}", f"part={number}"] for number in (1, 2)
    ]
    assert last["fields"] == sorted(
        [f"export={export['id']}", "format=csv", "is_active=true", "left_out=0", "q=(text)", "rows=5"]
    )
    assert last["detail"] == f"sha256:{export['digest']}"
    assert {(entry["user_id"], entry["operation"]) for entry in entries} == {
        (clinic.receptionist.user_id, "exports.write")
    }
    for patient in patients:
        log = clinic.admin.get(f"/patients/{patient}/access-log?action=export").get_json()
        assert len(log) == 1


def test_a_batch_that_meets_a_lock_is_repeated_and_not_the_whole_job(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_files, "BATCH", 1)
    monkeypatch.setattr(list_exports, "PART", 2)
    patients = [clinic.patient()["id"] for _ in range(4)]
    export_id = ask(clinic.admin, "/patients")
    take_reads, hold = audit_log.take_reads, storage.hold
    calls: Counter[str] = Counter()

    def fail(call: str, *, at: int) -> None:
        """Fail once as a transaction does that meets the lock of another one."""
        calls[call] += 1
        if calls[call] == at:
            raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database is locked"))

    def read_and_fail() -> set[int]:
        patient_ids = take_reads()
        fail("read", at=3)
        return patient_ids

    def hold_and_fail(claim: Any) -> bool:
        fail("commit", at=6)
        return hold(claim)

    monkeypatch.setattr(audit_log, "take_reads", read_and_fail)
    monkeypatch.setattr(storage, "hold", hold_and_fail)
    monkeypatch.setattr(transactions, "LONGEST_WAIT", 0)
    run_worker(clinic)

    export = clinic.admin.get(f"/exports/{export_id}").get_json()
    content = clinic.admin.get(export["file"]).get_data()
    assert [int(row["id"]) for row in table(content)] == patients
    assert (export["count"], export["left_out"]) == (4, 0)
    entries = clinic.admin.get("/audit-logs?action=export&sort_by=id").get_json()
    assert [entry["patient_ids"] for entry in entries] == [patients[:2], patients[2:]]
    with clinic.inside() as session:
        assert session.scalar(select(Job.attempts)) == 1
    assert calls["read"] == 1 + 4 + 2  # keys, batches, repetitions


def test_a_killed_attempt_starts_over_and_no_half_file_is_ready(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_SIZE", 50)
    for _ in range(3):
        clinic.patient()
    export_id = ask(clinic.admin, "/patients")
    store: Callable[..., None] = files.store

    def store_some(export_id: int, number: int, content: bytes) -> None:
        if number == 3:
            raise LeaseLost  # as if the worker was killed: it stores no end of the job
        store(export_id, number, content)

    monkeypatch.setattr(files, "store", store_some)
    run_worker(clinic)
    half = clinic.admin.get(f"/exports/{export_id}").get_json()
    refused = clinic.admin.get(f"/exports/{export_id}/file")
    with clinic.inside() as session:
        assert session.scalar(select(func.count()).select_from(ExportChunk)) == 3
        session.execute(update(Job).values(state=JobState.QUEUED, locked_by=None, locked_until=None))
    monkeypatch.setattr(files, "store", store)
    run_worker(clinic)

    assert (half["state"], half["file"], refused.status_code) == ("running", None, 409)
    export = clinic.admin.get(f"/exports/{export_id}").get_json()
    content = clinic.admin.get(export["file"]).get_data()
    assert hashlib.sha256(content).hexdigest() == export["digest"]
    assert len(table(content)) == 3


def test_a_file_expires_after_a_day_and_is_removed(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    export = exported(clinic, clinic.admin, "/doctors")
    unwritten = ask(clinic.admin, "/doctors")
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=24, seconds=5))

    with clinic.inside() as session:
        shown = exports.current_state(session.get(Export, export["id"]))
    with clinic.app.app_context():
        while housekeeping.remove_old():
            pass

    assert shown is ExportState.EXPIRED
    with clinic.inside() as session:
        assert session.scalar(select(func.count()).select_from(ExportChunk)) == 0
        states = dict(session.execute(select(Export.id, Export.state)).tuples().all())
        assert states == {export["id"]: ExportState.EXPIRED, unwritten: ExportState.FAILED}
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=8))
    with clinic.app.app_context():
        while housekeeping.remove_old():
            pass
    with clinic.inside() as session:
        assert list(session.scalars(select(Export.id))) == [unwritten]  # the newest one stays


def test_a_file_that_expires_is_not_sent(clinic: Clinic) -> None:
    export = exported(clinic, clinic.admin, "/doctors")
    with clinic.inside() as session:
        session.execute(update(Export).values(expires_at=clock.now()))

    refused = clinic.admin.get(export["file"])

    assert (refused.status_code, refused.get_json()["state"]) == (409, "expired")
    assert clinic.admin.get(f"/exports/{export['id']}").get_json()["file"] is None
    assert [row["state"] for row in clinic.admin.get("/exports?state=expired").get_json()] == ["expired"]


def test_an_export_fails_with_the_last_attempt_of_its_job(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_is_full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    export_id = ask(clinic.admin, "/doctors")
    waiting = ask(clinic.admin, "/doctors")
    with clinic.inside() as session:
        session.execute(update(Job).where(Job.id == 1).values(attempts=storage.MAX_ATTEMPTS - 1))
    monkeypatch.setattr(list_exports, "write_csv", disk_is_full)

    run_worker(clinic)
    with clinic.app.app_context():
        housekeeping.remove_old()

    failed = clinic.admin.get(f"/exports/{export_id}").get_json()
    assert (failed["state"], failed["file"]) == ("failed", None)
    assert "GET /jobs" in failed["problem"]
    assert clinic.admin.get("/jobs?state=dead").get_json()[0]["last_error"].startswith("OSError")
    assert clinic.admin.get(f"/exports/{waiting}").get_json()["state"] == "running"  # it is tried again


def test_a_file_that_is_too_large_fails(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SIZE", 10)

    export = exported(clinic, clinic.admin, "/doctors")

    assert (export["state"], export["file"]) == ("failed", None)
    assert "Add a filter" in export["problem"]


def test_a_missing_part_is_an_integrity_fault_and_breaks_the_download(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK_SIZE", 50)
    export = exported(clinic, clinic.admin, "/doctors")
    with clinic.inside() as session:
        session.execute(ExportChunk.__table__.delete().where(ExportChunk.number == 1))

    with clinic.inside():
        faults = [rule for rule, _ids in violations()]
    response = clinic.admin.get(export["file"])

    assert faults == ["A ready export has its whole file."]
    with pytest.raises(RuntimeError, match="removed while it was sent"):
        response.get_data()
