"""Passkeys: registration, sign-in, step-up, list and removal, with an authenticator in software.

`python -m tests.browser_passkeys` tries them with the virtual authenticator of Chromium.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.support.authenticator import Authenticator
from tests.support.clinic import Caller, Clinic
from tests.support.concurrency import run_concurrently
from tests.support.second_factors import Clock, Member

MakeClinic = Callable[..., Clinic]
ORIGIN = "https://front.example"
FROM = {"headers": {"Origin": ORIGIN}}
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def front(make_clinic: MakeClinic) -> Clinic:
    """Return a clinic with a front end on another origin."""
    return make_clinic(allowed_origins=(ORIGIN, "https://other.example"))


def add(caller: Caller, key: Authenticator, name: str = "Phone") -> TestResponse:
    """Add the passkey of an authenticator."""
    options = caller.post("/auth/mfa/passkeys/options", **FROM).get_json()["public_key"]
    return caller.post("/auth/mfa/passkeys", {"name": name, "credential": key.create(options)})


def sign_in_options(member: Member, token: str) -> dict[str, Any]:
    response = member.clinic.nobody.post("/auth/login/mfa/options", {"mfa_token": token}, **FROM)
    assert response.status_code == 200, response.get_data(as_text=True)
    options: dict[str, Any] = response.get_json()["public_key"]
    return options


def error(response: Any) -> tuple[int, str]:
    return response.status_code, response.get_json()["error"]


def test_a_passkey_is_a_second_factor(front: Clinic, clock: Clock) -> None:
    member, key = Member(front, clock), Authenticator()
    caller = member.caller()
    options = caller.post("/auth/mfa/passkeys/options", **FROM).get_json()["public_key"]
    assert options["rp"]["id"] == "front.example"
    assert options["authenticatorSelection"]["userVerification"] == "preferred"

    created = caller.post("/auth/mfa/passkeys", {"name": "Phone", "credential": key.create(options)})

    body = created.get_json()
    assert created.status_code == 201
    assert created.headers["Location"].endswith(f"/auth/mfa/passkeys/{body['id']}")
    assert len(body["recovery_codes"]) == 10
    step = member.log_in().get_json()
    assert step["methods"] == ["webauthn", "recovery_code"]
    credential = key.get(sign_in_options(member, step["mfa_token"]))
    signed_in = member.prove(step["mfa_token"], credential=credential)
    assert signed_in.status_code == 200
    session = Caller(front, signed_in.get_json()["access_token"])
    assert session.get("/analytics/revenue?format=csv").status_code == 200
    row = session.get("/auth/mfa/passkeys").get_json()[0]
    assert (row["name"], row["last_used_at"] is not None) == ("Phone", True)

    again = add(session, Authenticator(), "Key")
    assert again.get_json()["recovery_codes"] is None
    assert session.delete(f"/auth/mfa/passkeys/{body['id']}").get_json()["name"] == "Phone"
    assert "mfa_required" in member.log_in().get_json()
    assert session.delete(again.headers["Location"].removeprefix("http://localhost")).status_code == 200
    assert "access_token" in member.log_in().get_json()
    assert session.get("/auth/mfa").get_json()["recovery_codes_left"] == 0


def test_a_passkey_is_a_step_up_of_its_session(front: Clinic, clock: Clock) -> None:
    member, key = Member(front, clock), Authenticator()
    first, second = member.caller(), member.caller()
    add(first, key)
    options = first.post("/auth/step-up/options", **FROM).get_json()["public_key"]
    credential = key.get(options)

    assert error(second.post("/auth/step-up", {"credential": credential})) == (422, "validation_failed")
    assert first.post("/auth/step-up", {"credential": credential}).status_code == 200
    assert error(first.post("/auth/step-up", {"credential": credential})) == (422, "validation_failed")
    assert first.get("/analytics/revenue?format=csv").status_code == 200
    assert error(second.get("/analytics/revenue?format=csv")) == (403, "step_up_required")
    assert error(front.doctor.post("/auth/step-up/options", **FROM)) == (409, "conflict")


def test_a_challenge_is_valid_once_for_five_minutes(front: Clinic, clock: Clock) -> None:
    member, key = Member(front, clock), Authenticator()
    add(member.caller(), key)
    token = member.mfa_token()
    older = key.get(sign_in_options(member, token))
    options = sign_in_options(member, token)

    assert error(member.prove(token, credential=older)) == (401, "invalid_code")
    # the wrong response has used up the challenge
    assert error(member.prove(token, credential=key.get(options))) == (401, "invalid_code")
    options = sign_in_options(member, token)
    clock.move(minutes=5)
    assert error(member.prove(token, credential=key.get(options))) == (401, "token_invalid")

    token = member.mfa_token()
    credential = key.get(sign_in_options(member, token))
    statuses = run_concurrently([lambda: member.prove(token, credential=credential).status_code] * 8)
    assert sorted(statuses) == [200] + [401] * 7


def test_a_sign_count_that_does_not_increase_is_refused(front: Clinic, clock: Clock) -> None:
    member, key = Member(front, clock), Authenticator()
    add(member.caller(), key)
    key.sign_count = 5
    token = member.mfa_token()
    assert member.prove(token, credential=key.get(sign_in_options(member, token))).status_code == 200

    key.sign_count = 3  # a copy of the authenticator
    token = member.mfa_token()
    copied = member.prove(token, credential=key.get(sign_in_options(member, token)))
    assert error(copied) == (401, "invalid_code")


def _set_origin(credential: dict[str, Any]) -> None:
    data = json.loads(base64.urlsafe_b64decode(credential["response"]["clientDataJSON"] + "=="))
    data["origin"] = "https://other.example"
    credential["response"]["clientDataJSON"] = base64.urlsafe_b64encode(json.dumps(data).encode()).decode()


def _flip_signature(credential: dict[str, Any]) -> None:
    signature = credential["response"]["signature"]
    credential["response"]["signature"] = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")


def _without(name: str) -> Change:
    return lambda credential: credential["response"].pop(name)


def _set(name: str, value: Any) -> Change:
    return lambda credential: credential.update({name: value})


def _in_response(name: str, value: Any) -> Change:
    return lambda credential: credential["response"].update({name: value})


CHANGES: list[Change] = [
    _set_origin,
    _flip_signature,
    _without("signature"),
    _without("authenticatorData"),
    _without("clientDataJSON"),
    _set("id", "AQID"),
    _set("id", 5),
    _set("rawId", None),
    _set("type", "password"),
    _set("response", []),
    _in_response("authenticatorData", "AA"),
    _in_response("authenticatorData", "é"),
    _in_response("clientDataJSON", "e30"),
    _in_response("signature", {}),
    _in_response("userHandle", 7),
]


def test_a_changed_response_is_refused(front: Clinic, clock: Clock) -> None:
    member, key = Member(front, clock), Authenticator()
    add(member.caller(), key)
    token = member.mfa_token()

    for number, change in enumerate(CHANGES):
        credential = key.get(sign_in_options(member, token))
        change(credential)
        assert error(member.prove(token, credential=credential)) == (401, "invalid_code"), number
    assert member.prove(token, credential=key.get(sign_in_options(member, token))).status_code == 200


def test_a_wrong_registration_is_refused(front: Clinic, clock: Clock) -> None:
    member, key, long = Member(front, clock), Authenticator(), Authenticator()
    long.credential_id = bytes(1024)  # one byte too many
    caller = member.caller()
    path = "/auth/mfa/passkeys"
    assert error(caller.post(path, {"name": "Phone", "credential": {}})) == (422, "validation_failed")
    for change in (
        _set_origin,
        _without("attestationObject"),
        _in_response("attestationObject", "AAAA"),
        _in_response("attestationObject", "o2NmbXQ"),
        _set("rawId", 5),
    ):
        credential = key.create(caller.post(f"{path}/options", **FROM).get_json()["public_key"])
        change(credential)
        assert error(caller.post(path, {"name": "Phone", "credential": credential})) == (
            422,
            "validation_failed",
        )
    assert add(caller, long).status_code == 422
    options = caller.post(f"{path}/options", **FROM).get_json()["public_key"]
    other = member.caller()  # the challenge belongs to the session
    assert other.post(path, {"name": "Phone", "credential": key.create(options)}).status_code == 422
    assert caller.post(path, {"name": " ", "credential": key.create(options)}).status_code == 422
    assert caller.post(path, {"name": "Phone", "credential": key.create(options)}).status_code == 201

    someone = Member(front, clock, "doctor").caller()
    assert error(add(someone, key)) == (409, "already_exists")
    assert someone.get(path).get_json() == []


def test_an_app_of_another_session_is_no_factor_beside_a_passkey(front: Clinic, clock: Clock) -> None:
    member, key = Member(front, clock), Authenticator()
    stolen, caller = member.caller(), member.caller()
    member.read_secret(stolen.post("/auth/mfa/totp"))
    assert add(caller, key).status_code == 201
    code = {"code": member.code()}

    assert error(stolen.post("/auth/mfa/totp/confirm", code)) == (403, "step_up_required")

    options = caller.post("/auth/step-up/options", **FROM).get_json()["public_key"]
    assert caller.post("/auth/step-up", {"credential": key.get(options)}).status_code == 200
    assert caller.post("/auth/mfa/totp/confirm", code).get_json() == {"recovery_codes": None}


def test_a_passkey_needs_a_page_of_an_allowed_origin(make_clinic: MakeClinic, clock: Clock) -> None:
    clinic = make_clinic(allowed_origins=(ORIGIN,), public_url="https://Clinic.example:443/")
    caller = Member(clinic, clock).caller()
    path = "/auth/mfa/passkeys/options"

    found = {}
    for origin in (None, "https://clinic.example", ORIGIN, "https://evil.example", "null"):
        response = caller.post(path, headers={"Origin": origin} if origin else {})
        found[origin] = response.get_json().get("public_key", {}).get("rp", {}).get("id")

    assert found == {
        None: "clinic.example",
        "https://clinic.example": "clinic.example",
        ORIGIN: "front.example",
        "https://evil.example": None,
        "null": None,
    }
    unset = Caller(make_clinic(), caller.token)
    assert error(unset.post(path)) == error(unset.post(path, **FROM)) == (403, "origin_not_allowed")


def test_another_user_sees_and_removes_no_passkey(front: Clinic, clock: Clock) -> None:
    member = Member(front, clock)
    created = add(member.caller(), Authenticator()).get_json()

    for other in (front.admin, front.doctor):
        assert other.get("/auth/mfa/passkeys").get_json() == []
        assert error(other.delete(f"/auth/mfa/passkeys/{created['id']}")) == (404, "not_found")
