"""What a process remembers of callers and chains is never believed against the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError

from database import engine as engine_module
from database.engine import PREPARED, tell
from enums import AuditOutcome
from extensions import db, remembered
from models import AuditLog
from services.audit import audit_chain
from tests.support.clinic import Caller, Clinic
from tests.support.database import connected

MakeClinic = Callable[..., Clinic]


def by_somebody_else(clinic: Clinic, statement: str, **values: Any) -> None:
    """What another process, or the owner of the database, does meanwhile."""
    with clinic.inside() as session:
        session.connection().execute(text(statement), values)


def well_known(clinic: Clinic, role: str) -> Caller:
    """Somebody whom the process remembers."""
    caller = clinic.sign_in(role)
    for _ in range(2):
        assert caller.get("/patients").status_code == 200
    return caller


def entries(clinic: Clinic) -> list[tuple[str, str | None, str | None, AuditOutcome]]:
    with clinic.inside() as session:
        rows = session.query(AuditLog).order_by(AuditLog.id)
        return [(row.action, row.user_name, row.role, row.outcome) for row in rows]


# --- Callers -------------------------------------------------------------------------------------------


def test_whom_a_process_remembers_is_judged_by_what_they_are_now(clinic: Clinic) -> None:
    caller = well_known(clinic, "admin")
    by_somebody_else(
        clinic, "UPDATE users SET role = 'technician', name = 'Now Else' WHERE id = :id", id=caller.user_id
    )

    read, refused = caller.get("/patients"), caller.get("/users")

    assert (read.status_code, refused.status_code) == (200, 403)
    assert entries(clinic)[-2:] == [
        ("list", "Now Else", "technician", AuditOutcome.SUCCESS),
        ("refused", "Now Else", "technician", AuditOutcome.REFUSED),
    ]


def test_nobody_is_refused_for_what_they_were(clinic: Clinic) -> None:
    caller = well_known(clinic, "technician")
    assert caller.get("/users").status_code == 403
    by_somebody_else(clinic, "UPDATE users SET role = 'admin' WHERE id = :id", id=caller.user_id)

    assert caller.get("/users").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE user_sessions SET ended_at = expires_at WHERE user_id = :id",
        "UPDATE user_sessions SET expires_at = created_at WHERE user_id = :id",
        "UPDATE users SET is_active = false WHERE id = :id",
        "DELETE FROM user_sessions WHERE user_id = :id",
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/patients", None),
        ("GET", "/patients?no_such=filter", None),
        ("POST", "/patients", {"name": ""}),
        ("POST", "/patients", {"name": "Ada Quill"}),
        ("GET", "/analytics/revenue", None),
    ],
)
def test_a_session_that_is_over_is_over_whatever_it_asks(
    clinic: Clinic, change: str, method: str, path: str, body: Any
) -> None:
    caller = well_known(clinic, "admin")
    by_somebody_else(clinic, change, id=caller.user_id)

    answer = caller.send(method, path, body)

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_revoked")
    assert clinic.admin.get("/patients").get_json() == []


def test_a_doctor_whose_row_goes_to_somebody_else_is_that_doctor_no_more(clinic: Clinic) -> None:
    caller, other = well_known(clinic, "doctor"), clinic.sign_in("doctor")
    by_somebody_else(clinic, "UPDATE doctors SET user_id = NULL WHERE id = :id", id=other.doctor_id)
    by_somebody_else(
        clinic, "UPDATE doctors SET user_id = :user WHERE id = :id", user=other.user_id, id=caller.doctor_id
    )

    assert caller.get("/auth/me").get_json()["doctor_id"] is None
    visit = {"patient_id": clinic.patient()["id"], "doctor_id": caller.doctor_id}
    assert caller.post("/visits", visit).status_code == 403


# --- Reads whose entry goes before ---------------------------------------------------------------------


def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What PostgreSQL is sent from now on."""
    sent: list[str] = []
    bound = engine_module._watch.bound

    def note(connection: Any, ask: Any, query: str, *rest: Any) -> None:
        sent.append(query)
        bound(connection, ask, query, *rest)

    monkeypatch.setattr(engine_module._watch, "bound", note)
    return sent


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_patient_is_read_and_the_read_is_audited_in_one_message(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient_id = clinic.patient()["id"]
    caller = well_known(clinic, "receptionist")
    before = len(entries(clinic))
    sent = messages(monkeypatch)

    answer = caller.get(f"/patients/{patient_id}")

    assert (answer.status_code, answer.get_json()["id"]) == (200, patient_id)
    assert len(sent) == 1
    assert [entry[0] for entry in entries(clinic)[before:]] == ["read"]
    seen = clinic.admin.get(f"/patients/{patient_id}/access-log").get_json()
    assert [entry["action"] for entry in seen].count("read") == 1


def test_the_read_of_a_patient_who_is_not_there_is_no_read(clinic: Clinic) -> None:
    patient_id = clinic.patient()["id"]
    caller = well_known(clinic, "receptionist")
    before = len(entries(clinic))

    missing = [caller.get(f"/patients/{number}") for number in (patient_id + 1, 2**40)]

    assert [answer.status_code for answer in missing] == [404, 404]
    assert "read" not in [entry[0] for entry in entries(clinic)[before:]]
    assert caller.get(f"/patients/{patient_id}").status_code == 200
    assert [entry[0] for entry in entries(clinic)[before:]].count("read") == 1


def test_a_read_that_is_refused_for_its_query_is_no_read(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}"
    caller = well_known(clinic, "receptionist")
    before = len(entries(clinic))

    assert caller.get(f"{path}?no_such=filter").status_code in (400, 422)

    assert "read" not in [entry[0] for entry in entries(clinic)[before:]]


@pytest.mark.parametrize("meanwhile", ["signed out", "the chain went on"])
def test_a_read_told_before_is_not_believed_either(make_clinic: MakeClinic, meanwhile: str) -> None:
    clinic = make_clinic()
    path = f"/patients/{clinic.patient()['id']}"
    caller = well_known(clinic, "receptionist")
    before = len(entries(clinic))
    if meanwhile == "signed out":
        by_somebody_else(
            clinic,
            "UPDATE user_sessions SET ended_at = expires_at WHERE user_id = :id",
            id=caller.user_id,
        )
    else:
        with clinic.inside():
            known = remembered("chains")
            known.update({chain: end._replace(number=end.number - 1) for chain, end in known.items()})

    answer = caller.get(path)

    wanted = (401, 0) if meanwhile == "signed out" else (200, 1)
    assert (answer.status_code, [entry[0] for entry in entries(clinic)[before:]].count("read")) == wanted


# --- Chains --------------------------------------------------------------------------------------------


def test_processes_that_go_on_from_the_same_end_of_a_chain_never_fork_it(make_clinic: MakeClinic) -> None:
    one = make_clinic()
    caller = well_known(one, "receptionist")
    other = Caller(make_clinic(), caller.token)
    with one.inside():
        left = dict(remembered("chains"))
    before = len(entries(one))

    with other.clinic.inside():
        remembered("chains").update(left)  # as if both had left it behind
    asked = 0
    for _ in range(20):
        for each in (caller, other):
            assert each.get("/patients").status_code == 200
            asked += 1

    assert len(entries(one)) == before + asked
    with one.inside():
        assert audit_chain.verify(db.engine) is None


def test_a_chain_that_another_process_went_on_with_costs_a_second_attempt_and_no_entry(
    clinic: Clinic,
) -> None:
    caller = well_known(clinic, "receptionist")
    with clinic.inside():
        stale = dict(remembered("chains"))
    for _ in range(3):
        assert caller.get("/patients").status_code == 200
    before = len(entries(clinic))
    with clinic.inside():
        remembered("chains").clear()
        remembered("chains").update(stale)

    patient = caller.post("/patients", {"name": "Ada Quill"})

    assert patient.status_code == 201
    assert [row[0] for row in entries(clinic)[before:]] == ["create"]
    with clinic.inside():
        assert audit_chain.verify(db.engine) is None


# --- Statements ----------------------------------------------------------------------------------------


def test_what_fails_leaves_no_statement_unprepared_behind_it(new_database: Callable[[str], str]) -> None:
    with connected(new_database("postgresql")) as engine, engine.connect() as connection:
        question = text(f"SELECT {PREPARED} CAST(:number AS integer) + 1")
        for number in range(2):
            assert connection.execute(question, {"number": number}).scalar_one() == number + 1
        connection.rollback()

        tell(connection, "SELECT 1 / %(nothing)s", {"nothing": 0})
        with pytest.raises(DataError):
            connection.execute(question, {"number": 7})  # the third time: it is prepared with this message
        connection.rollback()
        tell(connection, "SELECT %(number)s", {"number": 1})
        connection.rollback()  # and what was to be told is dropped

        assert connection.execute(question, {"number": 8}).scalar_one() == 9
        for _ in range(4):
            tell(connection, "SELECT %(number)s", {"number": 1})
            assert connection.execute(question, {"number": 9}).scalar_one() == 10
