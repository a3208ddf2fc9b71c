"""Patient search: parts of words, accents, one typing error, phones, filters, permissions."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from models import Visit
from services.patients.name_matching import begins_within_one_edit, within_edits
from tests.support import queries
from tests.support.clinic import Clinic

PEOPLE: list[dict[str, Any]] = [
    {"name": "John Doe", "email": "john@example.com", "phone": "+1 (555) 123-4567", "file_number": "A-77"},
    {"name": "Jonathan Smith", "gender": "male", "insurance_id": "XK-4411", "insurance_provider": "Acme"},
    {"name": "Zoë Kowalska", "gender": "female", "phone": "555-767-7476"},
    {"name": "Łukasz Żółć", "email": "lukasz.zolc@example.org"},
    {"name": "Søren Ångström", "needs_review": True, "review_notes": "age unknown"},
    {"name": "María José García-López", "gender": "female"},
    {"name": "患者 太郎"},
    {"name": "O'Brien Smyth 100%_x"},
]


@pytest.fixture
def people(clinic: Clinic) -> dict[str, int]:
    """Create the patients of `PEOPLE` and return their ids by name."""
    return {
        person["name"]: clinic.admin.make("/patients", **person, allow_duplicate=True)["id"]
        for person in PEOPLE
    }


def find_names(clinic: Clinic, query: dict[str, Any]) -> list[str]:
    """Return the names in the result of a search, in order."""
    answer = clinic.admin.get("/patients/search", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    return [row["name"] for row in answer.get_json()["patients"]]


NAMES_BY_QUERY = {
    "john": ["John Doe"],
    "JOHN DOE": ["John Doe"],
    "doe john": ["John Doe"],
    "jo": ["John Doe", "Jonathan Smith", "María José García-López"],
    "zoe": ["Zoë Kowalska"],
    "ZOË": ["Zoë Kowalska"],
    "walsk": ["Zoë Kowalska"],
    "lukasz zolc": ["Łukasz Żółć"],
    "soren angstrom": ["Søren Ångström"],
    "garcia": ["María José García-López"],
    "lopez maria": ["María José García-López"],
    "太郎": ["患者 太郎"],
    "o'brien": ["O'Brien Smyth 100%_x"],
    "100%_": ["O'Brien Smyth 100%_x"],
    "%": ["O'Brien Smyth 100%_x"],
    "a-77": ["John Doe"],
    "example.org": ["Łukasz Żółć"],
    "JOHN@example.com": ["John Doe"],
    "5551234567": ["John Doe"],
    "555-123-4567": ["John Doe"],
    "+1 555 123 4567": ["John Doe"],
    "767 7476": ["Zoë Kowalska"],
    "(555)": ["John Doe", "Zoë Kowalska"],
    "nobody at all": [],
}


def test_q_finds_parts_of_names_and_numbers(clinic: Clinic, people: dict[str, int]) -> None:
    assert {q: find_names(clinic, {"q": q}) for q in NAMES_BY_QUERY} == NAMES_BY_QUERY


NAMES_BY_MISTYPED_QUERY = {
    "jhon": ["John Doe"],  # swapped
    "johm doe": ["John Doe"],  # wrong
    "johhn": ["John Doe"],  # too many
    "jnathan": ["Jonathan Smith"],  # missing
    "ohn doee": ["John Doe"],  # the other word is a part
    "kowalksa": ["Zoë Kowalska"],
    "xoe": ["John Doe", "Zoë Kowalska"],
    "oze": ["Zoë Kowalska"],
    "zeo": ["Zoë Kowalska"],
    "zie": ["Zoë Kowalska"],
    "zoey": ["Zoë Kowalska"],
    "Angstrem": ["Søren Ångström"],
    "garcla": ["María José García-López"],
    "lopes": ["María José García-López"],
    "kowalx": ["Zoë Kowalska"],  # the beginning of a name
    "johndoe": ["John Doe"],  # the blank is missing
    "lukasz.zolx@example.org": ["Łukasz Żółć"],
    "jxhm": [],
    "johm dxe": [],
    "5551234568": [],
    "A-78": [],
}


def test_q_tolerates_one_typing_error_but_not_two_and_not_in_numbers(
    clinic: Clinic, people: dict[str, int]
) -> None:
    assert {q: find_names(clinic, {"q": q}) for q in NAMES_BY_MISTYPED_QUERY} == NAMES_BY_MISTYPED_QUERY


def test_typing_errors_are_tolerated_only_without_an_exact_match(clinic: Clinic) -> None:
    clinic.patient(name="Joan Doe")
    clinic.patient(name="John Roe")

    assert find_names(clinic, {"q": "joan"}) == ["Joan Doe"]


@pytest.mark.parametrize(
    ("word", "text", "expected"),
    [
        ("john", "john smith", True),
        ("john", "joh", True),
        ("jhon", "johnny", True),
        ("jon", "john", True),
        ("johnx", "john", True),
        ("john", "jo", False),
        ("jxhn", "jhon", False),
        ("john", "", False),
        ("hjon", "jhon", True),
        ("johs", "john", True),
    ],
)
def test_a_text_begins_with_a_word_within_one_edit(word: str, text: str, expected: bool) -> None:
    assert begins_within_one_edit(word, text) is expected


def textbook_distance(text: str, other: str) -> int:
    """Return the optimal string alignment distance, computed with the full table."""
    second_last: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(text, 1):
        row = [i]
        for j, other_letter in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != other_letter))
            if i > 1 and j > 1 and letter == other[j - 2] and text[i - 2] == other_letter:
                cost = min(cost, second_last[j - 2] + 1)
            row.append(cost)
        second_last, last = last, row
    return last[-1]


@pytest.mark.parametrize("edits", [1, 2])
def test_within_edits_agrees_with_the_textbook_distance(edits: int) -> None:
    short = ["".join(letters) for size in range(5) for letters in itertools.product("abc", repeat=size)]
    pairs = list(itertools.product([*short, "abcabc", "bacbac", "aabbcc", "cabcab", "xyzabc"], repeat=2))

    wrong = [pair for pair in pairs if within_edits(*pair, edits) != (textbook_distance(*pair) <= edits)]

    assert wrong == []


# --- Filters -------------------------------------------------------------------------------------------


NAMES_BY_FILTER: list[tuple[dict[str, str], list[str]]] = [
    ({"name": "smith"}, ["Jonathan Smith"]),
    ({"name": "kowalska zoe"}, ["Zoë Kowalska"]),
    ({"phone": "123-45"}, ["John Doe"]),
    ({"phone": "15557677476"}, ["Zoë Kowalska"]),
    ({"email": "Example.ORG"}, ["Łukasz Żółć"]),
    ({"insurance_id": "xk-44"}, ["Jonathan Smith"]),
    ({"insurance_provider": "acme"}, ["Jonathan Smith"]),
    ({"gender": "female"}, ["Zoë Kowalska", "María José García-López"]),
    ({"gender": "female", "q": "zoe"}, ["Zoë Kowalska"]),
    ({"needs_review": "true"}, ["Søren Ångström"]),
    ({"is_active": "false"}, []),
]


def test_filters_select_matching_patients(clinic: Clinic, people: dict[str, int]) -> None:
    assert [(query, find_names(clinic, query)) for query, _names in NAMES_BY_FILTER] == NAMES_BY_FILTER


def years_ago(years: int, days: int = 0) -> str:
    today = datetime.now(UTC).date()
    year = today.year - years
    day = date(year, today.month, min(today.day, 28))
    return (day + timedelta(days=days)).isoformat()


def test_ages_are_completed_years(clinic: Clinic) -> None:
    clinic.patient(name="Turned Eighteen", date_of_birth=years_ago(18, days=-1))
    clinic.patient(name="Almost Eighteen", date_of_birth=years_ago(18, days=4))
    clinic.patient(name="Long Eighteen", date_of_birth=years_ago(19, days=4))
    clinic.patient(name="Unknown Age")

    assert find_names(clinic, {"min_age": 18}) == ["Turned Eighteen", "Long Eighteen"]
    assert find_names(clinic, {"max_age": 17}) == ["Almost Eighteen"]
    assert find_names(clinic, {"min_age": 18, "max_age": 18}) == ["Turned Eighteen", "Long Eighteen"]
    assert find_names(clinic, {"min_age": 0, "max_age": 130}) == [
        "Turned Eighteen",
        "Almost Eighteen",
        "Long Eighteen",
    ]


def test_balance_gt_selects_patients_who_owe_more(clinic: Clinic) -> None:
    debtor, payer, quiet = (clinic.patient(name=name)["id"] for name in ("Debtor", "Payer", "Quiet"))
    clinic.bill("100.00", patient_id=debtor)
    bill = clinic.bill("60.00", patient_id=payer)
    clinic.admin.post(
        f"/billings/{bill['id']}/payments", {"amount": "80.00", "method": "cash", "allow_credit": True}
    )

    assert find_names(clinic, {"balance_gt": "99.99"}) == ["Debtor"]
    assert find_names(clinic, {"balance_gt": "100.00"}) == []
    assert find_names(clinic, {"balance_gt": "-0.01"}) == ["Debtor", "Quiet"]
    assert find_names(clinic, {"balance_gt": "-20.01"}) == ["Debtor", "Payer", "Quiet"]
    assert quiet


def test_conditions_and_allergies_are_found_by_name_and_code(clinic: Clinic) -> None:
    first, second = clinic.patient(name="One")["id"], clinic.patient(name="Two")["id"]
    clinic.doctor.patch(
        f"/patients/{first}/medical-history",
        {"conditions": [{"name": "Diabète de type 2", "icd10": "E11.9"}], "allergies": ["Pénicilline"]},
    )
    clinic.doctor.patch(
        f"/patients/{second}/medical-history", {"conditions": ["Asthma"], "allergies": ["Latex"]}
    )

    assert find_names(clinic, {"condition": "diabete"}) == ["One"]
    assert find_names(clinic, {"condition": "e119"}) == ["One"]
    assert find_names(clinic, {"condition": "E11"}) == ["One"]
    assert find_names(clinic, {"allergy": "PENICILLINE"}) == ["One"]
    assert find_names(clinic, {"allergy": "lat"}) == ["Two"]
    assert find_names(clinic, {"allergy": "lat", "condition": "diabete"}) == []


def test_seen_since_and_not_seen_since_select_by_visits(clinic: Clinic) -> None:
    today = datetime.now(UTC).date()
    for name, days in (("Yesterday", 1), ("Last Year", 400), ("Voided", 2)):
        visit = clinic.visit(patient_id=clinic.patient(name=name)["id"])
        with clinic.inside() as session:
            row = session.get(Visit, visit["id"])
            row.date = datetime.now(UTC) - timedelta(days=days)
            if name == "Voided":
                row.voided_at, row.void_reason = datetime.now(UTC), "wrong patient"
    clinic.patient(name="Never")

    month_ago = (today - timedelta(days=30)).isoformat()

    assert find_names(clinic, {"seen_since": month_ago}) == ["Yesterday"]
    assert find_names(clinic, {"not_seen_since": month_ago}) == ["Last Year", "Voided", "Never"]


INVALID_PARAMETERS: list[dict[str, str]] = [
    {"min_age": "-1"},
    {"max_age": "131"},
    {"min_age": "old"},
    {"balance_gt": "much"},
    {"gender": "unknown"},
    {"is_active": "perhaps"},
    {"phone": "ab"},
    {"seen_since": "yesterday"},
    {"shoe_size": "42"},
    {"sort_by": "name_fold"},
    {"per_page": "1001"},
]


def test_an_invalid_parameter_is_422_and_named(clinic: Clinic) -> None:
    for query in INVALID_PARAMETERS:
        answer = clinic.admin.get("/patients/search", query_string=query)

        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == list(query)


# --- Roles, envelope -----------------------------------------------------------------------------------


def test_a_role_may_not_filter_by_fields_that_it_may_not_read(clinic: Clinic) -> None:
    clinic.patient()

    for path in ("/patients", "/patients/search"):
        assert clinic.technician.get(f"{path}?balance_gt=0").status_code == 403
        assert clinic.receptionist.get(f"{path}?condition=HIV").status_code == 403
        assert clinic.receptionist.get(f"{path}?allergy=latex").status_code == 403
        assert clinic.receptionist.get(f"{path}?balance_gt=0").status_code == 200
        assert clinic.technician.get(f"{path}?allergy=latex").status_code == 200


def test_a_search_returns_pagination_and_search_params(clinic: Clinic, people: dict[str, int]) -> None:
    answer = clinic.receptionist.get("/patients/search?q=o&per_page=2&page=2&sort_by=name&sort_order=desc")

    body = answer.get_json()
    assert set(body) == {"patients", "pagination", "search_params"}
    assert body["pagination"] == {
        "page": 2,
        "per_page": 2,
        "total_count": len(find_names(clinic, {"q": "o"})),
        "total_pages": -(-len(find_names(clinic, {"q": "o"})) // 2),
    }
    assert body["search_params"] == {"q": "o"}
    assert len(body["patients"]) == 2


def test_the_list_accepts_the_same_parameters(clinic: Clinic, people: dict[str, int]) -> None:
    answer = clinic.receptionist.get("/patients?q=jhon&_start=0&_end=5&_sort=name&_order=DESC")

    assert [row["name"] for row in answer.get_json()] == ["John Doe"]
    assert answer.headers["X-Total-Count"] == "1"


def test_the_number_of_queries_does_not_depend_on_the_number_of_rows(clinic: Clinic) -> None:
    clinic.patient()
    clinic.admin.get("/patients")
    count_of_1 = queries.count(clinic, clinic.admin, "/patients?per_page=100")
    for _ in range(12):
        clinic.patient()

    assert queries.count(clinic, clinic.admin, "/patients?per_page=100") == count_of_1
