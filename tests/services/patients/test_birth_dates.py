"""Dates of birth: partial and estimated ones, their ages, limits, visits and duplicates."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine

from services.patients import birth_dates
from tests.support.clinic import Clinic

NOW = datetime(2027, 3, 1, 8, tzinfo=UTC)

# members of a request -> date_of_birth, birth_date_precision, age, age_is_estimate
READ: list[tuple[dict[str, Any], tuple[str | None, str | None, int | None, bool]]] = [
    ({}, (None, None, None, False)),
    ({"date_of_birth": "1990-11-05"}, ("1990-11-05", "day", 36, False)),
    ({"date_of_birth": "1990-11"}, ("1990-11", "month", 36, True)),
    ({"date_of_birth": "1990"}, ("1990", "year", 37, True)),
    ({"date_of_birth": "1990", "birth_date_precision": "year"}, ("1990", "year", 37, True)),
    ({"date_of_birth": "1990", "birth_date_precision": "estimated"}, ("1990", "estimated", 37, True)),
    ({"date_of_birth": "1990-11-05", "birth_date_precision": "month"}, ("1990-11", "month", 36, True)),
    ({"date_of_birth": "1990-01-01", "birth_date_precision": "year"}, ("1990", "year", 37, True)),
    ({"estimated_age": 40}, ("1987", "estimated", 40, True)),
    ({"estimated_age": 0}, ("2027", "estimated", 0, True)),
    ({"estimated_age": 130}, ("1897", "estimated", 130, True)),
    ({"estimated_age": 40, "birth_date_precision": "estimated"}, ("1987", "estimated", 40, True)),
    ({"date_of_birth": "2027-03-01"}, ("2027-03-01", "day", 0, False)),
    ({"date_of_birth": "2027"}, ("2027", "year", 0, True)),
    ({"date_of_birth": "2027-03"}, ("2027-03", "month", 0, True)),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"date_of_birth": "90"}, "date_of_birth"),
    ({"date_of_birth": "1990-13"}, "date_of_birth"),
    ({"date_of_birth": "1990-02-30"}, "date_of_birth"),
    ({"date_of_birth": "1990-1"}, "date_of_birth"),
    ({"date_of_birth": 1990}, "date_of_birth"),
    ({"date_of_birth": "2028"}, "date_of_birth"),
    ({"date_of_birth": "2027-04"}, "date_of_birth"),
    ({"date_of_birth": "1896"}, "date_of_birth"),
    ({"date_of_birth": "1890-01-01"}, "date_of_birth"),
    ({"date_of_birth": "1990", "birth_date_precision": "day"}, "birth_date_precision"),
    ({"date_of_birth": "1990", "birth_date_precision": "month"}, "birth_date_precision"),
    ({"date_of_birth": "1990-11", "birth_date_precision": "day"}, "birth_date_precision"),
    ({"date_of_birth": "1990", "birth_date_precision": "decade"}, "birth_date_precision"),
    ({"birth_date_precision": "year"}, "birth_date_precision"),
    ({"estimated_age": -1}, "estimated_age"),
    ({"estimated_age": 131}, "estimated_age"),
    ({"estimated_age": "40"}, "estimated_age"),
    ({"estimated_age": 40, "date_of_birth": "1987"}, "estimated_age"),
    ({"estimated_age": 40, "birth_date_precision": "day"}, "birth_date_precision"),
]


def read(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["date_of_birth"], row["birth_date_precision"], row["age"], row["age_is_estimate"]


def test_a_date_of_birth_is_read_with_its_precision(clinic: Clinic) -> None:
    with time_machine.travel(NOW):
        for members, expected in READ:
            row = clinic.patient(**members)

            assert read(row) == expected, members
            assert "estimated_age" not in row
            assert clinic.admin.get(f"/patients/{row['id']}").get_json() == row
        assert [read(row) for row in clinic.admin.get("/patients").get_json()] == [each[1] for each in READ]


def test_a_wrong_date_of_birth_is_422_and_named(clinic: Clinic) -> None:
    with time_machine.travel(NOW):
        for members, field in REFUSED:
            answer = clinic.admin.post("/patients", {"name": "John Doe"} | members)

            assert answer.status_code == 422, members
            assert list(answer.get_json()["errors"]) == [field], members


def test_a_change_keeps_or_replaces_the_precision(clinic: Clinic) -> None:
    with time_machine.travel(NOW):
        path = f"/patients/{clinic.patient(date_of_birth='1990')['id']}"

        for change, expected in (
            ({"address": "Mill Lane"}, ("1990", "year", 37, True)),
            ({"birth_date_precision": "estimated"}, ("1990", "estimated", 37, True)),
            ({"date_of_birth": "1990-05-04"}, ("1990-05-04", "day", 36, False)),
            ({"birth_date_precision": "month"}, ("1990-05", "month", 36, True)),
            ({"estimated_age": 30}, ("1997", "estimated", 30, True)),
            ({"date_of_birth": None}, (None, None, None, False)),
            ({"date_of_birth": "1980-02"}, ("1980-02", "month", 47, True)),
        ):
            answer = clinic.admin.patch(path, change)
            assert read(answer.get_json()) == expected, change
        finer = clinic.admin.patch(path, {"birth_date_precision": "day"})
        assert list(finer.get_json()["errors"]) == ["birth_date_precision"]


def test_a_row_that_is_sent_back_changes_nothing(clinic: Clinic) -> None:
    for members in ({"date_of_birth": "1990"}, {"estimated_age": 40}, {"date_of_birth": "1990-11-05"}):
        row = clinic.patient(**members)

        answer = clinic.admin.put(f"/patients/{row['id']}", row)

        assert answer.status_code == 200
        assert answer.headers["ETag"] == '"1"'
        assert answer.get_json() == row


def test_the_shown_date_of_birth_filters_a_list(clinic: Clinic) -> None:
    known = ("1990", "1990-01", "1990-01-01", "1990-02-03", "1991-01-01")
    ids = [clinic.patient(date_of_birth=each)["id"] for each in known]

    for text, matching in (
        ("1990", ids[:4]),
        ("1990-01", ids[1:3]),
        ("1990-01-01", ids[2:3]),
        ("1990-02", ids[3:4]),
        ("1989", []),
    ):
        rows = clinic.admin.get("/patients", query_string={"date_of_birth": text}).get_json()
        assert [row["id"] for row in rows] == matching, text
    after = clinic.admin.get("/patients?date_of_birth_gte=1990-02-01&birth_date_precision=day").get_json()
    assert [row["id"] for row in after] == ids[3:]
    for wrong in ("90", "1990-13", "1990-1-1", "soon"):
        assert clinic.admin.get(f"/patients?date_of_birth={wrong}").status_code == 422


def test_a_date_of_birth_cannot_move_past_a_visit(clinic: Clinic) -> None:
    patient = clinic.patient(date_of_birth="1990")["id"]
    path = f"/patients/{patient}"
    visit = clinic.visit(patient_id=patient, date="2020-06-10T10:00:00Z")["id"]

    refused = clinic.admin.patch(path, {"date_of_birth": "2020-06-11"})
    by_age = clinic.admin.patch(path, {"estimated_age": 1})
    same_day = clinic.admin.patch(path, {"date_of_birth": "2020-06-10"})
    same_year = clinic.admin.patch(path, {"date_of_birth": "2020"})
    assert clinic.admin.delete(f"/visits/{visit}", {"reason": "wrong patient"}).status_code == 200
    after_void = clinic.admin.patch(path, {"date_of_birth": "2021"})

    assert (refused.status_code, refused.get_json()["error"]) == (409, "conflict")
    assert list(refused.get_json()["errors"]) == list(by_age.get_json()["errors"]) == ["date_of_birth"]
    assert [answer.status_code for answer in (same_day, same_year, after_void)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("known", "other", "is_duplicate"),
    [
        ("1990-11-05", "1990-11-05", True),
        ("1990", "1990-11-05", True),
        ("1990-11-05", "1990", True),
        ("1990-11", "1990-11-05", True),
        ("1990-11-05", "1990-11", True),
        ("1990", "1990-11", True),
        ("1990-11", "1990", True),
        ("1990-11", "1990-10", False),
        ("1990-11", "1990-10-30", False),
        ("1990-11-05", "1990-11-06", False),
        ("1990", "1991-01-01", False),
        ("1990-01-01", "1990-01", True),
        ("1990-01-01", "1989", False),
    ],
)
def test_partial_dates_of_birth_are_compared_by_their_known_part(
    clinic: Clinic, known: str, other: str, is_duplicate: bool
) -> None:
    clinic.admin.make("/patients", name="John Doe", date_of_birth=known)

    answer = clinic.admin.post("/patients", {"name": "Jon Doe", "date_of_birth": other})

    assert (answer.status_code == 409) is is_duplicate
    if is_duplicate:
        assert answer.get_json()["candidates"][0]["date_of_birth"] == known
        assert answer.get_json()["candidates"][0]["matches"] == ["name", "date_of_birth"]


def test_the_last_possible_day_of_birth() -> None:
    precision = birth_dates.Precision

    assert birth_dates.last_possible(date(2024, 2, 1), precision.MONTH) == date(2024, 2, 29)
    assert birth_dates.last_possible(date(1990, 1, 1), precision.ESTIMATED) == date(1990, 12, 31)
    assert birth_dates.last_possible(date(1990, 1, 1), precision.DAY) == date(1990, 1, 1)


def test_newborns_can_have_visits(clinic: Clinic) -> None:
    today = datetime.now(UTC).date()
    newborn = clinic.patient(date_of_birth=today.isoformat())["id"]
    early = datetime.now(UTC) - timedelta(days=2)

    assert clinic.visit(patient_id=newborn)["patient_id"] == newborn
    refused = clinic.admin.post(
        "/visits",
        {"patient_id": newborn, "doctor_id": clinic.doctor.doctor_id, "date": early.isoformat()},
    )
    assert list(refused.get_json()["errors"]) == ["date"]
