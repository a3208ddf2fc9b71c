"""The end of a session: without use, after its longest time, and of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import time_machine
from sqlalchemy import event, text
from werkzeug.test import TestResponse

from extensions import db
from tests.support.clinic import PASSWORD, Caller, Clinic

MakeClinic = Callable[..., Clinic]
START = datetime(2027, 3, 1, 8, tzinfo=UTC)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Stop the clock, so that the test moves it."""
    with time_machine.travel(START, tick=False) as coordinates:
        yield coordinates


def sign_in(clinic: Clinic) -> TestResponse:
    body = {"name": "Rita", "email": "rita@clinic.example", "password": PASSWORD, "role": "receptionist"}
    clinic.admin.post("/users", body)
    answer = clinic.nobody.post("/auth/login", {"email": body["email"], "password": PASSWORD})
    assert answer.status_code == 200
    return answer


def refresh(clinic: Clinic, pair: dict[str, Any]) -> TestResponse:
    return clinic.nobody.post("/auth/refresh-token", {"refresh_token": pair["refresh_token"]})


def lifetimes(clinic: Clinic, pair: dict[str, Any]) -> list[int]:
    """Return the seconds until the tokens expire."""
    now = datetime.now(UTC).timestamp()
    claims = (
        jwt.decode(pair[name], clinic.settings.jwt_secret_key, ["HS256"], audience="clinic")
        for name in ("access_token", "refresh_token")
    )
    return [round(claim["exp"] - now) for claim in claims]


def test_a_session_without_use_ends(make_clinic: MakeClinic, clock: time_machine.Coordinates) -> None:
    clinic = make_clinic(session_idle_minutes=30, jwt_access_token_expires_minutes=1440)
    pair = sign_in(clinic).get_json()
    caller, statuses = Caller(clinic, pair["access_token"]), []

    for minutes in (29, 29, 29, 31, 0):
        clock.shift(timedelta(minutes=minutes))
        statuses.append(caller.get("/patients").status_code)
    refused, refreshed = caller.post("/patients", {"name": "Ada"}), refresh(clinic, pair)

    assert statuses == [200, 200, 200, 401, 401]
    assert refused.get_json()["error"] == refreshed.get_json()["error"] == "token_revoked"
    assert clinic.admin.get("/patients").status_code == 401  # the admin was idle, too


def test_a_refresh_is_a_use(make_clinic: MakeClinic, clock: time_machine.Coordinates) -> None:
    clinic = make_clinic(session_idle_minutes=30)
    pair = sign_in(clinic).get_json()

    for _ in range(3):
        clock.shift(timedelta(minutes=29))
        answer = refresh(clinic, pair)
        assert answer.status_code == 200
        pair = answer.get_json()
    clock.shift(timedelta(minutes=31))

    assert refresh(clinic, pair).status_code == 401


def test_a_session_ends_in_any_case(make_clinic: MakeClinic, clock: time_machine.Coordinates) -> None:
    clinic = make_clinic(session_max_hours=12, jwt_access_token_expires_minutes=300)
    answer = sign_in(clinic)
    pair = answer.get_json()

    assert lifetimes(clinic, pair) == [300 * 60, 12 * 3600]
    for hours, access, remaining in ((4, 300 * 60, 8), (4, 4 * 3600, 4), (3, 3600, 1)):
        clock.shift(timedelta(hours=hours))
        answer = refresh(clinic, pair)
        pair = answer.get_json()
        ages = [line for line in answer.headers.getlist("Set-Cookie") if "Max-Age" in line]
        assert lifetimes(clinic, pair) == [access, remaining * 3600]
        assert pair["expires_in"] == access
        assert f"Max-Age={access};" in ages[0]
        assert f"Max-Age={remaining * 3600};" in ages[1]
    clock.shift(timedelta(minutes=59))
    last = Caller(clinic, pair["access_token"]).get("/auth/me")
    clock.shift(timedelta(minutes=1))

    assert last.status_code == 200
    assert Caller(clinic, pair["access_token"]).get("/auth/me").status_code == 401
    assert refresh(clinic, pair).status_code == 401


