"""A wrong system clock: one hour ahead, then correct again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import time_machine

from tests.robustness.cluster import assert_consistent, slot
from tests.support.clinic import PASSWORD, Caller, Clinic

RITA = {"email": "rita@clinic.example", "password": PASSWORD}


def sign_in(clinic: Clinic) -> dict[str, Any]:
    """Sign in as Rita. Return the tokens."""
    response = clinic.nobody.post("/auth/login", RITA)
    assert response.status_code == 200, response.get_data(as_text=True)
    tokens: dict[str, Any] = response.get_json()
    return tokens


def caller_of(clinic: Clinic, tokens: dict[str, Any]) -> Caller:
    return Caller(clinic, tokens["access_token"])


def work(caller: Caller, number: int) -> None:
    """Send writes that store and compare times. Repeat one of them with the same key."""
    key = {"Idempotency-Key": f"patient-{number}"}
    registration = {"name": f"Patient Number{number}"}
    first = caller.post("/patients", registration, headers=key)
    patient = first.get_json()["id"]
    doctor = caller.make(
        "/doctors", name=f"Doctor {number}", specialty="surgery", license_number=f"CLOCK-{number}"
    )["id"]
    item = {"description": "X-ray", "quantity": 1, "unit_price": "20.00"}
    caller.make("/appointments", patient_id=patient, doctor_id=doctor, date=slot(number))
    caller.make("/billings", patient_id=patient, items=[item], amount_paid="5.00")
    caller.make("/visits", patient_id=patient, doctor_id=doctor)
    again = caller.post("/patients", registration, headers=key)

    assert (first.status_code, again.get_json()) == (201, first.get_json())


def test_a_clock_one_hour_ahead_and_back_stops_no_work(clinic: Clinic) -> None:
    clinic.admin.make("/users", name="Rita", role="admin", **RITA)
    before = sign_in(clinic)
    work(caller_of(clinic, before), 1)

    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        late = caller_of(clinic, before).get("/auth/me")
        ahead = clinic.nobody.post(
            "/auth/refresh-token", {"refresh_token": before["refresh_token"]}
        ).get_json()
        work(caller_of(clinic, ahead), 2)

    assert late.get_json()["error"] == "token_expired"
    # A token from the future is invalid. A new sign-in works at once.
    back = clinic.nobody.post("/auth/refresh-token", {"refresh_token": ahead["refresh_token"]})
    assert back.get_json()["error"] == "token_invalid"
    work(caller_of(clinic, sign_in(clinic)), 3)
    assert_consistent(clinic)
