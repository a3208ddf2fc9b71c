"""ETag, If-Match and Idempotency-Key: no lost update, and no request with two effects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from models import IdempotencyKey
from tests.support.clinic import Clinic


def test_the_etag_is_the_stored_version(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    first = clinic.admin.get(path).headers["ETag"]
    clinic.admin.patch(path, {"address": "Harbour Lane 1"})

    assert first == '"1"'
    assert clinic.admin.get(path).headers["ETag"] == '"2"'


def test_computed_fields_do_not_change_the_version(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    clinic.bill("50.00", patient_id=row["id"])

    response = clinic.admin.get(path)
    assert response.get_json()["account_balance"] == "50.00"
    assert response.headers["ETag"] == '"1"'


@pytest.mark.parametrize("stale", ['"7"', 'W/"1"', "1", '"x", "y"'])
def test_a_stale_version_is_refused(clinic: Clinic, stale: str) -> None:
    row = clinic.patient()

    response = clinic.admin.patch(
        f"/patients/{row['id']}", {"address": "Lane 2"}, headers={"If-Match": stale}
    )

    assert response.status_code == 412
    assert response.get_json()["error"] == "stale_version"


@pytest.mark.parametrize("current", ['"1"', '"9", "1"', "*"])
def test_the_current_version_is_accepted(clinic: Clinic, current: str) -> None:
    row = clinic.patient()

    response = clinic.admin.patch(
        f"/patients/{row['id']}", {"address": "Lane 2"}, headers={"If-Match": current}
    )

    assert response.status_code == 200


def test_a_repeated_request_gets_the_first_response(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    first = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    repeated = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    assert repeated.status_code == 201
    assert repeated.get_json() == first.get_json()
    assert repeated.headers["Idempotency-Replayed"] == "true"
    assert repeated.headers["Location"] == first.headers["Location"]
    assert clinic.admin.get("/patients").headers["X-Total-Count"] == "1"


def test_a_key_of_another_request_is_refused(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    response = clinic.receptionist.post("/patients", {"name": "Somebody Else"}, headers=headers)

    assert (response.status_code, response.get_json()["error"]) == (422, "idempotency_mismatch")


def test_two_users_may_use_the_same_key(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    response = clinic.admin.post("/patients", {"name": "Somebody Else"}, headers=headers)

    assert response.status_code == 201


def test_a_refused_request_stores_no_key(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    refused = clinic.receptionist.post("/patients", {"name": ""}, headers=headers)

    response = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    assert (refused.status_code, response.status_code) == (422, 201)
    with clinic.inside() as session:
        assert session.query(IdempotencyKey).count() == 1


def test_a_key_expires_after_a_day(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)
    with clinic.inside() as session:
        row = session.query(IdempotencyKey).one()
        row.created_at = datetime.now(UTC) - timedelta(hours=25)

    response = clinic.receptionist.post("/patients", {"name": "Somebody Else"}, headers=headers)

    assert response.status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_a_wrong_length_is_refused(clinic: Clinic, key: str) -> None:
    response = clinic.receptionist.post("/patients", {"name": "A"}, headers={"Idempotency-Key": key})

    assert response.status_code == 422


@time_machine.travel(datetime(2026, 3, 29, 12, tzinfo=UTC), tick=True)
def test_instants_have_the_offset_of_the_clinic(make_clinic: object) -> None:
    clinic: Clinic = make_clinic(clinic_timezone="Europe/Berlin")  # type: ignore[operator]

    assert clinic.patient()["created_at"].endswith("+02:00")
