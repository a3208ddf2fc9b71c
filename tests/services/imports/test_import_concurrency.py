"""Imports at the same time as each other and as users, and a worker that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select

from models import AuditLog, Import, ImportSource, Patient
from services import integrity_checks
from services.imports import runs as import_runs
from tests.support.clinic import Clinic
from tests.support.concurrency import run_concurrently
from tests.support.imports import csv_file, dry_run, run, show, upload, work
from tests.support.servers import ROOT

HEADER = ("ID", "File No", "Name", "Phone")


def people(count: int) -> bytes:
    lines = [(n, f"F-{n}", f"Patient Number{n}", f"+254712{n:06}") for n in range(count)]
    return csv_file(HEADER, lines)


def names_only(count: int) -> bytes:
    """Return a file in which only the source id identifies a patient."""
    return csv_file(("ID", "Name"), [(n, f"Patient Number{n}") for n in range(count)])


def figures(clinic: Clinic) -> tuple[int, int]:
    """Return the numbers of patients and of sources. The stored data violates no rule."""
    with clinic.inside() as session:
        assert list(integrity_checks.violations()) == []
        return (
            session.scalar(select(func.count()).select_from(Patient)),
            session.scalar(select(func.count()).select_from(ImportSource)),
        )


@pytest.mark.parametrize("content", [people(30), names_only(30)], ids=["file numbers", "names"])
def test_two_imports_of_one_file_at_the_same_time_import_each_row_once(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(import_runs, "BATCH", 5)
    checked = [dry_run(clinic.admin, upload(clinic.admin, content, on_error="skip")["id"]) for _ in "ab"]
    for row in checked:
        clinic.admin.post(f"/imports/{row['id']}/apply", {"digest": row["digest"]})

    def apply(import_id: int) -> None:
        with clinic.app.app_context():
            import_runs.apply(import_id)

    def register(number: int) -> int:
        body = {"name": f"Walk In{number}", "phone": f"+254712{number:06}"}
        return clinic.admin.post("/patients", body).status_code

    calls: list[Any] = [partial(apply, row["id"]) for row in checked]
    statuses = run_concurrently([*calls, *(partial(register, number) for number in range(4))])[2:]

    rows = [show(clinic.admin, row["id"]) for row in checked]
    assert statuses == [201] * 4
    assert figures(clinic) == (34, 30)
    assert sum(row["applied"] for row in rows) == 30
    assert {row["applied"] + row["skipped"] + row["refused"] for row in rows} == {30}
    assert {row["state"] for row in rows} == {"applied"}


def test_one_of_sixteen_callers_applies(clinic: Clinic) -> None:
    row = dry_run(clinic.admin, upload(clinic.admin, people(3))["id"])
    call = partial(clinic.admin.post, f"/imports/{row['id']}/apply", {"digest": row["digest"]})

    statuses = Counter(response.status_code for response in run_concurrently([call] * 16))
    work(clinic.admin)

    assert statuses == {202: 1, 409: 15}
    assert figures(clinic) == (3, 3)


def test_a_killed_worker_loses_no_row_and_imports_none_twice(clinic: Clinic) -> None:
    rows = 400
    row = dry_run(clinic.admin, upload(clinic.admin, people(rows))["id"])
    clinic.admin.post(f"/imports/{row['id']}/apply", {"digest": row["digest"]})
    settings = clinic.settings
    environment = os.environ | {
        "DATABASE_URI": settings.database_url,
        "JWT_SECRET_KEY": settings.jwt_secret_key,
        "AUDIT_KEY": settings.audit_key,
        "AUDIT_HEADS_FILE": str(settings.heads_file),
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.support.import_worker"], cwd=ROOT, env=environment
    )

    while not 0 < applied(clinic) < rows:
        assert worker.poll() is None
        time.sleep(0.005)
    worker.kill()
    worker.wait()
    first = applied(clinic)
    with clinic.app.app_context():
        import_runs.apply(row["id"])

    assert 0 < first < rows
    assert (show(clinic.admin, row["id"])["state"], figures(clinic)) == ("applied", (rows, rows))
    with clinic.inside() as session:
        created = session.scalars(
            select(AuditLog.entity_id).where(AuditLog.entity == "patient", AuditLog.action == "create")
        ).all()
    assert len(created) == len(set(created)) == rows
    assert run(clinic.admin, people(rows))["skipped"] == rows


def applied(clinic: Clinic) -> int:
    with clinic.inside() as session:
        return int(session.scalar(select(func.sum(Import.applied))) or 0)
