"""ETag, If-Match and Idempotency-Key: no lost update, and no request with two effects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from werkzeug.test import TestResponse

from api.docs.registry import registered_endpoints
from models import IdempotencyKey
from services import idempotency
from tests.api.test_query_counts import path_of
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.furnished import furnish


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


def test_a_tag_never_matches_a_record_without_a_version(clinic: Clinic) -> None:
    doctor_id, bill = clinic.doctor.doctor_id, clinic.bill("5.00")["id"]
    clinic.admin.make(f"/billings/{bill}/payments", amount="5.00", method="cash")
    asked = clinic.receptionist.make(f"/billings/{bill}/refunds", amount="1.00", reason="Paid twice")
    refund = asked["refunds"][0]["id"]
    days = {"start": "2030-01-01", "end": "2030-01-02"}
    time_off = clinic.admin.make(f"/doctors/{doctor_id}/time-off", **days)["id"]
    feed = clinic.doctor.make(f"/doctors/{doctor_id}/calendar-feeds")["id"]
    requests: list[tuple[str, str, dict[str, str] | None]] = [
        ("PATCH", f"/billings/{bill}/refunds/{refund}", {"status": "approved"}),
        ("DELETE", f"/doctors/{doctor_id}/time-off/{time_off}", None),
        ("DELETE", f"/doctors/{doctor_id}/calendar-feeds/{feed}", None),
    ]

    for method, path, body in requests:
        refused = clinic.admin.send(method, path, body, headers={"If-Match": '"1"'})
        assert (refused.status_code, refused.get_json()["error"]) == (412, "stale_version"), path
        assert clinic.admin.send(method, path, body, headers={"If-Match": "*"}).status_code == 200, path


def test_a_repeated_request_gets_the_first_response(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    first = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    repeated = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    assert repeated.status_code == 201
    assert repeated.get_json() == first.get_json()
    assert repeated.headers["Idempotency-Replayed"] == "true"
    assert repeated.headers["Location"] == first.headers["Location"]
    assert clinic.admin.get("/patients").headers["X-Total-Count"] == "1"


def test_a_repeat_is_audited_as_a_read_of_the_record(clinic: Clinic) -> None:
    patient, item = clinic.patient()["id"], clinic.item()["id"]
    visit = clinic.visit(patient_id=patient)["id"]
    assert clinic.doctor.post(f"/visits/{visit}/sign").status_code == 200
    bill = clinic.bill(patient_id=patient)["id"]
    requests = {
        "/patients": ({"name": "Once Only"}, "patient", None),
        "/treatments": (
            {"visit_id": clinic.visit(patient_id=patient)["id"], "name": "Dressing", "cost": "1.00"},
            "treatment",
            None,
        ),
        f"/billings/{bill}/payments": ({"amount": "10.00", "method": "cash"}, "billing", bill),
        f"/visits/{visit}/addenda": ({"text": "Left knee."}, "visit", visit),
        f"/inventory/{item}/movements": ({"type": "restock", "quantity": 1}, "inventory_item", item),
        "/doctors": ({"name": "A B", "specialty": "surgery", "license_number": "N-1"}, "doctor", None),
    }

    for path, (body, entity, record_id) in requests.items():
        headers = {"Idempotency-Key": "client-1" + path}
        first = clinic.admin.post(path, body, headers=headers)
        repeated = clinic.admin.post(path, body, headers=headers)
        entry, before = clinic.admin.get("/audit-logs?sort_order=desc&sort_by=id&per_page=2").get_json()

        assert first.status_code == 201, first.get_json()
        assert repeated.headers["Idempotency-Replayed"] == "true"
        assert (entry["action"], entry["outcome"], entry["entity"]) == ("read", "success", entity)
        assert entry["entity_id"] == (record_id or first.get_json()["id"])
        assert entry["request_id"] == repeated.headers["X-Request-ID"]
        assert before["request_id"] == first.headers["X-Request-ID"]
    accesses = clinic.admin.get(f"/patients/{patient}/access-log?per_page=100").get_json()
    assert {row["entity"] for row in accesses if row["action"] == "read"} == {"billing", "treatment", "visit"}


def test_a_key_from_before_the_upgrade_is_repeated(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)
    with clinic.inside() as session:
        session.query(IdempotencyKey).one().record = None

    repeated = clinic.receptionist.post("/patients", {"name": "Once Only"}, headers=headers)

    assert repeated.headers["Idempotency-Replayed"] == "true"


def test_a_secret_is_neither_stored_nor_repeated(clinic: Clinic) -> None:
    path, headers = f"/users/{clinic.technician.user_id}/password-reset", {"Idempotency-Key": "client-1"}
    first = clinic.admin.post(path, headers=headers)

    repeated = clinic.admin.post(path, headers=headers)
    new_key = clinic.admin.post(path, headers={"Idempotency-Key": "client-2"})

    assert (first.status_code, new_key.status_code) == (200, 200)
    assert (repeated.status_code, repeated.get_json()["error"]) == (409, "already_done")
    assert repeated.get_json()["id"] == first.get_json()["id"] != new_key.get_json()["id"]
    assert "token" not in repeated.get_json()
    with clinic.inside() as session:
        keys = session.query(IdempotencyKey).all()
        stored = str([(idempotency.stored_response(key), key.record) for key in keys])
    assert str(first.get_json()["id"]) in stored
    assert first.get_json()["token"] not in stored


def test_a_stored_response_is_encrypted(clinic: Clinic) -> None:
    send_once(clinic)

    with clinic.inside() as session:
        row = session.query(IdempotencyKey).one()
        body = json.loads((idempotency.stored_response(row) or ({}, ""))[1])
        columns = str([getattr(row, column.key) for column in IdempotencyKey.__table__.columns])
    assert body["name"] == "Once Only"
    assert "Once" not in columns


def test_the_hash_of_a_request_is_keyed(clinic: Clinic) -> None:
    """The body may contain a password, and SHA-256 is fast."""
    body = {"name": "Una", "email": "una@clinic.example", "password": PASSWORD, "role": "technician"}
    sent = {"headers": {"Idempotency-Key": "client-1"}}
    first = clinic.admin.post("/users", body, **sent)
    repeated = clinic.admin.post("/users", body, **sent)
    other = clinic.admin.post("/users", body | {"name": "Ina"}, **sent)

    assert (first.status_code, repeated.headers["Idempotency-Replayed"]) == (201, "true")
    assert (other.status_code, other.get_json()["error"]) == (422, "idempotency_mismatch")
    plain = b"POST\n/users?\n" + json.dumps(body, sort_keys=True).encode()  # as the test client writes it
    with clinic.inside() as session:
        assert session.query(IdempotencyKey).one().fingerprint != hashlib.sha256(plain).hexdigest()
    assert hashlib.sha256(plain).hexdigest() in idempotency.fingerprints("POST", "/users?", plain[13:])


def test_a_request_that_an_earlier_version_hashed_without_a_key_is_recognised(clinic: Clinic) -> None:
    first = send_once(clinic)
    with clinic.inside() as session:
        row = session.query(IdempotencyKey).one()
        headers, body = idempotency.stored_response(row) or ({}, "")
        hashes = idempotency.fingerprints("POST", "/patients?", b'{"name": "Once Only"}')
        assert row.fingerprint == hashes[0]
        row.fingerprint = hashes[-1]
        idempotency.finish(row, 201, headers, body)

    assert send_once(clinic).get_json() == first.get_json()
    assert send_once(clinic, name="Somebody Else").status_code == 422


def send_once(clinic: Clinic, key: str = "client-1", name: str = "Once Only") -> TestResponse:
    return clinic.receptionist.post("/patients", {"name": name}, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("state", ["from before the encryption", "of another row", "of another request"])
def test_an_unreadable_response_is_refused_and_nothing_is_done_twice(clinic: Clinic, state: str) -> None:
    first = send_once(clinic)
    send_once(clinic, "client-2", "Somebody Else")
    with clinic.inside() as session:
        row, other = session.query(IdempotencyKey).order_by(IdempotencyKey.id).all()
        row.response = {"from before the encryption": None, "of another row": other.response}.get(
            state, row.response
        )
        row.status = 200 if state == "of another request" else row.status

    repeated = send_once(clinic)

    assert (repeated.status_code, repeated.get_json()["error"]) == (409, "already_done")
    assert repeated.get_json()["id"] == first.get_json()["id"]
    assert clinic.admin.get("/patients").headers["X-Total-Count"] == "2"


def test_a_response_is_repeated_while_its_key_is_kept(
    clinic: Clinic, make_clinic: Callable[..., Clinic]
) -> None:
    new, old = "new-data-key-" * 4, clinic.settings.data_key
    first = send_once(clinic)

    statuses = []
    for options in ({"data_keys_previous": [old]}, {}):
        caller = Caller(make_clinic(data_key=new, **options), clinic.receptionist.token)
        headers = {"Idempotency-Key": "client-1"}
        repeated = caller.post("/patients", {"name": "Once Only"}, headers=headers)
        statuses.append((repeated.status_code, repeated.get_json()["id"]))

    assert statuses == [(201, first.get_json()["id"]), (409, first.get_json()["id"])]


def test_a_repeat_shows_nothing_that_the_caller_may_no_longer_read(clinic: Clinic) -> None:
    """An admin reads the money of every visit, a doctor that of own visits only."""
    headers = {"Idempotency-Key": "client-1"}
    body = {
        "patient_id": clinic.patient()["id"],
        "doctor_id": clinic.doctor.doctor_id,
        "amount_paid": "20.00",
    }
    caller = clinic.sign_in("admin")
    first = caller.post("/visits", body, headers=headers)
    demoted = clinic.admin.patch(f"/users/{caller.user_id}", {"role": "doctor"})

    repeated = caller.post("/visits", body, headers=headers)

    assert (first.status_code, first.get_json()["amount_paid"]) == (201, "20.00")
    assert demoted.status_code == 200
    assert (repeated.status_code, repeated.get_json()["error"]) == (409, "already_done")
    assert repeated.get_json()["id"] == first.get_json()["id"]
    assert "amount_paid" not in repeated.get_json()
    entry = clinic.admin.get("/audit-logs?outcome=refused").get_json()[0]
    assert (entry["outcome"], entry["detail"]) == ("refused", "already_done")
    assert (entry["entity"], entry["entity_id"]) == ("visit", first.get_json()["id"])
    assert "amount_paid" not in caller.get(f"/visits/{first.get_json()['id']}").get_json()


def test_a_repeat_shows_nothing_of_a_doctor_who_belongs_to_another_user_now(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}
    body = {"patient_id": clinic.patient()["id"], "amount_paid": "20.00"}
    caller, heir = (
        clinic.sign_in("doctor"),
        clinic.admin.make(
            "/users", name="Heir", email="heir@clinic.example", password=PASSWORD, role="doctor"
        ),
    )
    first = caller.post("/visits", body, headers=headers)
    handed_over = clinic.admin.patch(f"/doctors/{caller.doctor_id}", {"user_id": heir["id"]})

    repeated = caller.post("/visits", body, headers=headers)

    assert (first.status_code, handed_over.status_code) == (201, 200)
    assert (repeated.status_code, repeated.get_json()["error"]) == (409, "already_done")


def test_a_key_has_no_effect_on_requests_that_sign_in(clinic: Clinic) -> None:
    headers = {"Idempotency-Key": "client-1"}

    answers = [clinic.doctor.post("/auth/logout", headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert not any("Idempotency-Replayed" in answer.headers for answer in answers)


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


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_the_document_names_every_etag(clinic: Clinic) -> None:
    rows, paths = furnish(clinic), clinic.nobody.get("/openapi.json").get_json()["paths"]
    wrong, found = [], 0

    for endpoint in registered_endpoints(clinic.app):
        if endpoint.method != "GET" or (endpoint.public and endpoint.path_texts):
            continue
        query = "?format=svg" if "image/svg+xml" in endpoint.spec.media_types else ""
        response = clinic.admin.get(path_of(endpoint, rows) + query)
        success = paths[endpoint.path]["get"]["responses"]
        has_etag, documented = "ETag" in response.headers, "ETag" in success["200"]["headers"]
        found += has_etag
        if has_etag > documented or endpoint.spec.etag > has_etag:  # a row may have no version
            wrong.append(endpoint.path)
        if has_etag and "304" in success:
            tag = {"If-None-Match": response.headers["ETag"], "Authorization": f"Bearer {clinic.admin.token}"}
            assert clinic.admin.get(path_of(endpoint, rows) + query, headers=tag).status_code == 304

    assert wrong == []
    assert found > 40
