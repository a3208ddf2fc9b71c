"""A clock that jumps an hour ahead and back again, as one does that was set wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import time_machine

from tests.robustness.fleet import assert_well, slot
from tests.support.clinic import PASSWORD, Caller, Clinic

RITA = {"email": "rita@clinic.example", "password": PASSWORD}


def sign_in(clinic: Clinic) -> dict[str, Any]:
    """A new session of Rita's."""
    answer = clinic.nobody.post("/auth/login", RITA)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def holder(clinic: Clinic, pair: dict[str, Any]) -> Caller:
    return Caller(clinic, pair["access_token"])


def work(caller: Caller, number: int) -> None:
    """A few writes that stamp and compare times, and one of them again."""
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


def test_a_clock_an_hour_forth_and_back_stops_nobodys_work(clinic: Clinic) -> None:
    clinic.admin.make("/users", name="Rita", role="admin", **RITA)
    before = sign_in(clinic)
    work(holder(clinic, before), 1)

    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        late = holder(clinic, before).get("/auth/me")
        ahead = clinic.nobody.post(
            "/auth/refresh-token", {"refresh_token": before["refresh_token"]}
        ).get_json()
        work(holder(clinic, ahead), 2)

    assert late.get_json()["error"] == "token_expired"
    # a token of an hour that has not come is none; who signs in again goes on at once
    back = clinic.nobody.post("/auth/refresh-token", {"refresh_token": ahead["refresh_token"]})
    assert back.get_json()["error"] == "token_invalid"
    work(holder(clinic, sign_in(clinic)), 3)
    assert_well(clinic)
