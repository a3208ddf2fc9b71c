"""Limits of sign-ins and registrations: known devices, networks, delays, the audit of blocked attempts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner
from sqlalchemy import select
from werkzeug.test import TestResponse

from cache.rate_limits import network_of
from commands.users import users
from extensions import db
from models import AuditLog
from security import passwords
from services import remembered
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.concurrency import run_concurrently
from tests.support.servers import RedisServer

MakeClinic = Callable[..., Clinic]
RITA = "rita@clinic.example"
START = datetime(2027, 3, 1, 8, tzinfo=UTC)


@pytest.fixture(params=["memory", "redis"])
def limited(
    request: pytest.FixtureRequest, make_clinic: MakeClinic, redis_server: RedisServer
) -> Callable[..., Clinic]:
    """Return a function that makes a clinic with limits, counted in Redis or in the memory of the process."""

    def make(**settings: Any) -> Clinic:
        redis_server.flush()
        if request.param == "redis":
            settings["redis_url"] = redis_server.url
        settings = {"rate_limit_login_account": "3 per 15 minutes"} | settings
        clinic = make_clinic(rate_limit_enabled=True, **settings)
        clinic.admin.make("/users", name="Rita", email=RITA, password=PASSWORD, role="receptionist")
        return clinic

    return make


def log_in(
    clinic: Clinic,
    password: str = PASSWORD,
    *,
    email: str = RITA,
    address: str = "192.0.2.1",
    device: str | None = None,
    cookie: str | None = None,
) -> TestResponse:
    headers = {"X-Device-Token": device} if device else {}
    if cookie:
        headers["Cookie"] = f"clinic_device={cookie}"
    return clinic.nobody.post(
        "/auth/login",
        {"email": email, "password": password},
        headers=headers,
        environ_base={"REMOTE_ADDR": address},
    )


def fail(clinic: Clinic, times: int, **options: Any) -> list[int]:
    """Return the statuses of sign-ins with a wrong password."""
    return [log_in(clinic, "wrong", **options).status_code for _ in range(times)]


def entries(clinic: Clinic, action: str = "login") -> list[tuple[int | None, str | None]]:
    """Return user and detail of the refused attempts, oldest first."""
    statement = (
        select(AuditLog).where(AuditLog.action == action, AuditLog.outcome == "refused").order_by(AuditLog.id)
    )
    with clinic.inside() as session:
        return [(entry.entity_id, entry.detail) for entry in session.execute(statement).scalars()]


# --- Networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("<script>", "unknown"),
        ("192.0.2.7:80", "unknown"),
    ],
)
def test_a_network_is_an_ipv4_address_or_64_bits_of_ipv6(address: str | None, network: str) -> None:
    assert network_of(address) == network


def test_all_addresses_of_an_ipv6_network_count_together(limited: MakeClinic) -> None:
    clinic = limited(rate_limit_login_address="3 per 15 minutes", rate_limit_default="10 per minute")

    statuses = [
        log_in(clinic, email=f"n{number}@clinic.example", address=f"2001:db8::{number}").status_code
        for number in range(4)
    ]
    default = [
        clinic.nobody.get("/", environ_base={"REMOTE_ADDR": f"2001:db8::{number:x}"}).status_code
        for number in range(16, 23)
    ]

    assert statuses == [401, 401, 401, 429]
    assert log_in(clinic, address="2001:db8:0:1::1").status_code == 200
    assert default == [200] * 6 + [429]


# --- Account and network -------------------------------------------------------------------------------


def test_failures_in_one_network_block_no_other_network(limited: MakeClinic) -> None:
    clinic = limited()

    with time_machine.travel(START, tick=False) as clock:
        statuses = fail(clinic, 5)
        clock.shift(1)  # the delay of the account
        here, elsewhere = log_in(clinic), log_in(clinic, address="192.0.2.2")

    assert statuses == [401, 401, 401, 429, 429]
    assert (here.status_code, here.get_json()["error"]) == (429, "too_many_requests")
    assert int(here.headers["Retry-After"]) == 899
    assert elsewhere.status_code == 200


def test_all_spellings_of_an_address_count_together(limited: MakeClinic) -> None:
    clinic = limited()

    for email in (RITA, "nobody@clinic.example"):
        spellings = (email, email.upper(), email.title(), f" {email} ")
        statuses = [log_in(clinic, "wrong", email=spelling).status_code for spelling in spellings]
        assert statuses == [401, 401, 401, 429], email


def test_a_success_reverses_only_its_own_failures(limited: MakeClinic) -> None:
    clinic = limited(rate_limit_login_address="4 per 15 minutes")
    clinic.admin.make("/users", name="Eve", email="eve@clinic.example", password=PASSWORD, role="doctor")

    own = [*fail(clinic, 2), log_in(clinic).status_code] * 3
    fail(clinic, 2, email="eve@clinic.example")
    for _ in range(2):  # Rita does not reset what the network did to Eve
        fail(clinic, 1)
        assert log_in(clinic).status_code == 200
    fail(clinic, 1, email="eve@clinic.example")

    assert own == [401, 401, 200] * 3
    assert fail(clinic, 2, email="eve@clinic.example") == [429, 429]
    assert fail(clinic, 2) == [401, 429]


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_parallel_attempts_never_exceed_a_limit(limited: MakeClinic, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic = limited(rate_limit_login_address="5 per 15 minutes", password_check_queue=30)
    hashed = []
    monkeypatch.setattr(passwords, "verify", lambda *_: hashed.append(1))

    responses = run_concurrently(
        [lambda n=n: log_in(clinic, email=f"n{n}@clinic.example") for n in range(25)]  # type: ignore[misc]
    )

    statuses = sorted(response.status_code for response in responses)
    assert (statuses, len(hashed)) == ([401] * 5 + [429] * 20, 5)


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_parallel_successes_wait_for_each_other(limited: MakeClinic) -> None:
    """The limit is full only because of attempts in progress: they are no failures."""
    clinic = limited(rate_limit_login_address="1 per 15 minutes", rate_limit_login_account="1 per 15 minutes")

    responses = run_concurrently([lambda: log_in(clinic)] * 8)

    assert [response.status_code for response in responses] == [200] * 8


# --- Delay of an account -------------------------------------------------------------------------------


def test_failures_in_many_networks_delay_the_account(limited: MakeClinic) -> None:
    clinic = limited(rate_limit_login_account="2 per 60 minutes")
    networks = (f"198.51.100.{number}" for number in range(1, 100))

    with time_machine.travel(START, tick=False) as clock:
        assert [log_in(clinic, "wrong", address=next(networks)).status_code for _ in range(2)] == [401] * 2
        for delay in (1, 2, 4, 8, 16, 32, 60, 60):
            refused = log_in(clinic, address=next(networks))
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, str(delay))
            clock.shift(delay - 0.5)
            assert log_in(clinic, address=next(networks)).status_code == 429
            clock.shift(0.6)
            assert log_in(clinic, "wrong", address=next(networks)).status_code == 401
        clock.shift(60)
        owner = log_in(clinic, address=next(networks))

    assert owner.status_code == 200


# --- Known devices -------------------------------------------------------------------------------------


def test_a_sign_in_makes_the_device_known(make_clinic: MakeClinic) -> None:
    clinic = make_clinic()
    clinic.admin.make("/users", name="Rita", email=RITA, password=PASSWORD, role="receptionist")

    answer = log_in(clinic)

    token = answer.get_json()["device_token"]
    cookie = next(line for line in answer.headers.getlist("Set-Cookie") if line.startswith("clinic_device="))
    assert f"clinic_device={token};" in cookie
    assert f"Max-Age={180 * 86400}" in cookie
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/"):
        assert attribute in cookie
    pair = {"refresh_token": answer.get_json()["refresh_token"]}
    assert "device_token" not in clinic.nobody.post("/auth/refresh-token", pair).get_json()
    signed_out = Caller(clinic, answer.get_json()["access_token"]).post("/auth/logout")
    assert not [line for line in signed_out.headers.getlist("Set-Cookie") if "clinic_device" in line]
    assert Caller(clinic, token).get("/auth/me").status_code == 401


@pytest.mark.parametrize("sent_as", ["device", "cookie"])
def test_a_known_device_is_not_blocked_by_failures_elsewhere(limited: MakeClinic, sent_as: str) -> None:
    clinic = limited(rate_limit_login_address="3 per 15 minutes")
    known = {sent_as: log_in(clinic).get_json()["device_token"]}
    for address in ("192.0.2.1", "192.0.2.2"):  # the account, and the network of the device
        fail(clinic, 4, address=address)
        fail(clinic, 4, address=address, email="nobody@clinic.example")

    assert log_in(clinic).status_code == 429
    renewed = log_in(clinic, **known)
    assert renewed.status_code == 200
    assert log_in(clinic, **{sent_as: renewed.get_json()["device_token"]}).status_code == 200


@pytest.mark.parametrize("sent_as", ["device", "cookie"])
def test_a_known_device_is_not_blocked_by_requests_of_its_network(limited: MakeClinic, sent_as: str) -> None:
    clinic = limited(rate_limit_default="5 per minute")
    token = log_in(clinic).get_json()["device_token"]
    for _ in range(6):
        clinic.nobody.get("/auth/me", environ_base={"REMOTE_ADDR": "192.0.2.1"})

    statuses = [log_in(clinic, **{sent_as: sent}).status_code for sent in (token, token[:-2] + "xx", "junk")]
    own = [log_in(clinic, **{sent_as: token}).status_code for _ in range(5)]

    assert statuses == [200, 429, 429]
    assert own == [200] * 4 + [429]


def test_a_known_device_has_a_counter_of_its_own(limited: MakeClinic) -> None:
    clinic = limited()
    device, other = (log_in(clinic).get_json()["device_token"] for _ in range(2))

    assert fail(clinic, 4, device=device) == [401, 401, 401, 429]
    assert log_in(clinic, device=device, address="192.0.2.9").status_code == 429
    assert log_in(clinic, device=other).status_code == 200
    assert log_in(clinic).status_code == 200


def test_a_device_token_is_valid_for_one_account_and_its_password(limited: MakeClinic) -> None:
    clinic = limited(rate_limit_login_account="2 per 15 minutes")
    clinic.admin.make("/users", name="Eve", email="eve@clinic.example", password=PASSWORD, role="doctor")
    first = log_in(clinic).get_json()
    token = first["device_token"]
    of_eve = log_in(clinic, email="eve@clinic.example", address="192.0.2.3").get_json()["device_token"]
    header, payload, signature = token.split(".")
    invalid = {
        "another account": of_eve,
        "an access token": first["access_token"],
        "changed": f"{header}.{payload}.{signature[::-1]}",
        "no token": "x" * 5000,
        "expired": token,
    }
    fail(clinic, 2)

    for name, value in invalid.items():
        later = timedelta(days=181) if name == "expired" else timedelta()
        with time_machine.travel(datetime.now(UTC) + later):
            if later:
                fail(clinic, 2)
            assert log_in(clinic, device=value).status_code == 429, name
    assert log_in(clinic, device=token).status_code == 200

    change = {"current_password": PASSWORD, "new_password": "another fine morning"}
    assert Caller(clinic, first["access_token"]).post("/auth/change-password", change).status_code == 200
    assert log_in(clinic, "another fine morning", device=token).status_code == 429


# --- Unlocking -----------------------------------------------------------------------------------------


def test_unlock_removes_every_block_of_a_user(limited: MakeClinic) -> None:
    clinic = limited(rate_limit_login_address="4 per 15 minutes")
    device = log_in(clinic).get_json()["device_token"]

    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        fail(clinic, 4)
        fail(clinic, 4, device=device)
        fail(clinic, 4, email="nobody@clinic.example")
        assert {log_in(clinic).status_code, log_in(clinic, device=device).status_code} == {429}
        clock.shift(0.1)
        with clinic.app.app_context():
            result = CliRunner().invoke(users, ["unlock", RITA.upper()])
        clock.shift(0.1)
        statuses = log_in(clinic).status_code, log_in(clinic, device=device).status_code
        again = fail(clinic, 4)

    assert (result.exit_code, result.output) == (0, f"{RITA} can sign in again.\n")
    assert statuses == (200, 200)
    assert again == [401, 401, 401, 429]
    with clinic.inside() as session:
        entry = session.execute(select(AuditLog).where(AuditLog.action == "unlock")).scalar_one()
        assert (entry.entity, entry.user_name, entry.fields) == ("user", "command line", ["unlocked_at"])


def test_a_new_password_by_one_time_token_removes_the_block(limited: MakeClinic) -> None:
    clinic = limited()
    fail(clinic, 4)
    user_id = clinic.admin.get(f"/users?email={RITA}").get_json()[0]["id"]
    token = clinic.admin.post(f"/users/{user_id}/password-reset").get_json()["token"]

    reset = {"token": token, "new_password": "another fine morning"}
    assert clinic.nobody.post("/auth/reset-password", reset).status_code == 200

    assert log_in(clinic, "another fine morning").status_code == 200


# --- Registration and one-time tokens ------------------------------------------------------------------


def test_registrations_are_limited_by_network(limited: MakeClinic) -> None:
    clinic = limited(rate_limit_register="4 per hour", rate_limit_login_address="1 per hour")

    def register(email: str, address: str = "2001:db8::1", **members: Any) -> TestResponse:
        body = {"name": "Eve", "email": email, "password": PASSWORD} | members
        return clinic.nobody.post("/auth/register", body, environ_base={"REMOTE_ADDR": address})

    statuses = [
        register("eve@clinic.example", password="password1234").status_code,
        register("eve@clinic.example", role="admin").status_code,
        register(RITA).status_code,
        register("eve@clinic.example", "2001:db8::2").status_code,
        register("eve@clinic.example", "2001:db8::3").status_code,
    ]
    blocked = [register(RITA), register("ada@clinic.example")]

    assert statuses == [422, 403, 409, 201, 409]
    assert [answer.status_code for answer in blocked] == [429, 429]
    assert 3500 <= int(blocked[0].headers["Retry-After"]) <= 3601
    assert register("ada@clinic.example", "2001:db8:0:1::1").status_code == 201
    body = {"name": "Ada", "email": "ada2@clinic.example", "password": PASSWORD, "role": "doctor"}
    for _ in range(4):  # the accounts of an admin are not limited
        body["email"] = f"a{body['email']}"
        assert clinic.admin.post("/auth/register", body).status_code == 201
    assert log_in(clinic).status_code == 200
    assert entries(clinic, "register") == [(None, "too_many_requests")]


def test_registrations_that_are_refused_fill_no_audit_log(limited: MakeClinic) -> None:
    clinic = limited(rate_limit_register="3 per hour", registration="closed")
    body = {"name": "Eve", "email": "eve@clinic.example", "password": PASSWORD}

    statuses = [clinic.nobody.post("/auth/register", body).status_code for _ in range(6)]

    assert statuses == [403] * 3 + [429] * 3
    assert entries(clinic, "refused") == [(None, "registration_closed")] * 3
    assert entries(clinic, "register") == [(None, "too_many_requests")]


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_parallel_uses_of_a_one_time_token_are_limited(
    limited: MakeClinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = limited()
    user_id = clinic.admin.get(f"/users?email={RITA}").get_json()[0]["id"]
    token = clinic.admin.post(f"/users/{user_id}/password-reset").get_json()["token"]
    hash_password = passwords.hash_password
    hashed = []
    monkeypatch.setattr(passwords, "hash_password", lambda new: hashed.append(1) or hash_password(new))

    reset = {"token": token, "new_password": "another fine morning"}
    responses = run_concurrently([lambda: clinic.nobody.post("/auth/reset-password", reset)] * 8)

    statuses = sorted(response.status_code for response in responses)
    assert statuses.count(200) == 1
    assert len(hashed) <= 3


# --- Audit of blocked attempts -------------------------------------------------------------------------


def test_blocked_attempts_are_audited_once_a_minute_with_their_number(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(
        rate_limit_enabled=True,
        rate_limit_login_account="1 per 15 minutes",
        rate_limit_login_address="99/hour",
    )
    rita = clinic.admin.make("/users", name="R", email=RITA, password=PASSWORD, role="doctor")["id"]

    with time_machine.travel(START, tick=False) as clock:
        for email in (RITA, "nobody@clinic.example", "another@clinic.example"):
            fail(clinic, 1, email=email)
        fail(clinic, 5)
        for email in ("nobody@clinic.example", "another@clinic.example"):
            fail(clinic, 3, email=email)
        at_once = entries(clinic)[3:]
        clock.shift(61)
        fail(clinic, 2)
        second = entries(clinic)[5:]
        clock.shift(61)
        assert clinic.nobody.get("/auth/me").status_code == 401
        third = entries(clinic)[7:]
        clock.shift(600)
        fail(clinic, 1)
        last = entries(clinic)[8:]

    assert at_once == [(rita, "too_many_requests"), (None, "too_many_requests")]
    assert dict(second) == {rita: "too_many_requests: 4 attempts", None: "too_many_requests: 5 attempts"}
    assert len(second) == 2
    assert third == [(rita, "too_many_requests: 2 attempts")]
    assert last == [(rita, "too_many_requests")]


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_an_outdated_chain_head_loses_no_blocked_attempt(make_clinic: MakeClinic) -> None:
    """A request with an outdated head runs again. Its blocked attempt counts once."""
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="1 per 15 minutes")
    rita = clinic.admin.make("/users", name="R", email=RITA, password=PASSWORD, role="doctor")["id"]
    fail(clinic, 1)
    with clinic.app.app_context():
        heads = remembered._memories[db.engine].heads
    assert heads
    heads.update({chain: head._replace(number=head.number - 1) for chain, head in heads.items()})

    fail(clinic, 1)

    assert entries(clinic) == [(rita, "invalid_credentials"), (rita, "too_many_requests")]
