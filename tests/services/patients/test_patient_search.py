"""Finding patients: parts of words, accents, one typo, phones, filters; what a role may not ask."""

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
    """The people above, first names -> ids."""
    return {
        person["name"]: clinic.admin.make("/patients", **person, allow_duplicate=True)["id"]
        for person in PEOPLE
    }


def found(clinic: Clinic, query: dict[str, Any]) -> list[str]:
    """The names that a search answers, in its order."""
    answer = clinic.admin.get("/patients/search", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    return [row["name"] for row in answer.get_json()["patients"]]


FOUND = {
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
    assert {q: found(clinic, {"q": q}) for q in FOUND} == FOUND


FORGIVEN = {
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


def test_one_slip_is_forgiven_and_not_two_nor_in_numbers(clinic: Clinic, people: dict[str, int]) -> None:
    assert {q: found(clinic, {"q": q}) for q in FORGIVEN} == FORGIVEN


def test_a_slip_is_not_looked_for_where_the_word_is_found(clinic: Clinic) -> None:
    clinic.patient(name="Joan Doe")
    clinic.patient(name="John Roe")

    assert found(clinic, {"q": "joan"}) == ["Joan Doe"]


@pytest.mark.parametrize(
    ("word", "text", "fits"),
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
def test_a_word_begins_a_text_but_for_one_slip(word: str, text: str, fits: bool) -> None:
    assert begins_within_one_edit(word, text) is fits


def distance(one: str, other: str) -> int:
    """Letters to insert, remove, replace or swap with their neighbour, by the textbook's table."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


@pytest.mark.parametrize("edits", [1, 2])
def test_words_within_some_slips_are_those_at_that_distance(edits: int) -> None:
    short = ["".join(letters) for size in range(5) for letters in itertools.product("abc", repeat=size)]
    pairs = list(itertools.product([*short, "abcabc", "bacbac", "aabbcc", "cabcab", "xyzabc"], repeat=2))

    wrong = [pair for pair in pairs if within_edits(*pair, edits) != (distance(*pair) <= edits)]

    assert wrong == []


# --- Filters -------------------------------------------------------------------------------------------


NARROWED: list[tuple[dict[str, str], list[str]]] = [
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


def test_filters_narrow(clinic: Clinic, people: dict[str, int]) -> None:
    assert [(query, found(clinic, query)) for query, _names in NARROWED] == NARROWED


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

    assert found(clinic, {"min_age": 18}) == ["Turned Eighteen", "Long Eighteen"]
    assert found(clinic, {"max_age": 17}) == ["Almost Eighteen"]
    assert found(clinic, {"min_age": 18, "max_age": 18}) == ["Turned Eighteen", "Long Eighteen"]
    assert found(clinic, {"min_age": 0, "max_age": 130}) == [
        "Turned Eighteen",
        "Almost Eighteen",
        "Long Eighteen",
    ]


def test_who_owes_more_than_an_amount(clinic: Clinic) -> None:
    debtor, payer, quiet = (clinic.patient(name=name)["id"] for name in ("Debtor", "Payer", "Quiet"))
    clinic.bill("100.00", patient_id=debtor)
    bill = clinic.bill("60.00", patient_id=payer)
    clinic.admin.post(
        f"/billings/{bill['id']}/payments", {"amount": "80.00", "method": "cash", "allow_credit": True}
    )

    assert found(clinic, {"balance_gt": "99.99"}) == ["Debtor"]
    assert found(clinic, {"balance_gt": "100.00"}) == []
    assert found(clinic, {"balance_gt": "-0.01"}) == ["Debtor", "Quiet"]
    assert found(clinic, {"balance_gt": "-20.01"}) == ["Debtor", "Payer", "Quiet"]
    assert quiet


def test_conditions_and_allergies_are_found_by_name_and_code(clinic: Clinic) -> None:
    one, two = clinic.patient(name="One")["id"], clinic.patient(name="Two")["id"]
    clinic.doctor.patch(
        f"/patients/{one}/medical-history",
        {"conditions": [{"name": "Diabète de type 2", "icd10": "E11.9"}], "allergies": ["Pénicilline"]},
    )
    clinic.doctor.patch(
        f"/patients/{two}/medical-history", {"conditions": ["Asthma"], "allergies": ["Latex"]}
    )

    assert found(clinic, {"condition": "diabete"}) == ["One"]
    assert found(clinic, {"condition": "e119"}) == ["One"]
    assert found(clinic, {"condition": "E11"}) == ["One"]
    assert found(clinic, {"allergy": "PENICILLINE"}) == ["One"]
    assert found(clinic, {"allergy": "lat"}) == ["Two"]
    assert found(clinic, {"allergy": "lat", "condition": "diabete"}) == []


def test_who_was_seen_since_and_who_was_not(clinic: Clinic) -> None:
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

    assert found(clinic, {"seen_since": month_ago}) == ["Yesterday"]
    assert found(clinic, {"not_seen_since": month_ago}) == ["Last Year", "Voided", "Never"]


UNANSWERED: list[dict[str, str]] = [
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


def test_what_cannot_be_asked_is_refused_by_name(clinic: Clinic) -> None:
    for query in UNANSWERED:
        answer = clinic.admin.get("/patients/search", query_string=query)

        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == list(query)


# --- Roles, envelope -----------------------------------------------------------------------------------


def test_a_role_cannot_guess_by_asking_what_it_may_not_read(clinic: Clinic) -> None:
    clinic.patient()

    for path in ("/patients", "/patients/search"):
        assert clinic.technician.get(f"{path}?balance_gt=0").status_code == 403
        assert clinic.receptionist.get(f"{path}?condition=HIV").status_code == 403
        assert clinic.receptionist.get(f"{path}?allergy=latex").status_code == 403
        assert clinic.receptionist.get(f"{path}?balance_gt=0").status_code == 200
        assert clinic.technician.get(f"{path}?allergy=latex").status_code == 200


def test_a_search_tells_its_pages_and_what_was_asked(clinic: Clinic, people: dict[str, int]) -> None:
    answer = clinic.receptionist.get("/patients/search?q=o&per_page=2&page=2&sort_by=name&sort_order=desc")

    body = answer.get_json()
    assert set(body) == {"patients", "pagination", "search_params"}
    assert body["pagination"] == {
        "page": 2,
        "per_page": 2,
        "total_count": len(found(clinic, {"q": "o"})),
        "total_pages": -(-len(found(clinic, {"q": "o"})) // 2),
    }
    assert body["search_params"] == {"q": "o"}
    assert len(body["patients"]) == 2


def test_the_list_takes_the_same_questions(clinic: Clinic, people: dict[str, int]) -> None:
    answer = clinic.receptionist.get("/patients?q=jhon&_start=0&_end=5&_sort=name&_order=DESC")

    assert [row["name"] for row in answer.get_json()] == ["John Doe"]
    assert answer.headers["X-Total-Count"] == "1"


def test_a_page_costs_the_same_number_of_queries_whatever_its_rows(clinic: Clinic) -> None:
    clinic.patient()
    clinic.admin.get("/patients")
    few = queries.count(clinic, clinic.admin, "/patients?per_page=100")
    for _number in range(12):
        clinic.patient()

    assert queries.count(clinic, clinic.admin, "/patients?per_page=100") == few
