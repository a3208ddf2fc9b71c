"""The identity of the caller is read from the database in the transaction of each request."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text

from api import request_cycle
from cache.redis import RedisStore
from enums import AuditOutcome
from errors import ClinicError
from extensions import db
from models import AuditHead, AuditLog
from security import passwords
from security.password_queue import password_queue
from services import remembered
from services.audit import audit_chain
from services.audit.audit_storage import Head
from services.users import sessions
from tests.support.clinic import PASSWORD, Caller, Clinic


def execute(clinic: Clinic, statement: str, **values: Any) -> None:
    """Change the database as another process does."""
    with clinic.inside() as session:
        session.connection().execute(text(statement), values)


def signed_in(clinic: Clinic, role: str) -> Caller:
    """Return a caller who has already sent requests to this process."""
    caller = clinic.sign_in(role)
    for _ in range(2):
        assert caller.get("/patients").status_code == 200
    return caller


def entries(clinic: Clinic) -> list[tuple[str, str | None, str | None, AuditOutcome]]:
    with clinic.inside() as session:
        rows = session.query(AuditLog).order_by(AuditLog.id)
        return [(row.action, row.user_name, row.role, row.outcome) for row in rows]


def test_a_changed_role_holds_from_the_next_request(clinic: Clinic) -> None:
    caller = signed_in(clinic, "admin")
    execute(
        clinic, "UPDATE users SET role = 'technician', name = 'New Name' WHERE id = :id", id=caller.user_id
    )

    read, refused = caller.get("/patients"), caller.get("/users")

    assert (read.status_code, refused.status_code) == (200, 403)
    assert entries(clinic)[-2:] == [
        ("list", "New Name", "technician", AuditOutcome.SUCCESS),
        ("refused", "New Name", "technician", AuditOutcome.REFUSED),
    ]


def test_a_new_permission_holds_from_the_next_request(clinic: Clinic) -> None:
    caller = signed_in(clinic, "technician")
    assert caller.get("/users").status_code == 403
    execute(clinic, "UPDATE users SET role = 'admin' WHERE id = :id", id=caller.user_id)

    assert caller.get("/users").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE user_sessions SET ended_at = expires_at WHERE user_id = :id",
        "UPDATE user_sessions SET expires_at = created_at WHERE user_id = :id",
        "UPDATE user_sessions SET created_at = '2020-01-01 00:00:00' WHERE user_id = :id",
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
def test_an_ended_session_is_refused_on_every_kind_of_request(
    clinic: Clinic, change: str, method: str, path: str, body: Any
) -> None:
    caller = signed_in(clinic, "admin")
    execute(clinic, change, id=caller.user_id)

    answer = caller.send(method, path, body)

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_revoked")
    assert clinic.admin.get("/patients").get_json() == []


def test_a_doctor_record_that_is_given_to_another_user_is_no_longer_the_callers(clinic: Clinic) -> None:
    caller, other = signed_in(clinic, "doctor"), clinic.sign_in("doctor")
    execute(clinic, "UPDATE doctors SET user_id = NULL WHERE id = :id", id=other.doctor_id)
    execute(
        clinic, "UPDATE doctors SET user_id = :user WHERE id = :id", user=other.user_id, id=caller.doctor_id
    )

    assert caller.get("/auth/me").get_json()["doctor_id"] is None
    visit = {"patient_id": clinic.patient()["id"], "doctor_id": caller.doctor_id}
    assert caller.post("/visits", visit).status_code == 403


@pytest.mark.parametrize("path", ["/patients", "/users"])
def test_rights_that_are_withdrawn_while_the_body_arrives_are_gone(clinic: Clinic, path: str) -> None:
    """The body is read before session, user and role are verified, on both engines."""
    caller = signed_in(clinic, "admin")
    members = {
        "name": "Ada Quill",
        "email": "ada@clinic.example",
        "password": "a long secret",
        "role": "admin",
    }
    body = json.dumps(members if path == "/users" else {"name": "Ada Quill"}).encode()

    class SlowBody(io.BytesIO):
        """A body during whose arrival the caller is deactivated."""

        def readinto(self, buffer: Any) -> int:
            execute(clinic, "UPDATE users SET is_active = false WHERE id = :id", id=caller.user_id)
            return super().readinto(buffer)

    answer = caller.post(
        path, input_stream=SlowBody(body), content_length=len(body), content_type="application/json"
    )

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_revoked")
    assert clinic.admin.get(f"{path}?name=Ada Quill").get_json() == []


def test_an_ended_session_gets_no_replayed_response(clinic: Clinic) -> None:
    caller, headers = signed_in(clinic, "admin"), {"Idempotency-Key": "the-same-key"}
    assert caller.post("/patients", {"name": "Ada Quill"}, headers=headers).status_code == 201
    execute(clinic, "UPDATE user_sessions SET ended_at = expires_at WHERE user_id = :id", id=caller.user_id)

    answer = caller.post("/patients", {"name": "Ada Quill"}, headers=headers)

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_revoked")


# --- Remembered callers and chain heads ----------------------------------------------------------------


def count_entries(clinic: Clinic) -> int:
    with clinic.inside() as session:
        return int(session.query(AuditLog).count())


def memory_of(clinic: Clinic) -> remembered.Memory:
    """Return the memory of this process about the database of a clinic on PostgreSQL."""
    with clinic.app.app_context():
        return remembered._memories[db.engine]


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_request_of_a_known_caller_is_three_messages(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}"
    caller = signed_in(clinic, "receptionist")
    caller.get(path)
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    with clinic.app.app_context():
        event.listen(db.engine, "before_cursor_execute", record)
        assert caller.get(path).status_code == 200
        event.remove(db.engine, "before_cursor_execute", record)

    assert len(statements) == 2  # and COMMIT


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_two_processes_that_remember_the_same_head_never_fork_a_chain(
    make_clinic: Callable[..., Clinic],
) -> None:
    one, other = make_clinic(), make_clinic()
    caller = signed_in(one, "receptionist")
    same_caller = Caller(other, caller.token)
    assert same_caller.get("/patients").status_code == 200
    memory_of(other).heads.update(memory_of(one).heads)
    before = count_entries(one)

    for _ in range(20):
        for process in (caller, same_caller):
            assert process.get("/patients").status_code == 200

    assert count_entries(one) == before + 40
    with one.inside():
        assert audit_chain.verify(db.engine) is None


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_an_outdated_head_costs_a_second_attempt_and_no_entry(clinic: Clinic) -> None:
    caller = signed_in(clinic, "receptionist")
    outdated = dict(memory_of(clinic).heads)
    for _ in range(3):
        assert caller.get("/patients").status_code == 200
    before = count_entries(clinic)
    memory_of(clinic).heads.clear()
    memory_of(clinic).heads.update(outdated)

    assert caller.post("/patients", {"name": "Ada Quill"}).status_code == 201

    assert count_entries(clinic) == before + 1
    assert len(clinic.admin.get("/patients").get_json()) == 1
    with clinic.inside():
        assert audit_chain.verify(db.engine) is None


# --- Refusals and retries of a remembered caller -------------------------------------------------------


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_an_ended_session_gets_no_refusal_by_a_constraint(clinic: Clinic) -> None:
    clinic.patient(file_number="F-1")
    caller = signed_in(clinic, "receptionist")
    execute(clinic, "UPDATE user_sessions SET ended_at = expires_at WHERE user_id = :id", id=caller.user_id)

    answer = caller.post("/patients", {"name": "Ada Quill", "file_number": "F-1"})

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_revoked")


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_key_whose_first_request_still_runs_is_a_conflict(clinic: Clinic) -> None:
    caller = signed_in(clinic, "receptionist")
    key = text(
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, created_at) VALUES (:id, 'k', 'f', now())"
    )
    with clinic.app.app_context(), db.engine.connect() as other:
        other.execute(key, {"id": caller.user_id})

        answer = caller.post("/patients", {"name": "Ada Quill"}, headers={"Idempotency-Key": "k"})

    assert (answer.status_code, answer.get_json()["error"]) == (409, "request_in_progress")


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_withdrawn_right_revokes_no_session_in_redis(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    monkeypatch.setattr(sessions, "_set_revoked", lambda key, _seconds, _client: keys.append(key))
    monkeypatch.setattr(RedisStore, "call", lambda _store, action, _fallback: action(None))
    monkeypatch.setattr(RedisStore, "exists", lambda _store, _key: False)
    admin, other = signed_in(clinic, "admin"), signed_in(clinic, "receptionist")
    path = f"/users/{other.user_id}"
    execute(clinic, "UPDATE users SET is_active = false WHERE id = :id", id=admin.user_id)

    refused = admin.delete(path)

    assert (refused.status_code, keys) == (401, [])
    assert clinic.admin.delete(path).status_code == 200
    assert len(keys) == 1


@pytest.mark.parametrize("engine_name", ["postgresql"])
@pytest.mark.parametrize("path", ["/patients", "/auth/me"])  # with and without an audit entry
def test_a_changed_caller_costs_one_second_attempt_only(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    caller = signed_in(clinic, "receptionist")
    execute(clinic, "UPDATE users SET name = 'New Name' WHERE id = :id", id=caller.user_id)
    attempts: list[str] = []
    identify = request_cycle.identify

    def spy(*arguments: Any) -> None:
        attempts.append("attempt")
        identify(*arguments)

    monkeypatch.setattr(request_cycle, "identify", spy)

    counts = []
    for _ in range(3):
        attempts.clear()
        assert caller.get(path).status_code == 200
        counts.append(len(attempts))

    assert counts == [2, 1, 1]


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_slow_request_with_an_outdated_head_runs_again(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = signed_in(clinic, "receptionist")
    heads = memory_of(clinic).heads
    heads.update({chain: head._replace(number=head.number - 1) for chain, head in heads.items()})
    monkeypatch.setattr(request_cycle, "RETRY_WITHIN", 0)

    assert caller.post("/patients", {"name": "Ada Quill"}).status_code == 201


def test_an_ended_session_gets_no_answer_about_the_current_password(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = signed_in(clinic, "receptionist")

    def verify(*_arguments: Any) -> bool:
        execute(
            clinic, "UPDATE user_sessions SET ended_at = expires_at WHERE user_id = :id", id=caller.user_id
        )
        return False

    monkeypatch.setattr(passwords, "verify", verify)

    answer = caller.post(
        "/auth/change-password", {"current_password": "wrong", "new_password": "another quiet harbour"}
    )

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_revoked")


def test_a_full_password_queue_counts_no_wrong_password(
    make_clinic: Callable[..., Clinic], monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = make_clinic(rate_limit_enabled=True)
    caller = signed_in(clinic, "receptionist")
    body = {"current_password": "wrong", "new_password": "another quiet harbour"}

    def refuse(_group: str) -> None:
        raise ClinicError("unavailable", "Too many password checks wait.", retry_after=1)

    with monkeypatch.context() as full:
        full.setattr(password_queue, "_enter", refuse)
        statuses = {caller.post("/auth/change-password", body).status_code for _ in range(12)}

    assert statuses == {503}
    assert caller.post("/auth/change-password", body).status_code == 422


@pytest.mark.parametrize("engine_name", ["postgresql"])
@pytest.mark.parametrize(
    ("path", "count", "status"),
    [
        ("login", 1, 200),
        ("register", 1, 201),
        ("change-password", 2, 200),
        ("change-password wrong", 1, 422),
        ("reset-password", 1, 200),
    ],
)
def test_an_outdated_head_hashes_no_password_twice(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, path: str, count: int, status: int
) -> None:
    account = {"email": "rita@clinic.example", "password": PASSWORD}
    user = clinic.admin.make("/users", name="Rita", role="receptionist", **account)["id"]
    token = clinic.admin.post(f"/users/{user}/password-reset").get_json()["token"]
    login = clinic.nobody.post("/auth/login", account).get_json()
    new = "another quiet harbour"
    bodies: dict[str, Any] = {
        "login": account,
        "register": {"name": "New", "email": "new@clinic.example", "password": new, "role": "doctor"},
        "change-password wrong": {"current_password": "wrong", "new_password": new},
        "change-password": {"current_password": PASSWORD, "new_password": new},
        "reset-password": {"token": token, "new_password": new},
    }
    calls: list[str] = []
    for name in ("verify", "hash_password"):
        function = getattr(passwords, name)
        monkeypatch.setattr(passwords, name, lambda *args, f=function: calls.append(f.__name__) or f(*args))
    heads = memory_of(clinic).heads
    assert heads
    heads.update({chain: head._replace(number=head.number - 1) for chain, head in heads.items()})

    response = Caller(clinic, login["access_token"]).post(f"/auth/{path.split()[0]}", bodies[path])

    assert response.status_code == status
    assert len(calls) == count


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_refusal_leaves_the_remembered_heads_up_to_date(clinic: Clinic) -> None:
    """A refusal is appended in a transaction of its own, which moves the head of a chain."""
    caller = signed_in(clinic, "receptionist")

    def stored() -> dict[int, Head]:
        with clinic.inside() as session:
            rows = session.query(AuditHead)
            return {row.chain: Head(row.chain, row.number, row.mac) for row in rows}

    heads = memory_of(clinic).heads
    heads.update(stored())
    before = stored()

    assert caller.get("/audit-logs").status_code == 403

    assert stored() != before
    assert heads == stored()