@pytest.mark.parametrize("setting", [{"session_idle_minutes": 60}, {"session_max_hours": 1}])
def test_a_new_setting_applies_to_existing_sessions(
    make_clinic: MakeClinic, setting: dict[str, int], clock: time_machine.Coordinates
) -> None:
    before = make_clinic(jwt_access_token_expires_minutes=300)
    pair = sign_in(before).get_json()
    assert Caller(before, pair["access_token"]).get("/patients").status_code == 200
    after = make_clinic(**setting)
    clock.shift(timedelta(minutes=61))

    assert Caller(after, pair["access_token"]).get("/patients").status_code == 401
    assert refresh(after, pair).status_code == 401


@pytest.mark.parametrize("column", ["last_used_at", "created_at"])
@pytest.mark.parametrize("path", ["/patients", "/auth/me"])
def test_a_remembered_caller_ends_with_the_session(make_clinic: MakeClinic, column: str, path: str) -> None:
    """The process has read the session before. The database decides."""
    clinic = make_clinic(session_idle_minutes=30)
    caller = clinic.sign_in("receptionist")
    for _ in range(2):
        assert caller.get(path).status_code == 200
    with clinic.inside() as session:
        aged = text(f"UPDATE user_sessions SET {column} = '2020-01-01 00:00:00' WHERE user_id = :id")
        session.connection().execute(aged, {"id": caller.user_id})

    answer = caller.get(path)

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_revoked")


def test_a_replayed_response_is_a_use(make_clinic: MakeClinic, clock: time_machine.Coordinates) -> None:
    clinic = make_clinic(session_idle_minutes=30, jwt_access_token_expires_minutes=300)
    caller = Caller(clinic, sign_in(clinic).get_json()["access_token"])
    key, statuses = {"Idempotency-Key": "the-same-key"}, []

    for _ in range(4):
        statuses.append(caller.post("/patients", {"name": "Ada"}, headers=key).status_code)
        clock.shift(timedelta(minutes=20))

    assert statuses == [201] * 4


def test_the_sessions_show_their_ends(make_clinic: MakeClinic, clock: time_machine.Coordinates) -> None:
    clinic = make_clinic(session_idle_minutes=60, session_max_hours=3, jwt_access_token_expires_minutes=300)
    pair = sign_in(clinic).get_json()
    caller = Caller(clinic, pair["access_token"])

    first = caller.get("/auth/sessions").get_json()[0]
    clock.shift(timedelta(minutes=50))
    caller.get("/auth/sessions")
    second = caller.get("/auth/sessions").get_json()[0]
    other = sign_in(clinic).get_json()
    clock.shift(timedelta(minutes=59))
    third = caller.get("/auth/sessions").get_json()
    clock.shift(timedelta(minutes=59))
    fourth = caller.get("/auth/sessions").get_json()

    ends = [(row["expires_at"][11:16], row["ends_at"][11:16]) for row in (first, second, third[0], fourth[0])]
    assert ends == [("11:00", "09:00"), ("11:00", "09:50"), ("11:00", "09:50"), ("11:00", "10:49")]
    assert (len(third), len(fourth)) == (2, 1)  # the other session was not used
    assert Caller(clinic, other["access_token"]).get("/auth/me").status_code == 401


def test_the_last_use_is_stored_rarely(make_clinic: MakeClinic, clock: time_machine.Coordinates) -> None:
    clinic = make_clinic(session_idle_minutes=10)  # the last use is exact to 10 seconds
    caller = clinic.sign_in("receptionist")
    assert caller.get("/auth/me").status_code == 200
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith("UPDATE USER_SESSIONS"):
            statements.append(statement)

    with clinic.app.app_context():
        event.listen(db.engine, "before_cursor_execute", record)
        for _ in range(6):
            clock.shift(5)
            assert caller.get("/auth/me").status_code == 200
        event.remove(db.engine, "before_cursor_execute", record)

    assert len(statements) == 2
