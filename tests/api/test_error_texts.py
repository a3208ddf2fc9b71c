"""Error texts in plain words: no wording of a library, and each says what to do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from api import field_errors
from api.body_members import read_blanks
from api.docs.registry import registered_endpoints
from schemas.base import accepted_members, nested_models
from security.permissions import TABLE, Permission
from tests.support.clinic import Clinic

LIBRARY_WORDS = re.compile(
    r"input should|should (be|have|match)|valid (integer|string|number|boolean|list|dictionary|enum|date)|"
    r"pydantic|extra inputs|field required|value error|unable to (parse|interpret)|@-sign|instance of|"
    r"type=|assertion|traceback",
    re.IGNORECASE,
)
WRONG: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, 1e308, "", " ", "x", "x" * 25_000, "2026-02-30", "1e5"),
    *([], {}, [None], [1], ["x"] * 600, [{}], {"x": 1}, [[["x"]]], {"reassign_to": "x"}),
)


def models_of(clinic: Clinic) -> set[type[BaseModel]]:
    """Return the schemas of all bodies, and the nested ones."""
    models = {each.spec.body for each in registered_endpoints(clinic.app) if each.spec.body is not None}
    found: set[type[BaseModel]] = set()
    while models:
        model = models.pop()
        found.add(model)
        models |= set(nested_models(model).values()) - found
    return found


def problems_of(model: type[BaseModel], members: dict[str, Any]) -> dict[str, str]:
    try:
        model.model_validate_json(json.dumps(read_blanks(model, members)), strict=True)
    except ValidationError as failure:
        return field_errors.describe(failure, model).errors
    return {}


def test_no_wrong_value_gets_the_wording_of_a_library(make_clinic: Any) -> None:
    clinic = make_clinic()
    wrong, texts = [], set()

    for model in models_of(clinic):
        for value in WRONG:
            for name in accepted_members(model):
                for path, text in problems_of(model, {name: value}).items():
                    texts.add(text)
                    if LIBRARY_WORDS.search(text) or text == field_errors.OTHER or "[" in path or "(" in path:
                        wrong.append((model.__name__, name, path, text))

    assert wrong == []
    assert {"must be a whole number", "must be true or false", "must be an array", "must be a text"} <= texts
    assert len(texts) > 50


def test_no_wrong_query_gets_the_wording_of_a_library(clinic: Clinic) -> None:
    paths = (
        "/analytics/revenue?start_date=x&doctor_id=x&group_by=hour",
        "/patients/1/account?page=x&per_page=5000",
        "/patients/1/timeline?type=x",
        "/doctors/1/availability?duration=x&date=2026-02-30",
        "/patients?page=x&gender=x&min_age=x&is_active=x",
        "/appointments?start=x&doctor_id=x&status=x",
    )
    for path in paths:
        response = clinic.admin.get(path)
        assert response.status_code == 422, path
        for text in response.get_json()["errors"].values():
            assert not LIBRARY_WORDS.search(text), (path, text)


def test_the_refusal_of_an_enum_lists_the_accepted_values(clinic: Clinic) -> None:
    body = {"name": "A", "gender": "x", "blood_type": "C"}

    errors = clinic.admin.post("/patients", body).get_json()["errors"]

    assert errors["gender"] == "must be 'male', 'female' or 'other'"
    assert errors["blood_type"] == "must be 'A+', 'A-', 'B+', 'B-', 'AB+', 'AB-', 'O+' or 'O-'"


@pytest.mark.parametrize("wrong_id", ["tom", "1.5", "-1", "1e3", "0x1", "%20"])
@pytest.mark.parametrize(
    ("path", "example"),
    [("/patients/{}", "/patients/1"), ("/patients/{}/timeline/", "/patients/1/timeline")],
)
def test_a_path_with_a_wrong_id_says_that_it_is_a_number(
    clinic: Clinic, path: str, example: str, wrong_id: str
) -> None:
    response = clinic.admin.get(path.format(wrong_id))

    assert (response.status_code, response.get_json()["error"]) == (404, "not_found")
    message = f"The patient_id in the path must be a whole number, as in {example}."
    assert response.get_json()["message"] == message


def test_a_path_with_two_ids_names_the_wrong_one(clinic: Clinic) -> None:
    message = clinic.admin.get("/billings/1/claims/tom").get_json()["message"]

    assert message == "The claim_id in the path must be a whole number, as in /billings/1/claims/1."


def test_a_very_large_id_and_an_unknown_path_are_404(clinic: Clinic) -> None:
    large, unknown = clinic.admin.get(f"/patients/{10**30}"), clinic.admin.get("/teeth/1")

    assert (large.status_code, unknown.status_code) == (404, 404)
    assert "no id is that large" in large.get_json()["message"]
    assert "GET / lists all routes" in unknown.get_json()["message"]


@pytest.mark.parametrize("header", ["{token}", "Token {token}", "Bearer", "Bearer "])
def test_a_header_without_bearer_says_so(clinic: Clinic, header: str) -> None:
    headers = {"Authorization": header.format(token=clinic.admin.token)}

    response = clinic.nobody.get("/patients", headers=headers)

    assert response.status_code == 401
    assert "Authorization: Bearer <access_token>" in response.get_json()["message"]


def test_a_forbidden_request_says_which_roles_may(clinic: Clinic) -> None:
    for caller, method, path, permission in (
        (clinic.receptionist, "GET", "/users", Permission.USERS_MANAGE),
        (clinic.technician, "POST", "/patients", Permission.PATIENTS_WRITE),
        (clinic.receptionist, "POST", "/prescriptions", Permission.PRESCRIPTIONS_WRITE),
    ):
        response = caller.send(method, path, {} if method == "POST" else None)
        roles = ", ".join(role.value for role in TABLE[permission])
        assert response.status_code == 403
        assert response.get_json()["message"].endswith(f"Roles with this permission: {roles}.")
