"""`RateLimit` and `RateLimit-Policy` on the responses of all routes with a limit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.database_errors import Retry
from models import User
from services.users import accounts
from tests.support.clinic import Clinic

MakeClinic = Callable[..., Clinic]


@pytest.fixture
def limited(make_clinic: MakeClinic) -> Clinic:
    """Return a clinic with small limits."""
    return make_clinic(
        rate_limit_enabled=True,
        rate_limit_default="50 per minute",
        rate_limit_login_account="3 per 15 minutes",
        rate_limit_login_address="5 per 15 minutes",
        rate_limit_register="2 per hour",
    )


def remaining(response: TestResponse) -> dict[str, int]:
    """Return the rest of each limit. Its policy must be complete."""
    policies = re.findall(r'"([a-z-]+)";q=\d+;w=\d+', response.headers["RateLimit-Policy"])
    left = re.findall(r'"([a-z-]+)";r=(\d+);t=[1-9]\d*', response.headers["RateLimit"])
    assert [name for name, _ in left] == policies
    assert response.headers["RateLimit"].count(";r=") == len(left)
    return {name: int(number) for name, number in left}


def sign_in(clinic: Clinic, email: str, password: str = "wrong") -> TestResponse:
    return clinic.nobody.post("/auth/login", {"email": email, "password": password})


@pytest.mark.parametrize(
    ("path", "status"),
    [("/patients", 200), ("/patients/999999", 404), ("/nowhere", 404), ("/users?limit=x", 422), ("/", 200)],
)
def test_every_response_counts_down(limited: Clinic, path: str, status: int) -> None:
    first, second = limited.admin.get(path), limited.admin.get(path)

    assert first.status_code == second.status_code == status
    assert first.headers["RateLimit-Policy"] == '"default";q=50;w=60'
    assert remaining(first)["default"] - remaining(second)["default"] == 1


def test_a_refusal_says_when_to_come_back(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="1 per minute")

    for caller in (clinic.admin, clinic.nobody):
        caller.get("/patients")
        refused = caller.get("/patients")

        assert refused.status_code == 429
        assert refused.headers["RateLimit"] == f'"default";r=0;t={refused.headers["Retry-After"]}'


def test_routes_without_a_limit_have_no_headers(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(rate_limit_enabled=True, metrics_token="m" * 40)
    responses = [
        clinic.nobody.get("/health/live"),
        clinic.nobody.get("/health/ready"),
        clinic.nobody.get("/metrics", headers={"Authorization": "Bearer " + "m" * 40}),
        clinic.nobody.send("OPTIONS", "/patients"),
    ]

    assert [response.headers.get("RateLimit") for response in responses] == [None] * 4


def test_sign_ins_show_what_is_left_of_each_counter(limited: Clinic) -> None:
    email, password = "rita@clinic.com", "a quiet harbour at dawn"
    limited.nobody.make("/auth/register", name="Rita", email=email, password=password)
    failures = [remaining(sign_in(limited, email)) for _ in range(2)]
    success = remaining(sign_in(limited, email, password))
    for _ in range(3):
        sign_in(limited, email)
    refused = sign_in(limited, email)

    counters = ("login-account", "login-network")
    assert [[left[name] for name in counters] for left in failures] == [[2, 4], [1, 3]]
    assert [success[name] for name in counters] == [3, 5]
    assert refused.status_code == 429
    assert {name for name, left in remaining(refused).items() if left == 0} == {
        "login-account",
        "login-delay",
    }


def test_registrations_show_what_is_left(limited: Clinic) -> None:
    responses = [limited.nobody.post("/auth/register", {"email": "no"})]
    for number in range(3):
        body = {
            "name": f"Rita {number}",
            "email": f"rita{number}@clinic.com",
            "password": "a quiet harbour at dawn",
            "role": "receptionist",
        }
        responses.append(limited.nobody.post("/auth/register", body))

    assert [response.status_code for response in responses] == [422, 201, 201, 429]
    assert [remaining(response).get("register") for response in responses] == [None, 1, 0, 0]
    assert f'"register";r=0;t={responses[-1].headers["Retry-After"]}' in responses[-1].headers["RateLimit"]


def test_a_registration_that_runs_again_counts_once(limited: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    insert, attempts = accounts._insert, []

    def fail_at_first(*arguments: Any, **values: Any) -> User:
        attempts.append(values)
        if len(attempts) == 1:
            raise Retry
        return insert(*arguments, **values)

    monkeypatch.setattr(accounts, "_insert", fail_at_first)
    body = {"name": "Rita", "email": "rita@clinic.com", "password": "a quiet harbour at dawn"}

    response = limited.nobody.post("/auth/register", body)

    assert (response.status_code, len(attempts), remaining(response)["register"]) == (201, 2, 1)


def test_a_password_change_shows_what_is_left(limited: Clinic) -> None:
    body = {"current_password": "wrong", "new_password": "another fine morning"}

    refused = limited.receptionist.post("/auth/change-password", body)

    assert (refused.status_code, remaining(refused)["change-password"]) == (422, 2)
