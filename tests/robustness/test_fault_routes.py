"""Every route while the database fails at the last moment: all of it happens, or nothing does."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, text
from werkzeug.test import TestResponse

from models import AuditLog
from tests.robustness.abuse_targets import (
    Target,
    few,
    targets,
    witness,
)
from tests.robustness.conftest import Figures
from tests.robustness.fleet import assert_well
from tests.robustness.scale import Scale
from tests.support.clinic import Caller, Clinic
from tests.support.furnished import furnish

# Fails the commit of whatever left an audit entry, so many times: sequences are not rolled back.
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
NEVER, ONCE, WITHOUT_END, DISK_FULL = 0, 1, 999, 1_000_000  # serialization failures, then the disk
SAMPLE = 36  # routes in the short form
# What would hinder the others comes last.
LATE = ("/sign", "/addenda", "/write-off", "/void")


class Faults:
    """The database of a clinic, told how often to fail."""

    def __init__(self, clinic: Clinic, engine_name: str) -> None:
        self.clinic, self.engine_name = clinic, engine_name
        if engine_name == "postgresql":
            self._run(POSTGRESQL_FAULT)

    def plan(self, failures: int) -> None:
        """The next so many entries of the audit cannot be committed."""
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
    """What deletes comes last, and before it what closes."""
    late = [place for place, end in enumerate(LATE, start=1) if target.entry.path.endswith(end)]
    return target.entry.method == "DELETE", late[0] if late else 0


def send(caller: Caller, target: Target) -> TestResponse:
    return caller.send(target.entry.method, target.path, target.body)


def entries_of(clinic: Clinic, answer: TestResponse) -> list[tuple[Any, Any]]:
    """Which records the audit's entries of a request name."""
    told = select(AuditLog.entity, AuditLog.entity_id).where(
        AuditLog.request_id == answer.headers["X-Request-ID"]
    )
    with clinic.inside() as session:
        return [tuple(row) for row in session.execute(told)]


@pytest.mark.parametrize(
    ("engine_name", "faults"),
    [("postgresql", (DISK_FULL, WITHOUT_END, ONCE)), ("sqlite", (DISK_FULL, NEVER))],
)
def test_a_request_whose_audit_entry_is_not_written_has_not_happened(
    clinic: Clinic,
    engine_name: str,
    database_url: str,
    faults: tuple[int, ...],
    scale: Scale,
    figures: Figures,
) -> None:
    every = sorted(few(scale, targets(clinic, furnish(clinic)), SAMPLE), key=order)
    database = Faults(clinic, engine_name)
    *lasting, passing = faults if scale.long else (faults[0], faults[-1])
    done = 0

    with witness(database_url) as stored:
        for target in every:
            caller = clinic.sign_in("admin")
            before, refused = stored(), []
            for failures in lasting:
                database.plan(failures)
                refused.append(send(caller, target))
                assert stored() == before, target
            database.plan(passing)
            answer = send(caller, target)
            told = entries_of(clinic, answer)

            assert answer.status_code < 500, (target, answer.get_data(as_text=True))
            assert len(told) == len(set(told)), target
            expected = 503 if told else answer.status_code
            assert [one.status_code for one in refused] == [expected] * len(refused), target
            assert all("Retry-After" in one.headers for one in refused if told), target
            done += bool(told) and answer.status_code < 300

    figures["routes"], figures["done"] = len(every), done
    assert done > len(every) / 2
    assert_well(clinic)


def test_nobody_signs_in_unseen(clinic: Clinic, engine_name: str) -> None:
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
