"""Step-up, and the roles that must have a second factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.docs.registry import registered_endpoints
from api.endpoint import StepUp
from config import ROLES
from enums import Role
from security.permissions import Permission
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.second_factors import Clock, Member

MakeClinic = Callable[..., Clinic]
NEW = {"name": "New User", "email": "new@clinic.example", "password": PASSWORD, "role": "receptionist"}
DOCTOR = {"name": "New Doctor", "specialty": "general practice", "license_number": "L-900"}
ACCOUNT = {"email": "doctor@clinic.example", "password": PASSWORD}
# Method, path and body of requests that need a step-up. {id} is another user.
PROTECTED: list[tuple[str, str, Any]] = [
    ("POST", "/users", NEW),
    ("POST", "/auth/register", NEW),
    ("PATCH", "/users/{id}", {"role": "technician"}),
    ("PUT", "/users/{id}", {"name": "Other Name"}),
    ("POST", "/users/{id}/password-reset", None),
    ("POST", "/users/{id}/mfa-reset", {"reason": "Lost"}),
    ("DELETE", "/users/{id}", None),
    ("POST", "/doctors", DOCTOR | {"user": ACCOUNT}),
    ("PATCH", "/doctors/1", {"user": ACCOUNT}),
    ("PUT", "/doctors/1", {"user": ACCOUNT}),
    ("POST", "/auth/mfa/recovery-codes", None),
    ("GET", "/analytics/revenue?format=csv", None),
    ("GET", "/analytics/dashboard?format=json&format=csv", None),
    ("GET", "/patients?format=xlsx", None),
    ("POST", "/exports", {"path": "/patients", "format": "csv"}),
    ("GET", "/exports/1/file", None),
]
FREE: list[tuple[str, str, Any]] = [
    ("GET", "/users", None),
    ("GET", "/users/{id}", None),
    ("GET", "/analytics/revenue?format=json", None),
    ("GET", "/patients?format=json", None),
    ("PATCH", "/auth/me", {"name": "Mary Ann Member"}),
    ("POST", "/patients", {"name": "Zawadi Njeri"}),
    ("POST", "/doctors", DOCTOR | {"user": None}),
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def send(caller: Caller, requests: list[tuple[str, str, Any]], user_id: int) -> list[tuple[str, int, str]]:
    """Return path, status and error code of each request."""
    answers = []
    for method, path, body in requests:
        response = caller.send(method, path.format(id=user_id), body)
        answer = response.get_json(silent=True)
        code = answer.get("error", "") if isinstance(answer, dict) else ""
        answers.append((f"{method} {path}", response.status_code, code))
    return answers


def error(response: Any) -> tuple[int, str]:
    return response.status_code, response.get_json()["error"]


# --- Step-up -------------------------------------------------------------------------------------------


def test_a_user_with_a_factor_needs_a_step_up_of_this_session(clinic: Clinic, clock: Clock) -> None:
    member, other = Member(clinic, clock), clinic.receptionist.user_id
    session, second = member.caller(), member.caller()
    assert session.get("/analytics/revenue?format=csv").status_code == 200  # no second factor yet
    member.enrol(session)

    refused = send(session, PROTECTED, other)
    assert [answer[1:] for answer in refused] == [(403, "step_up_required")] * len(PROTECTED), refused
    csv = session.get("/analytics/revenue", headers={"Accept": "text/csv"})
    assert error(csv) == (403, "step_up_required")
    assert all(status < 300 for _path, status, _code in send(session, FREE, other))

    done = session.post("/auth/step-up", {"code": member.next_code()})
    assert done.status_code == 200
    assert session.get("/auth/mfa").get_json()["stepped_up_until"] == done.get_json()["stepped_up_until"]
    assert session.post("/users", NEW).status_code == 201
    assert session.get("/analytics/revenue?format=csv").status_code == 200
    assert error(second.delete(f"/users/{other}")) == (403, "step_up_required")

    clock.move(minutes=9, seconds=59)
    assert session.patch(f"/users/{other}", {"name": "Other Name"}).status_code == 200
    clock.move(seconds=1)
    assert error(session.delete(f"/users/{other}")) == (403, "step_up_required")


def test_a_sign_in_with_a_factor_is_a_proof_for_ten_minutes(clinic: Clinic, clock: Clock) -> None:
    member = Member(clinic, clock)
    member.enrol(member.caller())
    session = member.signed_in()

    assert session.post("/users", NEW).status_code == 201
    refreshed = clinic.nobody.post("/auth/refresh-token", {"refresh_token": session.refresh_token})
    session.token = refreshed.get_json()["access_token"]
    assert session.get("/analytics/revenue?format=csv").status_code == 200
    clock.move(minutes=10)
    assert error(session.post("/users", NEW)) == (403, "step_up_required")


def test_a_step_up_accepts_a_code_once_and_a_recovery_code(clinic: Clinic, clock: Clock) -> None:
    member = Member(clinic, clock, "receptionist")
    session = member.enrol(member.caller())
    code = member.next_code()

    assert session.post("/auth/step-up", {"code": code}).status_code == 200
    for wrong in (code, "000000", "aaaa", member.recovery_codes[0][:-1]):
        assert error(session.post("/auth/step-up", {"code": wrong})) == (422, "validation_failed")
    assert session.post("/auth/step-up", {"code": member.recovery_codes[0]}).status_code == 200
    assert session.get("/auth/me").status_code == 200  # a wrong code ends no session
    for body in ({}, {"code": None}, {"code": "1", "credential": {}}, {"code": " "}):
        assert session.post("/auth/step-up", body).status_code == 422, body
    assert error(clinic.doctor.post("/auth/step-up", {"code": code})) == (409, "conflict")
    assert error(clinic.nobody.post("/auth/step-up", {"code": code})) == (401, "unauthorized")


def test_every_export_and_user_administration_declares_a_step_up(clinic: Clinic) -> None:
    endpoints = registered_endpoints(clinic.app)
    administration = {
        f"{each.method} {each.path}"
        for each in endpoints
        if each.unsafe and each.spec.permission is Permission.USERS_MANAGE
    }
    declared = {f"{each.method} {each.path}": each.spec.step_up for each in endpoints if each.spec.step_up}

    assert {declared.get(route) for route in administration} == {StepUp.ALWAYS}
    assert declared["PATCH /users/{user_id}"] is declared["POST /auth/register"] is StepUp.ADMINS
    exports = {each.path for each in endpoints if "text/csv" in each.spec.media_types}
    assert len(exports) >= 4
    files = {each.path for each in endpoints if each.spec.step_up is StepUp.EXPORTS}
    assert exports == {*files, "/exports/{export_id}/file"}
    document = clinic.nobody.get("/openapi.json").get_json()["paths"]["/users"]["post"]
    assert "step_up_required" in document["responses"]["403"]["description"]
    assert "need a step-up: all requests." in document["description"]


# --- Roles that must have a second factor --------------------------------------------------------------


def test_the_setting_knows_the_roles() -> None:
    assert set(ROLES) == set(Role)


def test_after_the_grace_period_a_user_can_only_set_up_a_factor(
    make_clinic: MakeClinic, clock: Clock
) -> None:
    clinic = make_clinic(mfa_required_roles=("doctor", "receptionist"), mfa_grace_days=7)
    member, admin = Member(clinic, clock, "receptionist"), Member(clinic, clock, "admin")
    early = member.caller()
    status = early.get("/auth/mfa").get_json()
    assert (status["required"], status["enabled"]) == (True, False)
    assert status["required_from"] is not None
    assert early.get("/patients").status_code == 200

    clock.move(days=7)
    late = member.caller()
    for session in (early, late):
        for method, path, body in [("GET", "/patients", None), ("PATCH", "/auth/me", {"name": "Mary"})]:
            assert error(session.send(method, path, body)) == (403, "mfa_enrolment_required")
        assert session.get("/auth/me").status_code == 200
    assert late.post("/auth/mfa/passkeys/options", headers={"Origin": "x"}).status_code == 403
    assert clinic.nobody.post("/auth/refresh-token", {"refresh_token": late.refresh_token}).status_code == 200
    assert admin.caller().get("/patients").status_code == 200

    member.enrol(late)
    assert late.get("/patients").status_code == early.get("/patients").status_code == 200
    assert late.delete("/auth/mfa/totp", {"code": member.next_code()}).status_code == 200
    assert error(late.get("/patients")) == (403, "mfa_enrolment_required")
    assert error(late.post("/patients", {"name": "Zawadi Njeri"})) == (403, "mfa_enrolment_required")


def test_without_grace_a_user_must_set_up_a_factor_at_once(make_clinic: MakeClinic, clock: Clock) -> None:
    clinic = make_clinic(mfa_required_roles=("technician",), mfa_grace_days=0)
    member = Member(clinic, clock, "technician")
    session = member.caller()

    assert error(session.get("/patients")) == (403, "mfa_enrolment_required")
    member.enrol(session)
    assert session.get("/patients").status_code == 200


def test_the_grace_period_of_an_open_session_starts_with_its_next_use(
    make_clinic: MakeClinic, clock: Clock
) -> None:
    clinic = make_clinic(mfa_required_roles=("receptionist",), mfa_grace_days=1)
    member = Member(clinic, clock, "technician")
    session = member.caller()
    clinic.admin.patch(f"/users/{member.id}", {"role": "receptionist"})
    clock.move(minutes=2)
    assert session.get("/patients").status_code == 200  # starts it

    clock.move(days=1)
    assert error(session.get("/patients")) == (403, "mfa_enrolment_required")


def test_an_admin_who_must_enrol_creates_no_account_before_a_step_up(
    make_clinic: MakeClinic, clock: Clock
) -> None:
    clinic = make_clinic(mfa_required_roles=("admin",), mfa_grace_days=1)
    member = Member(clinic, clock)
    session = member.caller()
    clock.move(days=1)

    for path in ("/users", "/auth/register"):
        assert error(session.post(path, NEW)) == (403, "step_up_required")
    assert error(session.get("/analytics/revenue?format=csv")) == (403, "step_up_required")
    assert error(session.get("/analytics/revenue")) == (403, "mfa_enrolment_required")
    member.enrol(session)
    assert error(session.post("/users", NEW)) == (403, "step_up_required")
    assert session.post("/auth/step-up", {"code": member.next_code()}).status_code == 200
    assert session.post("/users", NEW).status_code == 201
