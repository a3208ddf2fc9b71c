"""Registration, sign-in and passwords."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from cache.rate_limits import limits
from config import settings
from enums import AuditOutcome
from extensions import bcrypt, db
from models import AuditLog, User
from security import passwords
from tests.support.clinic import PASSWORD, Caller, Clinic

MakeClinic = Callable[..., Clinic]
RITA = {"name": "Rita Okoye", "email": "rita@clinic.example", "password": PASSWORD}


def log_in(clinic: Clinic, email: str, password: str = PASSWORD, **options: Any) -> TestResponse:
    return clinic.nobody.post("/auth/login", {"email": email, "password": password}, **options)


def add_rita(clinic: Clinic, **members: Any) -> dict[str, Any]:
    return clinic.admin.make("/users", **({**RITA, "role": "receptionist"} | members))


def audit_entries(clinic: Clinic, action: str) -> list[AuditLog]:
    with clinic.inside() as session:
        statement = select(AuditLog).where(AuditLog.action == action).order_by(AuditLog.id)
        rows = list(session.execute(statement).scalars())
        session.expunge_all()
    return rows


# --- Registration --------------------------------------------------------------------------------------


def test_an_admin_activates_a_registered_account(clinic: Clinic) -> None:
    registered = clinic.nobody.post("/auth/register", {**RITA, "role": "technician", "phone": "0712345678"})

    assert registered.status_code == 201
    user = registered.get_json()["user"]
    assert (user["role"], user["is_active"], user["phone"]) == ("technician", False, "0712345678")
    assert registered.headers["Location"] == f"/users/{user['id']}"
    assert log_in(clinic, RITA["email"]).get_json()["error"] == "account_inactive"

    assert clinic.admin.patch(f"/users/{user['id']}", {"is_active": True}).status_code == 200
    assert log_in(clinic, RITA["email"]).status_code == 200
    assert [entry.user_id for entry in audit_entries(clinic, "register")] == [None]
    assert [entry.user_id for entry in audit_entries(clinic, "activate")] == [clinic.admin.user_id]


def test_a_registration_as_admin_is_refused(clinic: Clinic) -> None:
    answer = clinic.nobody.post("/auth/register", {**RITA, "role": "admin"})

    assert (answer.status_code, answer.get_json()["error"]) == (403, "forbidden")
    assert clinic.receptionist.post("/auth/register", {**RITA, "role": "admin"}).status_code == 403


def test_an_account_registered_by_an_admin_is_active(clinic: Clinic) -> None:
    answer = clinic.admin.post("/auth/register", {**RITA, "role": "admin"})

    assert answer.status_code == 201
    assert answer.get_json()["user"]["is_active"] is True
    assert log_in(clinic, RITA["email"]).get_json()["user"]["role"] == "admin"


def test_an_account_registered_by_a_receptionist_is_inactive(clinic: Clinic) -> None:
    answer = clinic.receptionist.post("/auth/register", RITA)

    assert answer.get_json()["user"]["is_active"] is False


def test_an_invalid_token_refuses_a_registration(clinic: Clinic) -> None:
    answer = Caller(clinic, "bad").post("/auth/register", RITA)

    assert (answer.status_code, answer.get_json()["error"]) == (401, "token_invalid")


def test_only_admins_register_accounts_while_registration_is_closed(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(registration="closed")

    refused = clinic.nobody.post("/auth/register", RITA)

    assert (refused.status_code, refused.get_json()["error"]) == (403, "registration_closed")
    assert clinic.admin.post("/auth/register", RITA).status_code == 201


def test_an_email_that_has_an_account_cannot_be_registered(clinic: Clinic) -> None:
    add_rita(clinic)

    again = clinic.nobody.post("/auth/register", {**RITA, "email": " RITA@Clinic.Example "})

    assert (again.status_code, again.get_json()["error"]) == (409, "already_exists")
    assert "email" in again.get_json()["errors"]


def test_an_email_may_have_an_internal_or_international_domain(clinic: Clinic) -> None:
    assert add_rita(clinic, email="rita@clinic.local")["email"] == "rita@clinic.local"
    assert add_rita(clinic, email="josé@bücher.example")["email"] == "josé@bücher.example"
    assert clinic.nobody.post("/auth/register", {**RITA, "email": "rita"}).status_code == 422


# --- Sign-in -------------------------------------------------------------------------------------------


def test_a_sign_in_returns_both_tokens_in_the_body_and_as_cookies(clinic: Clinic) -> None:
    rita = add_rita(clinic)

    answer = log_in(clinic, " Rita@CLINIC.example")

    body = answer.get_json()
    assert answer.status_code == 200
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 15 * 60
    assert body["user"] == {key: rita[key] for key in ("id", "name", "email", "role")}
    assert body["message"]
    cookies = {line.split("=", 1)[0]: line for line in answer.headers.getlist("Set-Cookie")}
    assert body["access_token"] in cookies["access_token_cookie"]
    assert body["refresh_token"] in cookies["refresh_token_cookie"]
    for line in cookies.values():
        assert "HttpOnly" in line
        assert "SameSite=Lax" in line
        assert "Secure" not in line
    assert f"Max-Age={30 * 86400}" in cookies["refresh_token_cookie"]
    profile = Caller(clinic, body["access_token"]).get("/auth/me").get_json()
    assert profile["last_login_at"] is not None
    assert [entry.user_id for entry in audit_entries(clinic, "login")] == [rita["id"]]


def test_cookies_in_production_are_secure_and_cross_site(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(environment="production")
    add_rita(clinic)

    cookies = log_in(clinic, RITA["email"]).headers.getlist("Set-Cookie")

    assert len(cookies) == 3
    assert all("Secure" in line and "SameSite=None" in line and "HttpOnly" in line for line in cookies)


def test_a_sign_in_keeps_the_version_of_the_user(clinic: Clinic) -> None:
    path = f"/users/{add_rita(clinic)['id']}"
    before = clinic.admin.get(path).headers["ETag"]

    log_in(clinic, RITA["email"])

    assert clinic.admin.get(path).headers["ETag"] == before


def test_an_unknown_email_and_a_wrong_password_have_the_same_response(clinic: Clinic) -> None:
    rita = add_rita(clinic)

    unknown, wrong = log_in(clinic, "nobody@clinic.example"), log_in(clinic, RITA["email"], "wrong password")

    assert (unknown.status_code, unknown.get_json()["error"]) == (401, "invalid_credentials")
    assert wrong.status_code == 401
    for name in ("error", "message", "title", "type"):
        assert unknown.get_json()[name] == wrong.get_json()[name]
    refused = [entry for entry in audit_entries(clinic, "login") if entry.outcome is AuditOutcome.REFUSED]
    assert [(entry.entity_id, entry.detail) for entry in refused] == [
        (None, "invalid_credentials"),
        (rita["id"], "invalid_credentials"),
    ]


def test_an_unknown_email_costs_a_hash_of_the_same_cost(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_rita(clinic)
    costs = []
    check = bcrypt.check_password_hash

    def spy(hashed: str, password: str) -> bool:
        costs.append(hashed[:7])
        return bool(check(hashed, password))

    monkeypatch.setattr(bcrypt, "check_password_hash", spy)
    log_in(clinic, "nobody@clinic.example")
    log_in(clinic, RITA["email"], "wrong password")

    assert costs == ["$2b$04$", "$2b$04$"]


def test_a_hash_from_before_a_higher_cost_takes_the_time_of_the_present_cost(
    make_clinic: Callable[..., Clinic], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_rita(make_clinic(bcrypt_cost=4))
    clinic = make_clinic(bcrypt_cost=7)
    rounds: list[int] = []
    check = bcrypt.check_password_hash

    def spy(hashed: str, password: str) -> bool:
        rounds.append(2 ** int(hashed[4:6]))
        return bool(check(hashed, password))

    monkeypatch.setattr(bcrypt, "check_password_hash", spy)
    for email, password, status in (
        ("nobody@clinic.example", PASSWORD, 401),
        (RITA["email"], "wrong password", 401),
        (RITA["email"], PASSWORD, 200),
    ):
        rounds.clear()
        assert log_in(clinic, email, password).status_code == status
        assert sum(rounds) == 2**7


def test_no_transaction_is_open_while_a_password_is_verified(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_rita(clinic)
    verify = passwords.verify
    transaction_open = []

    def spy(hashed: str | None, password: str) -> bool:
        transaction_open.append(db.session().in_transaction())
        return verify(hashed, password)

    monkeypatch.setattr(passwords, "verify", spy)

    assert log_in(clinic, RITA["email"]).status_code == 200
    assert transaction_open == [False]


def test_an_inactive_account_is_reported_only_for_the_right_password(clinic: Clinic) -> None:
    add_rita(clinic, is_active=False)

    wrong, right = log_in(clinic, RITA["email"], "wrong password"), log_in(clinic, RITA["email"])

    assert (wrong.status_code, wrong.get_json()["error"]) == (401, "invalid_credentials")
    assert (right.status_code, right.get_json()["error"]) == (403, "account_inactive")
    assert right.headers.getlist("Set-Cookie") == []


def test_an_incomplete_sign_in_is_422(clinic: Clinic) -> None:
    for body in (
        {},
        {"email": "a@b.example"},
        {"email": 1, "password": "x"},
        {"email": "x", "password": "x"},
    ):
        assert clinic.nobody.post("/auth/login", body).status_code == 422, body


def test_an_account_without_a_usable_password_cannot_sign_in(clinic: Clinic) -> None:
    clinic.receptionist  # noqa: B018 - creates the user, whose stored hash is invalid
    with clinic.inside() as session:
        email = session.get(User, clinic.receptionist.user_id).email

    assert log_in(clinic, email, "!").status_code == 401


def test_failures_block_known_and_unknown_accounts_for_a_while(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="3 per 15 minutes")
    add_rita(clinic)

    for email in (RITA["email"], "nobody@clinic.example"):
        answers = [log_in(clinic, email, "wrong password") for _ in range(4)]

        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert answers[3].get_json()["error"] == "too_many_requests"
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 900
    assert log_in(clinic, RITA["email"].upper()).status_code == 429


def test_a_success_resets_the_failures_of_the_account(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="3 per 15 minutes")
    add_rita(clinic)

    attempts = ["wrong", "wrong", PASSWORD, "wrong", "wrong", PASSWORD]

    assert [log_in(clinic, RITA["email"], password).status_code for password in attempts] == [
        401,
        401,
        200,
    ] * 2


def test_only_failures_count_for_the_limit_of_an_ip_address(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_address="3 per 15 minutes")
    add_rita(clinic)

    good = [log_in(clinic, RITA["email"]).status_code for _ in range(4)]
    bad = [log_in(clinic, f"n{number}@clinic.example").status_code for number in range(4)]
    elsewhere = log_in(clinic, RITA["email"], environ_base={"REMOTE_ADDR": "192.0.2.7"})

    assert good == [200] * 4
    assert bad == [401, 401, 401, 429]
    assert log_in(clinic, RITA["email"]).status_code == 429
    assert elsewhere.status_code == 200


def test_an_attempt_above_the_limit_is_not_hashed(
    make_clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="1 per 15 minutes")
    log_in(clinic, RITA["email"], "wrong password")
    monkeypatch.setattr(passwords, "verify", lambda *_: pytest.fail("hashed"))

    assert log_in(clinic, RITA["email"]).status_code == 429


# --- Passwords -----------------------------------------------------------------------------------------


WEAK = (
    "short1!",
    "elevenchars",
    "password1234",
    "Password!2026",
    "mypassword2024",
    "passwordpassword",
    "123456789012",
    "qwertyuiopas",
    "aaaaaaaaaaaaaa",
    "abcdefghijklm",
    "rita@clinic.example",
    "rita okoye 2026!",
)
STRONG = (
    "correct horse battery staple",
    "tr0ub4dor&3-and-more",
    "пароль из пяти слов",
    "全员消毒双手然后再进入病房里",
    "lower case only",
    "7391058264410",
)


def test_a_weak_password_is_refused_with_its_field(clinic: Clinic) -> None:
    for password in WEAK:
        answer = clinic.nobody.post("/auth/register", {**RITA, "password": password})

        assert answer.status_code == 422, password
        assert list(answer.get_json()["errors"]) == ["password"]
        assert password not in answer.get_data(as_text=True)


def test_passwords_have_no_composition_rules(clinic: Clinic) -> None:
    for number, password in enumerate(STRONG):
        add_rita(clinic, email=f"r{number}@clinic.example", password=password)

        assert log_in(clinic, f"r{number}@clinic.example", password).status_code == 200, password


def test_a_long_password_is_neither_truncated_nor_refused(clinic: Clinic) -> None:
    password = "ö quiet harbour " * 20
    assert len(password.encode()) > 72
    add_rita(clinic, password=password)

    assert log_in(clinic, RITA["email"], password).status_code == 200
    assert log_in(clinic, RITA["email"], password[:-1]).status_code == 401
    assert log_in(clinic, RITA["email"], password[:72]).status_code == 401


def test_a_password_is_normalized_to_one_unicode_form(clinic: Clinic) -> None:
    add_rita(clinic, password=unicodedata.normalize("NFC", "café près du port"))

    other = unicodedata.normalize("NFD", "café près du port")

    assert log_in(clinic, RITA["email"], other).status_code == 200


def test_the_cost_of_a_hash_comes_from_the_settings(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(bcrypt_cost=5)

    with clinic.inside():
        assert passwords.hash_password(PASSWORD).startswith("$2b$05$")
        assert settings().bcrypt_cost == 5


def test_a_password_change_ends_the_other_sessions(clinic: Clinic) -> None:
    rita = add_rita(clinic)
    current, other = (log_in(clinic, RITA["email"]).get_json() for _ in range(2))

    changed = Caller(clinic, current["access_token"]).post(
        "/auth/change-password", {"current_password": PASSWORD, "new_password": "another fine morning"}
    )

    assert changed.status_code == 200
    assert Caller(clinic, current["access_token"]).get("/auth/me").status_code == 200
    assert Caller(clinic, other["access_token"]).get("/auth/me").get_json()["error"] == "token_revoked"
    refreshed = clinic.nobody.post("/auth/refresh-token", {"refresh_token": other["refresh_token"]})
    assert refreshed.status_code == 401
    assert log_in(clinic, RITA["email"]).status_code == 401
    assert log_in(clinic, RITA["email"], "another fine morning").status_code == 200
    entry = audit_entries(clinic, "change_password")[0]
    assert (entry.user_id, entry.entity_id, entry.outcome) == (rita["id"], rita["id"], AuditOutcome.SUCCESS)
    assert entry.fields == ["password", "user_sessions"]


def test_an_invalid_password_change_is_refused(clinic: Clinic) -> None:
    add_rita(clinic)
    rita = Caller(clinic, log_in(clinic, RITA["email"]).get_json()["access_token"])

    for current, new, field in (
        ("wrong", "another fine morning", "current_password"),
        (PASSWORD, "password1234", "new_password"),
        (PASSWORD, PASSWORD, "new_password"),
    ):
        body = {"current_password": current, "new_password": new}
        refused = rita.post("/auth/change-password", body)

        assert refused.status_code == 422
        assert list(refused.get_json()["errors"]) == [field]
    assert rita.post("/auth/change-password", {"new_password": new}).status_code == 422
    assert log_in(clinic, RITA["email"]).status_code == 200
    refusals = [(entry.outcome, entry.detail) for entry in audit_entries(clinic, "change_password")]
    assert refusals == [(AuditOutcome.REFUSED, "invalid_credentials")]


def test_wrong_current_passwords_are_limited(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="2 per 15 minutes")
    add_rita(clinic)
    caller = Caller(clinic, log_in(clinic, RITA["email"]).get_json()["access_token"])

    guess = {"current_password": "wrong", "new_password": "another fine morning"}
    answers = [caller.post("/auth/change-password", guess).status_code for _ in range(3)]

    assert answers == [422, 422, 429]


# --- Forgotten passwords -------------------------------------------------------------------------------


def issue_reset_token(clinic: Clinic, user_id: int) -> dict[str, Any]:
    answer = clinic.admin.post(f"/users/{user_id}/password-reset")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.get_json()
    return body


def reset(clinic: Clinic, token: str, password: str = "another fine morning") -> TestResponse:
    return clinic.nobody.post("/auth/reset-password", {"token": token, "new_password": password})


def test_a_reset_token_works_once_and_ends_all_sessions(clinic: Clinic) -> None:
    rita = add_rita(clinic)
    session = log_in(clinic, RITA["email"]).get_json()
    token = issue_reset_token(clinic, rita["id"])["token"]

    weak, done, again = reset(clinic, token, "password1234"), reset(clinic, token), reset(clinic, token)

    assert (weak.status_code, list(weak.get_json()["errors"])) == (422, ["new_password"])
    assert done.status_code == 200
    assert (again.status_code, again.get_json()["error"]) == (401, "token_invalid")
    assert Caller(clinic, session["access_token"]).get("/auth/me").status_code == 401
    assert log_in(clinic, RITA["email"]).status_code == 401
    assert log_in(clinic, RITA["email"], "another fine morning").status_code == 200
    assert [entry.entity_id for entry in audit_entries(clinic, "issue_reset")] == [rita["id"]]
    assert [entry.entity_id for entry in audit_entries(clinic, "reset_password")] == [rita["id"]]


def test_a_reset_token_is_stored_as_a_hash_only(clinic: Clinic) -> None:
    token = issue_reset_token(clinic, add_rita(clinic)["id"])["token"]

    with clinic.inside() as session:
        stored = session.connection().exec_driver_sql("SELECT * FROM password_resets").all()

    assert len(stored) == 1
    assert token not in repr(stored)


def test_a_newer_reset_token_invalidates_the_older_one(clinic: Clinic) -> None:
    rita = add_rita(clinic)
    older, newer = (
        issue_reset_token(clinic, rita["id"])["token"],
        issue_reset_token(clinic, rita["id"])["token"],
    )

    assert reset(clinic, older).status_code == 401
    assert reset(clinic, newer).status_code == 200


def test_a_new_password_of_the_user_ends_a_reset_token(clinic: Clinic) -> None:
    rita = add_rita(clinic)
    token = issue_reset_token(clinic, rita["id"])["token"]
    caller = Caller(clinic, log_in(clinic, rita["email"]).get_json()["access_token"])
    changed = {"current_password": PASSWORD, "new_password": "one more quiet harbour"}

    assert caller.post("/auth/change-password", changed).status_code == 200
    assert reset(clinic, token).status_code == 401
    assert log_in(clinic, rita["email"], "one more quiet harbour").status_code == 200


def test_only_admins_issue_reset_tokens(clinic: Clinic) -> None:
    rita = add_rita(clinic)

    assert clinic.doctor.post(f"/users/{rita['id']}/password-reset").status_code == 403
    assert clinic.admin.post("/users/987654/password-reset").status_code == 404


def test_a_password_reset_unblocks_the_account(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="2 per 15 minutes")
    rita = add_rita(clinic)
    for _ in range(3):
        blocked = log_in(clinic, RITA["email"], "wrong password")
    assert blocked.status_code == 429

    reset(clinic, issue_reset_token(clinic, rita["id"])["token"])

    assert log_in(clinic, RITA["email"], "another fine morning").status_code == 200


def test_rate_limits_count_in_the_process_without_redis(make_clinic: MakeClinic) -> None:
    make_clinic(rate_limit_enabled=True)

    waits = [limits.hit("2 per minute", "somebody") for _ in range(3)]

    assert waits[:2] == [None, None]
    assert waits[2] is not None
    assert limits.hit("2 per minute", "somebody else") is None
