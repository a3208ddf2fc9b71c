"""ETag and If-Match, Idempotency-Key: nobody's change is lost, nothing happens twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from models import IdempotencyKey
from tests.support.clinic import Clinic


def test_a_row_names_its_stored_version(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    first = clinic.admin.get(path).headers["ETag"]
    clinic.admin.patch(path, {"address": "Harbour Lane 1"})

    assert first == '"1"'
    assert clinic.admin.get(path).headers["ETag"] == '"2"'


def test_figures_do_not_change_the_version(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    clinic.bill("50.00", patient_id=row["id"])

    answer = clinic.admin.get(path)
    assert answer.get_json()["account_balance"] == "50.00"
    assert answer.headers["ETag"] == '"1"'


@pytest.mark.parametrize("stale", ['"7"', 'W/"1"', "1", '"x", "y"'])
def test_a_stale_version_is_refused(clinic: Clinic, stale: str) -> None:
    row = clinic.patient()

    answer = clinic.admin.patch(f"/patients/{row['id']}", {"address": "Lane 2"}, headers={"If-Match": stale})

    assert answer.status_code == 412
    assert answer.get_json()["error"] == "stale_version"


@pytest.mark.parametrize("current", ['"1"', '"9", "1"', "*"])
def test_the_current_version_is_accepted(clinic: Clinic, current: str) -> None:
    row = clinic.patient()

    answer = clinic.admin.patch(
        f"/patients/{row['id']}", {"address": "Lane 2"}, headers={"If-Match": current}
    )

    assert answer.status_code == 200


def test_the_same_request_again_gets_the_first_answer(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "desk-1"}
    first = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    again = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    assert again.status_code == 201
    assert again.get_json() == first.get_json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert clinic.admin.get("/patients").headers["X-Total-Count"] == "1"


def test_a_key_used_for_another_request_is_refused(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "desk-1"}
    clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    answer = clinic.receptionist.post("/patients", {"name": "Somebody Else"}, headers=headers)

    assert (answer.status_code, answer.get_json()["error"]) == (422, "idempotency_mismatch")


def test_a_key_is_its_users_own(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "desk-1"}
    clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    answer = clinic.admin.post("/patients", {"name": "Somebody Else"}, headers=headers)

    assert answer.status_code == 201


def test_a_refused_request_leaves_no_key(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "desk-1"}
    refused = clinic.receptionist.post("/patients", {"name": ""}, headers=headers)

    answer = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    assert (refused.status_code, answer.status_code) == (422, 201)
    with clinic.inside() as session:
        assert session.query(IdempotencyKey).count() == 1


def test_a_key_is_kept_for_a_day(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "desk-1"}
    clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)
    with clinic.inside() as session:
        row = session.query(IdempotencyKey).one()
        row.created_at = datetime.now(UTC) - timedelta(hours=25)

    answer = clinic.receptionist.post("/patients", {"name": "Somebody Else"}, headers=headers)

    assert answer.status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_a_length(clinic: Clinic, key: str) -> None:
    answer = clinic.receptionist.post("/patients", {"name": "A"}, headers={"Idempotency-Key": key})

    assert answer.status_code == 422


@time_machine.travel(datetime(2026, 3, 29, 12, tzinfo=UTC), tick=True)
def test_instants_carry_the_clinics_offset(make_clinic: object) -> None:
    clinic: Clinic = make_clinic(clinic_timezone="Europe/Berlin")  # type: ignore[operator]

    assert clinic.patient()["created_at"].endswith("+02:00")
