"""Headers and errors of every response: problem details, request ids, security headers, CORS, rate limits."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from api.alternatives import ALTERNATIVES
from tests.support.clinic import Clinic

ORIGIN = "https://front.example"


def assert_problem(response: Any, status: int, code: str) -> None:
    """Check that a response has the common members of problem details."""
    body = response.get_json(force=True)
    assert response.status_code == status, body
    assert response.content_type == "application/problem+json"
    assert body["error"] == code
    assert body["status"] == status
    assert body["message"] == body["detail"]
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert body["title"]
    assert body["type"]


def test_every_error_has_the_members_of_problem_details(clinic: Clinic) -> None:
    row = clinic.patient()
    path = f"/patients/{row['id']}"

    assert_problem(clinic.nobody.get("/patients"), 401, "unauthorized")
    assert_problem(clinic.technician.post("/patients", {"name": "x"}), 403, "forbidden")
    assert_problem(clinic.admin.get("/patients/987654"), 404, "not_found")
    assert_problem(clinic.admin.get("/nowhere"), 404, "not_found")
    assert_problem(clinic.admin.get("/patients/99999999999999999999999"), 404, "not_found")
    assert_problem(clinic.admin.delete("/patients"), 405, "method_not_allowed")
    assert_problem(clinic.admin.patch(path, {"x": 1}), 422, "validation_failed")
    assert_problem(
        clinic.admin.patch(path, {"address": "x"}, headers={"If-Match": '"9"'}), 412, "stale_version"
    )


def test_a_wrong_method_gets_the_allowed_methods(clinic: Clinic) -> None:
    response = clinic.admin.delete("/patients")
    allowed = response.headers["Allow"]

    assert {"GET", "POST"} <= set(allowed.split(", "))
    assert allowed in response.get_json()["message"]


def test_a_wrong_method_on_an_item_gets_the_endpoint_to_use_instead(clinic: Clinic) -> None:
    requests = {
        "DELETE /billings/1": "POST /billings/1/void",
        "DELETE /billings/1/": "POST /billings/1/void",
        "DELETE /billings/1/payments": "POST /billings/1/refunds",
        "DELETE /billings/1/claims/2": "PATCH /billings/1/claims/2",
        "GET /billings/1/refunds/2": "GET /billings/1",
        "PUT /doctors/1/time-off/2": "DELETE /doctors/1/time-off/2 and POST /doctors/1/time-off",
        "PATCH /doctors/1/schedule": "PUT /doctors/1/schedule",
        "DELETE /patients/1/medical-history": "PATCH /patients/1/medical-history",
        "GET /visits/1/addenda": "GET /visits/1",
        "POST /patients/1": "PATCH /patients/1",
        "DELETE /letters/1": "POST /letters/1/void",
        "DELETE /messages/1": "POST /messages/1/cancel",
        "GET /patients/1/account/refunds/2": "GET /patients/1/account",
    }

    for line, instead in requests.items():
        response = clinic.admin.send(*line.split())
        assert_problem(response, 405, "method_not_allowed")
        assert response.get_json()["message"].startswith(f"Use {instead}. "), line
    assert not clinic.admin.delete("/patients").get_json()["message"].startswith("Use ")


def test_every_endpoint_that_a_405_names_exists(clinic: Clinic) -> None:
    names = {
        (method, rule.rule.replace("<int:", "{").replace(">", "}"))
        for rule in clinic.app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    named = [tuple(part.split()) for instead in ALTERNATIVES.values() for part in instead.split(" and ")]
    missing = [tuple(line.split()) for line in ALTERNATIVES]
    paths = {path for _method, path in names}

    assert [name for name in named if name not in names] == []
    assert [(method, path) for method, path in missing if (method, path) in names or path not in paths] == []


def test_an_unexpected_exception_is_a_500_without_details(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("services.listing.paging.page", fail)

    response = clinic.admin.get("/patients")

    assert_problem(response, 500, "internal_error")
    assert "secret" not in response.get_data(as_text=True)


def test_a_valid_request_id_is_returned_and_an_invalid_one_replaced(clinic: Clinic) -> None:
    valid = clinic.nobody.get("/health/live", headers={"X-Request-ID": "client-12345678"})
    invalid = clinic.nobody.get("/health/live", headers={"X-Request-ID": "x <script>"})

    short = clinic.nobody.get("/health/live", headers={"X-Request-ID": "r-1"})

    assert valid.headers["X-Request-ID"] == "client-12345678"
    assert "<" not in invalid.headers["X-Request-ID"]
    assert short.headers["X-Request-ID"] == "r-1"


def test_responses_are_not_cached_and_have_security_headers(clinic: Clinic) -> None:
    headers = clinic.admin.get("/patients").headers

    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-site"
    assert "no-store" not in clinic.nobody.get("/health/live").headers.get("Cache-Control", "")


@pytest.mark.parametrize(
    ("path", "accept"), [("/", "application/json"), ("/", "text/html"), ("/openapi.json", "*/*")]
)
def test_public_documents_are_compressed_on_request_and_cached(
    clinic: Clinic, path: str, accept: str
) -> None:
    def get(**headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return clinic.nobody.get(path, headers={"Accept": accept} | named)

    plain, compressed, refused = get(), get(Accept_Encoding="br, gzip;q=0.5"), get(Accept_Encoding="gzip;q=0")
    known = get(If_None_Match=plain.headers["ETag"])
    known_compressed = get(Accept_Encoding="gzip", If_None_Match=compressed.headers["ETag"])

    assert gzip.decompress(compressed.get_data()) == plain.get_data() == refused.get_data()
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert len(compressed.get_data()) < len(plain.get_data()) / 4
    assert "Content-Encoding" not in plain.headers
    assert compressed.headers["ETag"] != plain.headers["ETag"]
    assert "accept-encoding" in plain.headers["Vary"].lower()
    assert "no-store" not in plain.headers["Cache-Control"]
    for answer in (known, known_compressed):
        assert (answer.status_code, answer.get_data()) == (304, b"")
        assert "no-store" not in answer.headers["Cache-Control"]
        assert answer.headers["ETag"] in (plain.headers["ETag"], compressed.headers["ETag"])
    assert get(If_None_Match='"another"').status_code == 200


def test_the_tag_of_a_record_serves_if_match_only(clinic: Clinic) -> None:
    patient = clinic.patient()
    path = f"/patients/{patient['id']}"
    tag = clinic.admin.get(path).headers["ETag"]

    assert clinic.admin.get(path, headers={"If-None-Match": tag}).get_json() == patient


@pytest.fixture
def with_front_end(make_clinic: Any) -> Clinic:
    clinic: Clinic = make_clinic(allowed_origins=(ORIGIN,))
    return clinic


def test_an_allowed_origin_may_read_responses_and_errors(with_front_end: Clinic) -> None:
    for path in ("/patients", "/patients/987654", "/nowhere"):
        headers = with_front_end.admin.get(path, headers={"Origin": ORIGIN}).headers

        assert headers["Access-Control-Allow-Origin"] == ORIGIN
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert set(headers["Access-Control-Expose-Headers"].split(", ")) == {
            *(
                "X-Total-Count",
                "X-Total-Count-Capped",
                "Content-Range",
                "Content-Disposition",
                "Link",
                "ETag",
            ),
            *("Location", "Retry-After", "Idempotency-Replayed", "X-Request-ID", "X-Ignored-Members"),
            *("RateLimit", "RateLimit-Policy"),
        }


def test_every_kind_of_error_has_cors_headers(make_clinic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic: Clinic = make_clinic(
        allowed_origins=(ORIGIN,), rate_limit_enabled=True, rate_limit_default="6 per minute"
    )
    headers = {"Origin": ORIGIN}

    def fail(*_args: object) -> None:
        raise RuntimeError

    answers = [
        clinic.nobody.get("/patients", headers=headers),
        clinic.admin.get("/nowhere", headers=headers),
        clinic.admin.delete("/patients", headers=headers),
        clinic.admin.post("/patients", data="{", headers=headers | {"Content-Type": "application/json"}),
        clinic.admin.post("/patients", {"nothing": 1}, headers=headers),
    ]
    monkeypatch.setattr("services.listing.paging.page", fail)
    answers += [clinic.admin.get("/patients", headers=headers) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401, 404, 405, 400, 422, 500, 500, 429]
    assert {answer.headers.get("Access-Control-Allow-Origin") for answer in answers} == {ORIGIN}


def test_another_origin_gets_no_cors_headers(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(allowed_origins="https://clinic.example.com,http://[::1]:3000")
    foreign = [
        *(
            "https://evil.example",
            "https://clinic.example.com.evil.example",
            "null",
            "https://clinicxexample.com",
        ),
        *(
            "https://clinic.exampleXcom",
            "http://clinic.example.com",
            "https://clinic.example.com:8443",
            "http://::",
        ),
        *("http://1:3000", "http://[::1]:30000", "https://evil.example/https://clinic.example.com"),
    ]

    for origin in foreign:
        headers = clinic.admin.get("/patients", headers={"Origin": origin}).headers
        assert "Access-Control-Allow-Origin" not in headers, origin
    for origin in ("https://clinic.example.com", "http://[::1]:3000"):
        headers = clinic.admin.get("/patients", headers={"Origin": origin}).headers
        assert headers["Access-Control-Allow-Origin"] == origin


def test_a_preflight_allows_the_methods_and_headers_of_clients(with_front_end: Clinic) -> None:
    response = with_front_end.nobody.send(
        "OPTIONS",
        "/patients/1",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization, idempotency-key, traceparent, baggage",
        },
    )

    assert response.status_code == 200
    assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
    allowed = set(response.headers["Access-Control-Allow-Headers"].split(", "))
    assert allowed == {"authorization", "idempotency-key", "traceparent", "baggage"}


@pytest.mark.parametrize("path", ["/nowhere", "/patients/tom", "/patients/1/nothing", "/auth//login"])
def test_a_preflight_of_an_unknown_path_lets_the_browser_show_the_404(
    with_front_end: Clinic, path: str
) -> None:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "x-a",
    }

    preflight = with_front_end.nobody.send("OPTIONS", path, headers=headers)
    foreign = with_front_end.nobody.send(
        "OPTIONS", path, headers=headers | {"Origin": "https://evil.example"}
    )

    assert (preflight.status_code, preflight.get_data()) == (204, b"")
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == "x-a"
    assert "Access-Control-Allow-Origin" not in foreign.headers
    assert with_front_end.nobody.send("OPTIONS", path).status_code in (308, 404)


def test_a_cache_keeps_a_document_for_each_origin(with_front_end: Clinic) -> None:
    """A cached response without CORS headers would make the request of a front end fail."""
    for path in ("/", "/openapi.json", "/health/live"):
        for headers in ({}, {"Origin": ORIGIN}, {"Origin": "https://evil.example"}):
            response = with_front_end.nobody.get(path, headers=headers)
            assert "Origin" in ", ".join(response.headers.getlist("Vary")), (path, headers)


def test_a_wrong_method_at_a_path_with_a_double_slash_is_no_server_error(clinic: Clinic) -> None:
    for method, path in (
        ("GET", "/auth//login"),
        ("DELETE", "/billings//1"),
        ("GET", "/messages/callbacks/%2e%2e%2f/x"),
    ):
        response = clinic.nobody.send(method, path)
        assert (response.status_code, response.get_json()["error"]) == (405, "method_not_allowed")
        assert response.headers["Allow"]


def test_a_redirect_from_a_double_slash_has_no_body(clinic: Clinic) -> None:
    for method, path in (("GET", "/patients//1?q=x"), ("POST", "/auth//login")):
        response = clinic.nobody.send(method, path)
        assert (response.status_code, response.get_data()) == (308, b"")
        assert response.headers["Location"] == "http://localhost" + path.replace("//", "/")
        assert "Content-Type" not in response.headers
        assert response.headers["X-Request-ID"]


def test_a_trailing_slash_is_accepted(clinic: Clinic) -> None:
    patient = clinic.patient()

    assert clinic.admin.get("/patients/").get_json() == [patient]
    assert clinic.admin.get(f"/patients/{patient['id']}/").get_json() == patient
    assert clinic.admin.post("/patients/", {"name": "Ada Byron"}).status_code == 201
    assert "no-store" not in clinic.nobody.get("/health/live/").headers.get("Cache-Control", "")


def test_requests_above_the_rate_limit_are_refused(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="3 per minute")

    statuses = [clinic.admin.get("/patients").status_code for _ in range(4)]
    refused = clinic.admin.get("/patients")

    assert statuses == [200, 200, 200, 429]
    assert_problem(refused, 429, "too_many_requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert clinic.receptionist.get("/patients").status_code == 200
    assert clinic.nobody.get("/health/live").status_code == 200


def test_a_forwarded_address_without_trusted_proxy_is_ignored(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="2 per minute")

    statuses = [
        clinic.nobody.get("/patients", headers={"X-Forwarded-For": f"10.0.0.{number}"}).status_code
        for number in range(3)
    ]

    assert statuses == [401, 401, 429]
