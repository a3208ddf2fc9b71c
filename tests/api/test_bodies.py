"""Request bodies: strict JSON, validation, merge patches, and text that is stored unchanged."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from api import request_body
from api.body_format import JSON
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
        (b'{"name": ' + b"[" * 32 + b"]" * 32 + b"}", 400, "too_deep"),
        (b'{"name": ' + b"[" * 31 + b"]" * 31 + b"}", 422, "validation_failed"),
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
def test_a_malformed_body_gets_the_code_of_its_fault(
    clinic: Clinic, data: bytes, status: int, code: str
) -> None:
    response = post_raw(clinic, data)

    assert (response.status_code, response.get_json()["error"]) == (status, code)


def test_minus_zero_is_zero(clinic: Clinic) -> None:
    item = clinic.item(unit_cost="-0.0")
    price = clinic.admin.make("/price-list", code="C-1", name="Free", unit_price="-0")
    bill = clinic.bill("-0.00", discount="-0")

    amounts = [item["unit_cost"], item["stock_value"], price["unit_price"], bill["items"][0]["unit_price"]]
    assert {*amounts, bill["amount"], bill["discount"]} == {"0.00"}


def test_the_body_of_an_action_without_members_is_read(clinic: Clinic) -> None:
    path = f"/visits/{clinic.visit()['id']}/sign"
    item = f"/inventory/{clinic.item()['id']}"

    unread = clinic.admin.send("POST", path, data=b"{", content_type="application/json")
    large = clinic.admin.send("DELETE", item, data=b" " * 300_000, content_type="application/json")
    text = clinic.admin.send("DELETE", item, data=b"{}", content_type="text/plain")
    unknown = clinic.admin.delete(item, {"reason": "broken"})
    receptionist = clinic.receptionist.post(path, {"reason": "broken"})

    assert [answer.status_code for answer in (unread, large, text, unknown, receptionist)] == [
        *(400, 413, 415, 422, 403)
    ]
    assert unknown.get_json()["errors"] == {"reason": "there is no such member; this request has no members"}
    null = clinic.admin.send("POST", path, data=b"null", content_type="application/json")
    assert (null.status_code, clinic.admin.delete(item, {}).status_code) == (200, 200)


def test_a_sign_out_succeeds_with_any_body_and_query(clinic: Clinic) -> None:
    caller = clinic.sign_in("doctor")

    by_query = caller.post("/auth/logout?next=%2Flogin&next=x", {"reason": "lunch"})

    assert by_query.status_code == 200
    assert caller.get("/auth/me").status_code == 401
    assert clinic.nobody.send("POST", "/auth/logout", data=b"{").status_code == 200


def test_a_chunked_body_has_the_same_size_limit(clinic: Clinic) -> None:
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


def test_a_float_without_fraction_is_a_whole_number(clinic: Clinic) -> None:
    whole_number = clinic.admin.send(
        "POST", "/inventory", data=b'{"name": "Gloves", "quantity": 30.0}', content_type="application/json"
    )
    fraction = clinic.admin.post("/inventory", {"name": "Gloves", "quantity": 30.5})

    assert whole_number.get_json()["quantity"] == 30
    assert fraction.get_json()["errors"].keys() == {"quantity"}


def test_a_member_of_the_wrong_type_is_refused_although_it_equals_the_stored_value_in_python(
    clinic: Clinic,
) -> None:
    path = f"/patients/{clinic.patient()['id']}"

    assert clinic.admin.get(path).get_json()["needs_review"] is False
    assert clinic.admin.patch(path, {"needs_review": 0}).status_code == 422
    assert clinic.admin.patch(path, {"needs_review": False}).status_code == 200


def test_an_invalid_body_is_refused_before_the_precondition_is_checked(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}"
    stale_version = {"If-Match": '"99"'}

    assert clinic.admin.patch(path, {"shoe_size": 42}, headers=stale_version).status_code == 422
    assert clinic.admin.patch(path, {"address": "x"}, headers=stale_version).status_code == 412


def test_another_media_type_is_refused_unless_the_body_is_empty(clinic: Clinic) -> None:
    refused = post_raw(clinic, b"name=x", **{"Content-Type": "application/x-www-form-urlencoded"})
    empty = post_raw(clinic, b"", **{"Content-Type": "text/plain"})

    assert refused.status_code == 415
    assert empty.status_code == 422


def test_an_unknown_member_is_refused_by_name(clinic: Clinic) -> None:
    response = clinic.admin.post("/patients", {"name": "Ada", "shoe_size": 42})

    assert response.status_code == 422
    problem = response.get_json()["errors"]["shoe_size"]
    assert problem.startswith("there is no such member; there are: address, allow_duplicate, birth_date_")


def test_all_wrong_members_are_reported_at_once(clinic: Clinic) -> None:
    response = clinic.admin.post("/patients", {"gender": "x", "date_of_birth": "1990-02-30", "email": "no"})

    assert set(response.get_json()["errors"]) == {"name", "gender", "date_of_birth", "email"}


def test_an_error_does_not_contain_the_refused_value(clinic: Clinic) -> None:
    response = clinic.admin.post("/patients", {"name": "Ada", "email": "secret-diagnosis@@x"})

    assert response.status_code == 422
    assert "secret-diagnosis" not in response.get_data(as_text=True)


def test_a_whole_row_that_is_sent_back_changes_nothing(clinic: Clinic) -> None:
    row = clinic.patient(name="Ada Quill", date_of_birth="1980-05-04", phone="555-767-7476")

    response = clinic.admin.put(f"/patients/{row['id']}", row | {"id": 99, "account_balance": "5.00"})

    assert response.status_code == 200
    assert response.headers["ETag"] == '"1"'
    assert response.get_json() == row


def test_an_absent_member_is_unchanged_and_null_clears(clinic: Clinic) -> None:
    row = clinic.patient(name="Ada Quill", address="Harbour Lane 1", blood_type="A+")

    changed = clinic.admin.patch(f"/patients/{row['id']}", {"address": None}).get_json()

    assert (changed["name"], changed["address"], changed["blood_type"]) == ("Ada Quill", None, "A+")


def test_a_required_member_cannot_be_cleared(clinic: Clinic) -> None:
    row = clinic.patient()

    response = clinic.admin.patch(f"/patients/{row['id']}", {"name": None})

    assert response.status_code == 422
    assert "name" in response.get_json()["errors"]


def test_a_body_is_decoded_once_per_request(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = clinic.doctor_row()
    decoded: list[bytes] = []
    decode = request_body._decode

    def record(body: bytes, **options: bool) -> dict[str, Any]:
        decoded.append(body)
        return decode(body, **options)

    monkeypatch.setattr(request_body, "_decode", record)

    response = clinic.admin.patch(f"/doctors/{doctor['id']}", {"is_active": False, "on_conflict": "cancel"})

    assert (response.status_code, response.get_json()["is_active"]) == (200, False)
    assert len(decoded) == 1


def test_clinical_text_is_stored_unchanged(clinic: Clinic) -> None:
    row = clinic.patient()
    for start in range(0, len(CLINICAL_SENTENCES), 40):
        text = "\n".join(CLINICAL_SENTENCES[start : start + 40])

        response = clinic.admin.patch(f"/patients/{row['id']}", {"review_notes": text})

        assert response.status_code == 200
        assert response.get_json()["review_notes"] == text
        assert clinic.admin.get(f"/patients/{row['id']}").get_json()["review_notes"] == text


def test_active_markup_gets_a_space_and_loses_no_text(clinic: Clinic) -> None:
    for typed, stored in (
        ("<video visit> with mother", "< video visit> with mother"),
        ("BP <120/80 <script>alert(1)</script>", "BP <120/80 < script>alert(1)< /script>"),
    ):
        row = clinic.patient(name=f"Ada {typed}", review_notes=typed)

        assert (row["name"], row["review_notes"]) == (f"Ada {stored}", stored)


def test_a_text_that_the_spaces_make_too_long_is_422(clinic: Clinic) -> None:
    longest = "<base> " * 25  # 175 characters, 200 with the spaces

    accepted = clinic.admin.post("/patients", {"name": longest})
    refused = clinic.admin.post("/patients", {"name": longest + "<b"})

    assert (accepted.status_code, len(accepted.get_json()["name"])) == (201, 200)
    assert refused.status_code == 422
    assert list(refused.get_json()["errors"]) == ["name"]


def nested(value: Any, *, depth: int) -> dict[str, Any]:
    """Return the value below `depth` members with names of 100 characters."""
    for _ in range(depth):
        value = {"n" * 100: value}
    body: dict[str, Any] = value
    return body


def measure_peak(request: Callable[[], Any]) -> tuple[Any, int]:
    """Return the response to a request and the peak of allocated bytes while it ran."""
    tracemalloc.start()
    try:
        response = request()
        return response, tracemalloc.get_traced_memory()[1]
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
def test_the_memory_for_a_body_is_bounded(
    clinic: Clinic, body: dict[str, Any], status: int, code: str
) -> None:
    data = json.dumps(body, separators=(",", ":")).encode()
    clinic.nobody.post("/auth/login", {})  # fill imports and caches first

    response, peak = measure_peak(
        lambda: clinic.nobody.send("POST", "/auth/login", data=data, content_type="application/json")
    )

    problem = response.get_json()
    assert (response.status_code, problem["error"]) == (status, code)
    assert peak < 100 * JSON.limit
    assert len(response.data) < 100_000


def test_a_response_has_at_most_50_errors_and_the_number_of_omitted_ones(clinic: Clinic) -> None:
    body = {"email": "a@example.org", "password": "x"} | {f"unknown{number}": 0 for number in range(60)}

    problem = clinic.nobody.post("/auth/login", body).get_json()

    assert len(problem["errors"]) == 50
    assert problem["errors_omitted"] == 10


def test_an_error_contains_at_most_100_characters_of_a_parameter_name(clinic: Clinic) -> None:
    response = clinic.admin.get("/patients?" + "p" * 5_000 + "=1")

    assert response.status_code == 422
    assert "p" * 101 not in response.get_data(as_text=True)


@pytest.mark.parametrize(
    ("body", "place", "found"),
    [
        (b'{"name": tom}', "Line 1, column 10", "found tom, expected a value"),
        (b'{"a": 1,\n "b" 2}', "Line 2, column 6", "found 2, expected a colon"),
        (b'{"a": 1 "b": 2}', "Line 1, column 9", 'found ", expected a comma'),
        (b'{"a": "x', "Line 1, column 7", "a text without a closing quote"),
        (b'{"a": "x\ty"}', "Line 1, column 9", "expected an escape"),
        (b'{"a":', "Line 1, column 6", "found the end of the body, expected a value"),
        (b'{"a": 1} x', "Line 1, column 10", "found x, expected the end of the body"),
        (b"{'a': 1}", "Line 1, column 2", "expected a member name in double quotes"),
        (b'{"a": "NaN", "b": NaN}', "Line 1, column 19", "found NaN, expected null or a number"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "Line 1, column 7", "a number with too many digits"),
        (b'{\n"a": "\xff"}', "Line 2, column 7", "found the byte 0xff"),
        (b"[1]", "", "one JSON object, not an array"),
        (b'{"tooth": 1, "tooth": 2}', "", "The member tooth appears twice"),
    ],
)
def test_a_malformed_body_is_described_with_its_place(
    clinic: Clinic, body: bytes, place: str, found: str
) -> None:
    response = post_raw(clinic, body)

    assert response.status_code == 400
    assert place in response.get_json()["message"]
    assert found in response.get_json()["message"]


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_all_missing_members_are_named_at_once(clinic: Clinic) -> None:
    missing = {
        "/appointments": ({}, {"patient_id", "doctor_id", "date"}),
        "/doctors": ({}, {"name", "specialty", "license_number"}),
        "/doctors?": ({"user_id": 1}, {"specialty", "license_number"}),
        "/treatments": ({}, {"visit_id", "name", "cost"}),
        "/treatments?": ({"price_list_item_id": 1}, {"visit_id"}),
        "/treatments??": ({"name": "Dressing", "cost": "x"}, {"visit_id", "cost"}),
        "/prescriptions": ({}, {"visit_id", "medications"}),
        "/visits": (
            {"treatments": [{"name": "Dressing"}], "prescriptions": [{"details": "Rest"}, {"details": " "}]},
            {"patient_id", "treatments.0.cost", "prescriptions.1.medications"},
        ),
    }

    letters = f"/visits/{clinic.visit()['id']}/letters"
    missing[letters] = ({"type": "referral"}, {"text", "recipient"})
    missing[f"{letters}?"] = ({"type": "sick_note"}, {"from_date", "to_date"})

    for path, (body, names) in missing.items():
        caller = clinic.doctor if path.startswith(letters) else clinic.admin
        response = caller.post(path.rstrip("?"), body)
        assert (response.status_code, response.get_json()["errors"].keys()) == (422, names), path
