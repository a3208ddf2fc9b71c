"""Around every answer: the error shape, request ids, security headers, CORS, limits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clinic import Clinic

ORIGIN = "https://front.example"


def well_formed(answer: Any, status: int, code: str) -> None:
    """One shape for every refusal."""
    body = answer.get_json(force=True)
    assert answer.status_code == status, body
    assert answer.content_type == "application/problem+json"
    assert body["error"] == code
    assert body["status"] == status
    assert body["message"] == body["detail"]
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["title"]
    assert body["type"]


def test_every_refusal_has_one_shape(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    well_formed(clinic.nobody.get("/patients"), 401, "unauthorized")
    well_formed(clinic.technician.post("/patients", {"name": "x"}), 403, "forbidden")
    well_formed(clinic.admin.get("/patients/987654"), 404, "not_found")
    well_formed(clinic.admin.get("/nowhere"), 404, "not_found")
    well_formed(clinic.admin.get("/patients/99999999999999999999999"), 404, "not_found")
    well_formed(clinic.admin.delete("/patients"), 405, "method_not_allowed")
    well_formed(clinic.admin.patch(path, {"x": 1}), 422, "validation_failed")
    well_formed(clinic.admin.patch(path, {"address": "x"}, headers={"If-Match": '"9"'}), 412, "stale_version")


def test_a_wrong_method_names_the_right_ones(clinic: Clinic) -> None:
    answer = clinic.admin.delete("/patients")
    allowed = answer.headers["Allow"]

    assert {"GET", "POST"} <= set(allowed.split(", "))
    assert allowed in answer.get_json()["message"]


def test_what_we_did_not_foresee_shows_nothing(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("services.listing.paging.page", broken)

    answer = clinic.admin.get("/patients")

    well_formed(answer, 500, "internal_error")
    assert "secret" not in answer.get_data(as_text=True)


def test_a_request_id_is_taken_checked_and_returned(clinic: Clinic) -> None:
    given = clinic.nobody.get("/health/live", headers={"X-Request-ID": "desk-12345678"})
    forged = clinic.nobody.get("/health/live", headers={"X-Request-ID": "x <script>"})

    assert given.headers["X-Request-ID"] == "desk-12345678"
    assert "<" not in forged.headers["X-Request-ID"]


def test_answers_are_not_kept_and_not_guessed_at(clinic: Clinic) -> None:
    headers = clinic.admin.get("/patients").headers

    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" not in clinic.nobody.get("/health/live").headers.get("Cache-Control", "")


@pytest.fixture
def with_front_end(make_clinic: Any) -> Clinic:
    made: Clinic = make_clinic(allowed_origins=(ORIGIN,))
    return made


def test_the_front_end_may_read_answers_and_refusals(with_front_end: Clinic) -> None:
    for path in ("/patients", "/patients/987654", "/nowhere"):
        headers = with_front_end.admin.get(path, headers={"Origin": ORIGIN}).headers

        assert headers["Access-Control-Allow-Origin"] == ORIGIN
        assert headers["Access-Control-Allow-Credentials"] == "true"
        exposed = headers["Access-Control-Expose-Headers"]
        assert all(name in exposed for name in ("X-Total-Count", "ETag", "Retry-After", "Content-Range"))


def test_another_origin_may_not(with_front_end: Clinic) -> None:
    for origin in ("https://evil.example", "https://front.example.evil.example", "null"):
        headers = with_front_end.admin.get("/patients", headers={"Origin": origin}).headers

        assert "Access-Control-Allow-Origin" not in headers


def test_a_preflight_allows_what_clients_send(with_front_end: Clinic) -> None:
    answer = with_front_end.nobody.send(
        "OPTIONS",
        "/patients/1",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization, content-type, if-match, idempotency-key",
        },
    )

    assert answer.status_code == 200
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    assert "idempotency-key" in answer.headers["Access-Control-Allow-Headers"].lower()


def test_more_requests_than_the_limit_wait(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="3 per minute")

    statuses = [clinic.admin.get("/patients").status_code for _ in range(4)]
    refused = clinic.admin.get("/patients")

    assert statuses == [200, 200, 200, 429]
    well_formed(refused, 429, "too_many_requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert clinic.receptionist.get("/patients").status_code == 200
    assert clinic.nobody.get("/health/live").status_code == 200


def test_a_forged_forwarded_address_is_not_believed(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="2 per minute")

    statuses = [
        clinic.nobody.get("/patients", headers={"X-Forwarded-For": f"10.0.0.{number}"}).status_code
        for number in range(3)
    ]

    assert statuses == [401, 401, 429]
