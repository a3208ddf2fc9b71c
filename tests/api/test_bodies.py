"""What a body may be: one strict JSON object, nothing that cannot be stored, nothing eaten that was typed."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from api.request_body import MAX_BODY
from tests.security.test_sanitize import CLINICAL_SENTENCES
from tests.support.clinic import Clinic


def post_raw(clinic: Clinic, data: bytes, **headers: str) -> Any:
    options = {"headers": {"Content-Type": "application/json"} | headers}
    return clinic.admin.send("POST", "/patients", data=data, **options)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"[]", 400, "malformed_json"),
        (b"null", 400, "malformed_json"),
        (b"\n", 400, "malformed_json"),
        (b'{"name": 1e400}', 422, "validation_failed"),
        (b'{"name": "a", "name": "b"}', 400, "duplicate_member"),
        (b'{"name": NaN}', 400, "malformed_json"),
        (b'{"name": Infinity}', 400, "malformed_json"),
        (b'{"name": "\xff"}', 400, "malformed_json"),
        (b'{"name": ' + b"9" * 5000 + b"}", 400, "malformed_json"),
        (b'{"name": ' + b"[" * 40 + b"]" * 40 + b"}", 400, "too_deep"),
        (b'{"name": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", 400, "too_deep"),
        (b'{"name": "' + b"a" * 300_000 + b'"}', 413, "payload_too_large"),
        (b'{"name": "nul \\u0000"}', 422, "validation_failed"),
        (b'{"name": "lone \\ud800"}', 422, "validation_failed"),
        (b'{"na\\u0000me": "x"}', 422, "validation_failed"),
        (b'{"name": "   "}', 422, "validation_failed"),
        (b'{"name": 5}', 422, "validation_failed"),
        (b"", 422, "validation_failed"),
    ],
)
def test_an_unreadable_body_is_refused_as_what_it_is(
    clinic: Clinic, data: bytes, status: int, code: str
) -> None:
    answer = post_raw(clinic, data)

    assert (answer.status_code, answer.get_json()["error"]) == (status, code)


def test_a_body_in_chunks_is_no_larger_than_another(clinic: Clinic) -> None:
    def chunked(size: int) -> Any:
        body = io.BytesIO(b'{"name": "Ada Quill", "address": "' + b"a" * size + b'"}')
        return clinic.admin.post(
            "/patients",
            input_stream=body,
            content_type="application/json",
            environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
        )

    large, small = chunked(300_000), chunked(10)

    assert (large.status_code, large.get_json()["error"]) == (413, "payload_too_large")
    assert small.status_code == 201


def test_json_knows_one_kind_of_number(clinic: Clinic) -> None:
    whole = clinic.admin.send(
        "POST", "/inventory", data=b'{"name": "Gloves", "quantity": 30.0}', content_type="application/json"
    )
    broken = clinic.admin.post("/inventory", {"name": "Gloves", "quantity": 30.5})

    assert whole.get_json()["quantity"] == 30
    assert broken.get_json()["errors"].keys() == {"quantity"}


def test_a_member_of_the_wrong_type_is_not_taken_for_an_equal_one(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}"

    assert clinic.admin.get(path).get_json()["needs_review"] is False
    assert clinic.admin.patch(path, {"needs_review": 0}).status_code == 422
    assert clinic.admin.patch(path, {"needs_review": False}).status_code == 200


def test_a_precondition_decides_only_what_would_otherwise_work(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}"
    stale = {"If-Match": '"99"'}

    assert clinic.admin.patch(path, {"shoe_size": 42}, headers=stale).status_code == 422
    assert clinic.admin.patch(path, {"address": "x"}, headers=stale).status_code == 412


def test_another_media_type_is_415_but_an_empty_body_never_is(clinic: Clinic) -> None:
    refused = post_raw(clinic, b"name=x", **{"Content-Type": "application/x-www-form-urlencoded"})
    empty = post_raw(clinic, b"", **{"Content-Type": "text/plain"})

    assert refused.status_code == 415
    assert empty.status_code == 422


def test_a_member_that_the_resource_never_has_is_named(clinic: Clinic) -> None:
    answer = clinic.admin.post("/patients", {"name": "Ada", "shoe_size": 42})

    assert answer.status_code == 422
    assert answer.get_json()["errors"] == {"shoe_size": "there is no such member"}


def test_all_wrong_members_are_named_at_once(clinic: Clinic) -> None:
    answer = clinic.admin.post("/patients", {"gender": "x", "date_of_birth": "1990-02-30", "email": "no"})

    assert set(answer.get_json()["errors"]) == {"name", "gender", "date_of_birth", "email"}


def test_a_refusal_does_not_repeat_what_was_typed(clinic: Clinic) -> None:
    answer = clinic.admin.post("/patients", {"name": "Ada", "email": "secret-diagnosis@@x"})

    assert answer.status_code == 422
    assert "secret-diagnosis" not in answer.get_data(as_text=True)


def test_a_whole_row_sent_back_changes_nothing(clinic: Clinic) -> None:
    row = clinic.patient(name="Ada Quill", date_of_birth="1980-05-04", phone="555-767-7476")

    answer = clinic.admin.put(f"/patients/{row['id']}", row | {"id": 99, "account_balance": "5.00"})

    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    assert answer.get_json() == row


def test_absent_is_unchanged_and_null_clears(clinic: Clinic) -> None:
    row = clinic.patient(name="Ada Quill", address="Harbour Lane 1", blood_type="A+")

    changed = clinic.admin.patch(f"/patients/{row['id']}", {"address": None}).get_json()

    assert (changed["name"], changed["address"], changed["blood_type"]) == ("Ada Quill", None, "A+")


def test_what_is_required_cannot_be_cleared(clinic: Clinic) -> None:
    row = clinic.patient()

    answer = clinic.admin.patch(f"/patients/{row['id']}", {"name": None})

    assert answer.status_code == 422
    assert "name" in answer.get_json()["errors"]


def test_clinical_text_returns_byte_for_byte(clinic: Clinic) -> None:
    row = clinic.patient()
    for start in range(0, len(CLINICAL_SENTENCES), 40):
        text = "\n".join(CLINICAL_SENTENCES[start : start + 40])

        answer = clinic.admin.patch(f"/patients/{row['id']}", {"review_notes": text})

        assert answer.status_code == 200
        assert answer.get_json()["review_notes"] == text
        assert clinic.admin.get(f"/patients/{row['id']}").get_json()["review_notes"] == text


@pytest.mark.parametrize("active", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>"])
def test_active_markup_never_returns(clinic: Clinic, active: str) -> None:
    row = clinic.patient(name=f"Ada {active}", review_notes=f"BP <120/80 {active}")

    assert "<script" not in row["name"] + row["review_notes"]
    assert "onerror" not in row["name"] + row["review_notes"]
    assert "BP <120/80" in row["review_notes"]


def nested(value: Any, *, depth: int) -> dict[str, Any]:
    """Return the value below `depth` members with names of 100 characters."""
    for _ in range(depth):
        value = {"n" * 100: value}
    body: dict[str, Any] = value
    return body


def peak_of(request: Callable[[], Any]) -> tuple[Any, int]:
    """Return the response of a request and the bytes that Python allocated at most while it ran."""
    tracemalloc.start()
    try:
        answer = request()
        return answer, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"n" * 60_000: [0] * 20_000}, 400, "member_name_too_long"),
        (nested([0] * 60_000, depth=30), 422, "validation_failed"),
        (nested(["\0"] * 20_000, depth=30), 422, "validation_failed"),
        ({f"{number}": 0 for number in range(15_000)}, 422, "validation_failed"),
    ],
    ids=["long name", "deep numbers", "deep NULs", "unknown members"],
)
def test_a_body_never_takes_more_memory_than_some_multiples_of_its_size(
    clinic: Clinic, body: dict[str, Any], status: int, code: str
) -> None:
    data = json.dumps(body, separators=(",", ":")).encode()
    clinic.nobody.post("/auth/login", {})  # imports and caches are filled first

    answer, peak = peak_of(
        lambda: clinic.nobody.send("POST", "/auth/login", data=data, content_type="application/json")
    )

    problem = answer.get_json()
    assert (answer.status_code, problem["error"]) == (status, code)
    assert peak < 100 * MAX_BODY
    assert len(answer.data) < 100_000


def test_an_answer_has_at_most_50_errors_and_counts_the_others(clinic: Clinic) -> None:
    body = {"email": "a@example.org", "password": "x"} | {f"unknown{number}": 0 for number in range(60)}

    problem = clinic.nobody.post("/auth/login", body).get_json()

    assert len(problem["errors"]) == 50
    assert problem["errors_omitted"] == 10


def test_an_error_repeats_at_most_100_characters_of_a_parameter_name(clinic: Clinic) -> None:
    answer = clinic.admin.get("/patients?" + "p" * 5_000 + "=1")

    assert answer.status_code == 422
    assert "p" * 101 not in answer.get_data(as_text=True)
