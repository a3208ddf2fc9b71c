"""Every endpoint with a database that fails at the commit: a request is atomic."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, text
from werkzeug.test import TestResponse

from models import AuditLog
from tests.robustness.abuse_targets import (
    Target,
    count_tables,
    sample,
    targets,
)
from tests.robustness.cluster import assert_consistent
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Caller, Clinic
from tests.support.furnished import furnish

# Fails the commits that have an audit entry. The sequences count them, because they are not rolled back.
POSTGRESQL_FAULT = """
CREATE SEQUENCE attempts; CREATE SEQUENCE failures MINVALUE 0 START 0;
CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE planned bigint := (SELECT last_value FROM failures);
BEGIN
  IF nextval('attempts') <= planned THEN
    RAISE EXCEPTION 'fault' USING ERRCODE = CASE WHEN planned < 1000 THEN '40001' ELSE '53100' END;
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER fault AFTER INSERT ON audit_logs DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION fault();
"""
SQLITE_FAULT = """
CREATE TRIGGER fault BEFORE INSERT ON audit_logs BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END
"""
# Number of failing commits: serialization failures, from 1,000 on a full disk.
NEVER, ONCE, ALWAYS, DISK_FULL = 0, 1, 999, 1_000_000
SAMPLE = 40  # endpoints on the short level
# These run last, because they close records that other endpoints change.
CLOSING_ACTIONS = ("/sign", "/addenda", "/write-off", "/void")


class Faults:
    """A database with a programmable number of failing commits."""

    def __init__(self, clinic: Clinic, engine_name: str) -> None:
        self.clinic, self.engine_name = clinic, engine_name
        if engine_name == "postgresql":
            self._run(POSTGRESQL_FAULT)

    def plan(self, failures: int) -> None:
        """Let the next commits with an audit entry fail."""
        if self.engine_name == "postgresql":
            self._run(f"SELECT setval('attempts', 1, false), setval('failures', {failures})")
        elif failures:
            self._run(SQLITE_FAULT)
        else:
            self._run("DROP TRIGGER IF EXISTS fault")

    def _run(self, statements: str) -> None:
        with self.clinic.inside() as session:
            session.execute(text(statements))


def order(target: Target) -> tuple[bool, int]:
    """Return the sort key: deletions last, before them the closing actions."""
    late = [number for number, end in enumerate(CLOSING_ACTIONS, start=1) if target.entry.path.endswith(end)]
    return target.entry.method == "DELETE", late[0] if late else 0


def send(caller: Caller, target: Target) -> TestResponse:
    return caller.send(target.entry.method, target.path, target.body)


def audit_entries(clinic: Clinic, response: TestResponse) -> list[tuple[Any, Any]]:
    """Return entity and id of every audit entry of a request."""
    entries = select(AuditLog.entity, AuditLog.entity_id).where(
        AuditLog.request_id == response.headers["X-Request-ID"]
    )
    with clinic.inside() as session:
        return [tuple(row) for row in session.execute(entries)]


@pytest.mark.parametrize(
    ("engine_name", "faults"),
    [("postgresql", (DISK_FULL, ALWAYS, ONCE)), ("sqlite", (DISK_FULL, NEVER))],
)
def test_a_request_without_a_stored_audit_entry_changes_nothing(
    clinic: Clinic,
    engine_name: str,
    database_url: str,
    faults: tuple[int, ...],
    level: LoadLevel,
    figures: Figures,
) -> None:
    endpoints = sorted(sample(level, targets(clinic, furnish(clinic)), SAMPLE), key=order)
    database = Faults(clinic, engine_name)
    *fatal, recoverable = faults if level.long else (faults[0], faults[-1])
    succeeded = 0

    with count_tables(database_url) as stored:
        for target in endpoints:
            caller = clinic.sign_in("admin")
            before, refused = stored(), []
            for failures in fatal:
                database.plan(failures)
                refused.append(send(caller, target))
                assert stored() == before, target
            database.plan(recoverable)
            response = send(caller, target)
            entries = audit_entries(clinic, response)

            assert response.status_code < 500, (target, response.get_data(as_text=True))
            assert len(entries) == len(set(entries)), target
            expected = 503 if entries else response.status_code
            assert [refusal.status_code for refusal in refused] == [expected] * len(refused), target
            assert all("Retry-After" in refusal.headers for refusal in refused if entries), target
            succeeded += bool(entries) and response.status_code < 300

    figures["endpoints"], figures["succeeded"] = len(endpoints), succeeded
    assert succeeded > len(endpoints) / 2
    assert_consistent(clinic)


def test_no_sign_in_without_an_audit_entry(clinic: Clinic, engine_name: str) -> None:
    clinic.admin.make(
        "/users", name="Rita", email="rita@clinic.example", password="a quiet harbour", role="receptionist"
    )
    database = Faults(clinic, engine_name)
    database.plan(DISK_FULL)

    right, wrong = (
        clinic.nobody.post("/auth/login", {"email": "rita@clinic.example", "password": password})
        for password in ("a quiet harbour", "a loud harbour")
    )

    assert (right.status_code, wrong.status_code) == (503, 503)
    database.plan(NEVER)
    with clinic.inside() as session:
        signed_in = session.scalar(select(func.count()).where(AuditLog.action == "login"))
    assert signed_in == 0
