"""Unique values that people type: stored as typed and trimmed, compared trimmed and case-folded."""

from __future__ import annotations

from typing import Any

import pytest

from column_types import unique_key
from tests.support.clinic import PASSWORD, Caller, Clinic

DOCTOR = {"name": "Amina Yusuf", "specialty": "cardiology"}
USER = {"name": "Amina Yusuf", "password": PASSWORD, "role": "receptionist"}
# route, other members, member
VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("/patients", {"name": "Ada Okoye", "allow_duplicate": True}, "file_number"),
    ("/doctors", DOCTOR, "license_number"),
    ("/inventory", {"name": "Gloves"}, "sku"),
    ("/users", USER, "email"),
]
TYPED = {"email": "Ömer.Straße@Clinic.example"}
EQUAL = {
    "email": (
        "ömer.strasse@clinic.example",
        "  ÖMER.STRASSE@CLINIC.EXAMPLE ",
        "O\u0308mer.Straße@clinic.example",
    )
}


@pytest.mark.parametrize(("route", "others", "member"), VALUES)
def test_equal_values_are_refused(clinic: Clinic, route: str, others: dict[str, Any], member: str) -> None:
    typed = TYPED.get(member, "Kart-Größe 7b")
    equal = EQUAL.get(member, ("KART-GRÖSSE 7B", " kart-größe 7b\t", "Kart-Gro\u0308ße 7b"))

    row = clinic.admin.make(route, **others | {member: f" {typed} "})
    other = clinic.admin.make(route, **others | {member: f"x{typed}"})

    assert row[member] == typed
    for value in equal:
        for answer in (
            clinic.admin.post(route, others | {member: value}),
            clinic.admin.patch(f"{route}/{other['id']}", {member: value}),
        ):
            problem = answer.get_json()
            assert (answer.status_code, problem["error"]) == (409, "already_exists"), value
            assert list(problem["errors"]) == [member]
    retyped = clinic.admin.patch(f"{route}/{row['id']}", {member: typed.upper()})
    assert (retyped.status_code, retyped.get_json()[member]) == (200, typed.upper())
    listed = clinic.admin.get(route, query_string={member: typed.lower()}).get_json()
    assert [each["id"] for each in listed] == [row["id"]]


def test_the_owner_signs_in_with_another_spelling_of_the_address(clinic: Clinic) -> None:
    clinic.admin.make("/users", **USER | {"email": "Grace.Mwangi@Clinic.example"})

    for email in ("grace.mwangi@clinic.example", " GRACE.MWANGI@CLINIC.EXAMPLE"):
        answer = clinic.nobody.post("/auth/login", {"email": email, "password": PASSWORD})

        assert answer.status_code == 200
        user = Caller(clinic, answer.get_json()["access_token"]).get("/auth/me").get_json()
        assert user["email"] == "Grace.Mwangi@Clinic.example"


@pytest.mark.parametrize("shared", ["Ah-99 812x", "aH-99 812X", " AH-99 812X "])
def test_insurance_ids_and_addresses_in_mixed_case_are_found_as_duplicates(
    clinic: Clinic, shared: str
) -> None:
    clinic.admin.make("/patients", name="John Doe", insurance_id="Ah-99 812X", email="J.Doe@Example.com")

    by_insurance = clinic.admin.post("/patients", {"name": "Jon Doe", "insurance_id": shared})
    by_email = clinic.admin.post("/patients", {"name": "Jon Doe", "email": "j.dOE@example.COM"})

    assert by_insurance.get_json()["candidates"][0]["matches"] == ["name", "insurance_id"]
    assert by_email.get_json()["candidates"][0]["matches"] == ["name", "email"]
    assert by_email.get_json()["candidates"][0]["email"] == "J.Doe@Example.com"


def test_the_compared_form_does_not_depend_on_the_unicode_form() -> None:
    assert unique_key(" Stra\u00dfe\u00a0") == unique_key("STRASSE") == "strasse"
    assert unique_key("E\u0301") == unique_key("\u00e9")
