"""Second factors: authenticator app, recovery codes, both steps of a sign-in, removal and reset."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pyotp
import pytest
from sqlalchemy import select, update

from extensions import db
from models import AuditLog, FactorChallenge, RecoveryCode, TotpSecret, User
from security import totp
from security.permissions import Actor
from services import integrity_checks
from services.users import factor_proofs, second_factors
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.concurrency import run_concurrently
from tests.support.second_factors import Clock, Member

MakeClinic = Callable[..., Clinic]
RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
# RFC 6238 appendix B, SHA-1, the last six of the eight digits
RFC_VECTORS = {
    59: "287082",
    1111111109: "081804",
    1111111111: "050471",
    1234567890: "005924",
    2000000000: "279037",
    20000000000: "353130",
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def member(clinic: Clinic, clock: Clock) -> Member:
    """Return a user with an authenticator app."""
    member = Member(clinic, clock)
    member.enrol(member.caller())
    return member


def entries(clinic: Clinic, user_id: int, *actions: str) -> list[tuple[str, str, str | None]]:
    """Return action, outcome and detail of the audit entries about a user."""
    with clinic.inside() as session:
        statement = select(AuditLog).where(AuditLog.entity == "user", AuditLog.entity_id == user_id)
        rows = session.execute(statement.order_by(AuditLog.id)).scalars()
        return [
            (row.action, row.outcome.value, row.detail)
            for row in rows
            if not actions or row.action in actions
        ]


def error(response: Any) -> tuple[int, str]:
    return response.status_code, response.get_json()["error"]


# --- Codes ---------------------------------------------------------------------------------------------


def test_the_codes_are_those_of_rfc_6238() -> None:
    found = {at: totp.matching_step(RFC_SECRET, code, at) for at, code in RFC_VECTORS.items()}

    assert found == {at: at // 30 for at in RFC_VECTORS}


@pytest.mark.parametrize(
    "typed",
    [
        *("123 456", "123-456"),
        *("\u0661\u0662\u0663\u0664\u0665\u0666", "\uff11\uff12\uff13\uff14\uff15\uff16"),
    ],
)
def test_a_code_may_have_digits_of_any_script(typed: str) -> None:
    assert factor_proofs.normal_code(typed) == "123456"


def test_a_code_is_right_within_one_time_step() -> None:
    at = 1_800_000_000
    code = pyotp.TOTP(RFC_SECRET).at(at)
    delays = (-60, -30, 0, 29, 30, 59, 60)

    matching = [totp.matching_step(RFC_SECRET, code, at + delay) is not None for delay in delays]

    assert matching == [False, True, True, True, True, True, False]


# --- Enrolment -----------------------------------------------------------------------------------------


def test_an_authenticator_app_is_a_factor_after_its_confirmation(clinic: Clinic, clock: Clock) -> None:
    member = Member(clinic, clock)
    caller = member.caller()
    first = caller.post("/auth/mfa/totp").get_json()
    again = caller.post("/auth/mfa/totp").get_json()

    assert first["otpauth_uri"] != again["otpauth_uri"]
    app = pyotp.parse_uri(again["otpauth_uri"])
    assert (app.name, app.issuer) == (member.email, clinic.admin.get("/clinic").get_json()["name"])
    assert again["qr_svg"].startswith("<svg")
    assert "access_token" in member.log_in().get_json()
    assert caller.get("/auth/mfa").get_json()["enabled"] is False

    member.enrol(caller)

    status = caller.get("/auth/mfa").get_json()
    assert (status["enabled"], status["methods"]) == (True, ["totp", "recovery_code"])
    assert len(set(member.recovery_codes)) == status["recovery_codes_left"] == 10
    assert error(caller.post("/auth/mfa/totp")) == (403, "step_up_required")
    assert error(caller.post("/auth/mfa/totp/confirm", {"code": member.code()})) == (409, "conflict")
    with clinic.inside() as session:
        stored = session.execute(select(TotpSecret)).scalar_one()
        hashes = session.execute(select(RecoveryCode.code_hash)).scalars().all()
        assert member.secret.encode() not in stored.secret
        assert not set(hashes) & {code.replace("-", "") for code in member.recovery_codes}


def test_a_wrong_confirmation_changes_nothing(clinic: Clinic, clock: Clock) -> None:
    member = Member(clinic, clock)
    caller = member.caller()
    caller.post("/auth/mfa/totp")

    for code in ("000000", "123 456", "", "abc", "１２３４５６"):
        assert error(caller.post("/auth/mfa/totp/confirm", {"code": code})) == (422, "validation_failed")
    assert caller.post("/auth/mfa/totp/confirm", {"code": 123456}).status_code == 422
    assert "access_token" in member.log_in().get_json()


# --- Sign-in -------------------------------------------------------------------------------------------


def test_a_sign_in_needs_the_second_factor(member: Member, clinic: Clinic) -> None:
    response = member.log_in()

    assert sorted(response.get_json()) == ["methods", "mfa_required", "mfa_token"]
    assert response.get_json()["methods"] == ["totp", "recovery_code"]
    assert "Set-Cookie" not in response.headers

    done = member.prove(response.get_json()["mfa_token"])

    plain = Member(clinic, member.clock).log_in()
    assert done.status_code == 200
    assert list(done.get_json()) == list(plain.get_json())
    cookies = [
        [cookie.split("=")[0] for cookie in answer.headers.getlist("Set-Cookie")] for answer in (done, plain)
    ]
    assert cookies[0] == cookies[1]
    caller = Caller(clinic, done.get_json()["access_token"])
    assert caller.get("/auth/me").get_json()["last_login_at"] is not None
    assert entries(clinic, member.id, "login_password", "login") == [
        ("login", "success", None),
        ("login_password", "success", None),
        ("login", "success", "totp"),
    ]


def test_an_mfa_token_is_valid_once_for_five_minutes_and_for_its_purpose(
    member: Member, clinic: Clinic
) -> None:
    token = member.mfa_token()
    assert member.prove(token).status_code == 200
    assert error(member.prove(token)) == (401, "token_invalid")

    late = member.mfa_token()
    member.clock.move(minutes=5)
    assert error(member.prove(late)) == (401, "token_invalid")

    for other in (clinic.admin.token, "x", "é" * 40):
        assert error(member.prove(other)) == (401, "token_invalid")
    assert error(Caller(clinic, member.mfa_token()).get("/auth/me")) == (401, "token_invalid")


def test_a_code_is_accepted_once(member: Member) -> None:
    code = member.next_code()
    assert member.prove(member.mfa_token(), code=code).status_code == 200

    assert error(member.prove(member.mfa_token(), code=code)) == (401, "invalid_code")
    assert error(member.prove(member.mfa_token(), code=member.code(-1))) == (401, "invalid_code")
    assert (
        member.prove(member.mfa_token(), code=f" {member.code(1)[:3]} {member.code(1)[3:]}").status_code
        == 200
    )


def test_a_wrong_proof_is_refused_and_can_be_repeated(member: Member, clinic: Clinic) -> None:
    token = member.mfa_token()
    wrong: list[dict[str, Any]] = [
        {"code": "000000"},
        {"code": "aaaaaa-aaaaaa-aaaaaa-aaaaaa"},
        {"credential": {}},
        {"credential": {"id": "x", "rawId": 5}},
    ]
    for proof in wrong:
        assert error(member.prove(token, **proof)) == (401, "invalid_code"), proof
    for proof in ({"code": None}, {"code": "1", "credential": {}}, {"code": 5}):
        assert member.prove(token, **proof).status_code == 422, proof

    assert member.prove(token).status_code == 200
    refused = [entry for entry in entries(clinic, member.id, "login") if entry[1] == "refused"]
    assert refused == [("login", "refused", "invalid_code")] * len(wrong)


def test_one_of_64_simultaneous_uses_of_a_code_wins(member: Member, clinic: Clinic) -> None:
    tokens = [member.mfa_token() for _number in range(64)]
    code = member.next_code()

    responses = run_concurrently(
        [lambda token=token: member.prove(token, code=code).status_code for token in tokens]
    )

    assert sorted(responses) == [200] + [401] * 63
    with clinic.inside():
        assert list(integrity_checks.violations()) == []


def test_one_of_16_simultaneous_uses_of_a_token_or_a_recovery_code_wins(member: Member) -> None:
    token, code = member.mfa_token(), member.next_code()
    of_token = run_concurrently([lambda: member.prove(token, code=code).status_code] * 16)

    tokens = [member.mfa_token() for _number in range(16)]
    recovery = member.recovery_codes[0]
    of_code = run_concurrently(
        [lambda token=token: member.prove(token, code=recovery).status_code for token in tokens]
    )

    assert sorted(of_token) == sorted(of_code) == [200] + [401] * 15


def test_a_recovery_code_is_accepted_once(member: Member, clinic: Clinic) -> None:
    code = member.recovery_codes[3]
    typed = code.upper().replace("-", " ")

    assert member.prove(member.mfa_token(), code=typed).status_code == 200
    assert error(member.prove(member.mfa_token(), code=code)) == (401, "invalid_code")
    caller = member.signed_in()
    assert caller.get("/auth/mfa").get_json()["recovery_codes_left"] == 9
    assert caller.post("/auth/step-up", {"code": member.recovery_codes[5]}).status_code == 200
    assert [entry for entry in entries(clinic, member.id) if entry[2] == "recovery_code"] == [
        ("login", "success", "recovery_code"),
        ("step_up", "success", "recovery_code"),
    ]
    with clinic.inside() as session:
        requests = list(session.scalars(select(AuditLog.request_id).where(AuditLog.entity_id == member.id)))
    assert len(requests) == len(set(requests))  # one entry for each request

    renewed = caller.post("/auth/mfa/recovery-codes").get_json()["recovery_codes"]
    assert error(member.prove(member.mfa_token(), code=member.recovery_codes[4])) == (401, "invalid_code")
    assert member.prove(member.mfa_token(), code=renewed[0]).status_code == 200


# --- Limits --------------------------------------------------------------------------------------------


def test_wrong_factors_count_for_the_limit_of_the_account(
    make_clinic: MakeClinic, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="3 per 15 minutes")
    member = Member(clinic, clock)
    member.enrol(member.caller())

    # the right password in between reverses nothing
    failures = [member.prove(member.mfa_token(), code="000000").status_code for _number in range(3)]
    assert failures == [401, 401, 401]
    assert error(member.log_in()) == (429, "too_many_requests")

    now = time.time() + 16 * 60
    monkeypatch.setattr(time, "time", lambda: now)
    assert member.prove(member.mfa_token(), code="000000").status_code == 401
    assert member.prove().status_code == 200  # reverses the failure
    statuses = [member.prove(member.mfa_token(), code="000000").status_code for _number in range(3)]
    assert statuses == [401, 401, 401]


def test_wrong_factors_of_a_session_do_not_block_the_sign_in(make_clinic: MakeClinic, clock: Clock) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="3 per 15 minutes")
    member = Member(clinic, clock)
    caller = member.enrol(member.caller())

    statuses = [caller.post("/auth/step-up", {"code": "000000"}).status_code for _number in range(4)]

    assert statuses == [422, 422, 422, 429]
    assert error(caller.delete("/auth/mfa/totp", {"code": member.next_code()})) == (429, "too_many_requests")
    assert member.prove().status_code == 200


# --- Changes of the account ----------------------------------------------------------------------------


def test_a_new_password_ends_waiting_sign_ins_and_keeps_the_second_factor(
    member: Member, clinic: Clinic
) -> None:
    waiting = member.mfa_token()
    issued = clinic.admin.post(f"/users/{member.id}/password-reset").get_json()["token"]
    new = {"token": issued, "new_password": "seven brown owls asleep"}
    assert clinic.nobody.post("/auth/reset-password", new).status_code == 200

    assert error(member.prove(waiting)) == (401, "token_invalid")
    token = member.mfa_token(password="seven brown owls asleep")
    caller = Caller(clinic, member.prove(token).get_json()["access_token"])

    waiting = member.mfa_token(password="seven brown owls asleep")
    change = {"current_password": "seven brown owls asleep", "new_password": PASSWORD}
    assert caller.post("/auth/change-password", change).status_code == 200
    assert error(member.prove(waiting)) == (401, "token_invalid")
    assert member.prove().status_code == 200


def test_a_deactivated_user_cannot_complete_a_sign_in(member: Member, clinic: Clinic) -> None:
    waiting = member.mfa_token()
    clinic.admin.delete(f"/users/{member.id}")

    assert error(member.prove(waiting)) == (403, "account_inactive")
    clinic.admin.patch(f"/users/{member.id}", {"is_active": True})
    assert member.prove().status_code == 200


def test_the_app_is_removed_with_a_code_or_a_fresh_step_up(member: Member, clinic: Clinic) -> None:
    caller = member.signed_in()
    member.clock.move(minutes=11)
    assert error(caller.delete("/auth/mfa/totp", {})) == (403, "step_up_required")
    assert error(caller.delete("/auth/mfa/totp", {"code": "000000"})) == (422, "validation_failed")

    assert caller.delete("/auth/mfa/totp", {"code": member.next_code()}).status_code == 200
    assert caller.get("/auth/mfa").get_json()["methods"] == []
    assert "access_token" in member.log_in().get_json()
    assert error(caller.delete("/auth/mfa/totp")) == (404, "not_found")

    member.enrol(caller)
    caller = member.signed_in()
    assert caller.delete("/auth/mfa/totp").status_code == 200
    assert entries(clinic, member.id, "remove_totp") == [
        ("remove_totp", "refused", "invalid_code"),
        ("remove_totp", "success", "totp"),
        ("remove_totp", "success", None),
    ]


def test_an_app_that_is_confirmed_meanwhile_is_not_removed(
    clinic: Clinic, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(clinic, clock)
    caller = member.caller()
    member.read_secret(caller.post("/auth/mfa/totp"))
    lock = second_factors.lock_caller

    def lock_after_a_confirmation(actor: Actor) -> User:
        db.session.execute(update(TotpSecret).values(confirmed_at=clock.time))
        db.session.execute(update(User).where(User.id == actor.user_id).values(mfa_enabled_at=clock.time))
        return lock(actor)

    monkeypatch.setattr(second_factors, "lock_caller", lock_after_a_confirmation)

    assert error(caller.delete("/auth/mfa/totp")) == (403, "step_up_required")


def test_an_admin_resets_the_factors_of_a_user(member: Member, clinic: Clinic) -> None:
    caller, waiting = member.signed_in(), member.mfa_token()
    reset = f"/users/{member.id}/mfa-reset"
    assert clinic.receptionist.post(reset, {"reason": "Lost"}).status_code == 403
    for body in ({}, {"reason": " "}, {"reason": "x" * 101}):
        assert clinic.admin.post(reset, body).status_code == 422

    done = clinic.admin.post(reset, {"reason": "Lost the phone"})

    assert (done.status_code, done.get_json()["id"]) == (200, member.id)
    assert error(caller.get("/auth/me")) == (401, "token_revoked")
    assert error(member.prove(waiting)) == (401, "token_invalid")
    assert "access_token" in member.log_in().get_json()
    assert entries(clinic, member.id, "reset_mfa") == [("reset_mfa", "success", "Lost the phone")]
    assert clinic.admin.post("/users/987654/mfa-reset", {"reason": "Lost"}).status_code == 404


def test_the_last_admin_is_reset_on_the_server(member: Member, clinic: Clinic) -> None:
    runner = clinic.app.test_cli_runner()

    result = runner.invoke(args=["users", "mfa-reset", member.email, "--reason", "Lost the phone"])

    assert result.exit_code == 0, result.output
    assert "access_token" in member.log_in().get_json()
    assert entries(clinic, member.id, "reset_mfa") == [("reset_mfa", "success", "Lost the phone")]


def test_a_second_factor_changes_no_version_of_the_user(member: Member, clinic: Clinic) -> None:
    caller = member.signed_in()
    tag = caller.get("/auth/me").headers["ETag"]
    caller.delete("/auth/mfa/totp")

    assert caller.get("/auth/me").headers["ETag"] == tag


def test_expired_steps_are_removed(member: Member, clinic: Clinic) -> None:
    for _number in range(3):
        member.mfa_token()
        member.clock.move(minutes=6)
    member.mfa_token()

    with clinic.inside() as session:
        assert len(session.execute(select(FactorChallenge)).scalars().all()) == 1
