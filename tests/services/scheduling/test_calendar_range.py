"""The range of a calendar: FullCalendar's `start`, `end` and `timeZone`, and `start_date` and `end_date`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from models import Appointment
from tests.support import booking
from tests.support.booking import MONDAY
from tests.support.clinic import Clinic

monday_morning = booking.monday_morning
# Appointments: one before, one over each end, one inside and one after the range of 10:00 to 12:00.
STARTS = ("09:00", "09:45", "10:30", "11:45", "12:00")
FROM, TO = f"{MONDAY}T10:00:00Z", f"{MONDAY}T12:00:00Z"
OVERLAPPING, STARTING, ALL = [1, 2, 3], [2, 3], [0, 1, 2, 3, 4]
RANGES: list[tuple[dict[str, str], list[int]]] = [
    ({"start": FROM, "end": TO}, OVERLAPPING),
    ({"start_date": FROM, "end_date": TO}, STARTING),
    ({"start": FROM}, [1, 2, 3, 4]),
    ({"end": TO}, [0, 1, 2, 3]),
    ({"start": FROM, "end": FROM}, [1]),
    ({"start_date": FROM, "end_date": FROM}, []),
    ({"start_date": MONDAY, "end_date": MONDAY}, ALL),
    ({"start": MONDAY, "end": MONDAY}, ALL),
    (
        {"start": "2027-03-01T13:00:00+03:00", "end": "2027-03-01T15:00:00+03:00", "timeZone": "UTC"},
        OVERLAPPING,
    ),
    (
        {"start": "2027-03-01T13:00:00", "end": "2027-03-01T15:00:00", "timeZone": "Africa/Nairobi"},
        OVERLAPPING,
    ),
    ({"start": "2027-03-01T10:00:00", "end": "2027-03-01T12:00:00", "timeZone": "local"}, OVERLAPPING),
    ({"start": "2027-03-01T10:00:00", "end": "2027-03-01T12:00:00"}, OVERLAPPING),
    (
        {
            "start_date": "2027-03-01T13:00:00",
            "end_date": "2027-03-01T15:00:00",
            "timeZone": "Africa/Nairobi",
        },
        STARTING,
    ),
    # Tuesday in Auckland begins on Monday at 11:00 UTC
    ({"start": "2027-03-02", "end": "2027-03-02", "timeZone": "Pacific/Auckland"}, [3, 4]),
    ({"start": FROM, "end": TO, "start_date": f"{MONDAY}T10:30:00Z"}, STARTING),
]


def query_of(parameters: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(value)}" for name, value in parameters.items())


def test_a_calendar_range_selects_overlapping_appointments(clinic: Clinic) -> None:
    doctors = [clinic.doctor_row()["id"] for _ in STARTS]
    ids = [
        clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T{start}:00Z")["id"]
        for doctor, start in zip(doctors, STARTS, strict=True)
    ]

    for parameters, expected in RANGES:
        answer = clinic.doctor.get(f"/appointments?sort_by=id&sort_order=asc&{query_of(parameters)}")
        rows = answer.get_json()
        assert answer.status_code == 200, parameters
        assert [row["id"] for row in rows] == [ids[n] for n in expected], parameters
        assert all(row["title"] == row["patient_name"] for row in rows)


INVALID: list[tuple[dict[str, str], str]] = [
    ({"start": FROM, "end": TO, "timeZone": "Mars/Olympus"}, "timeZone"),
    ({"start": FROM, "end": TO, "timeZone": "../../etc/passwd"}, "timeZone"),
    ({"start": FROM, "end": TO, "timeZone": ""}, "timeZone"),
    ({"start": FROM, "end": TO, "timeZone": "America"}, "timeZone"),
    ({"start": TO, "end": FROM}, "end"),
    ({"start_date": TO, "end_date": FROM}, "end_date"),
    ({"start": "soon"}, "start"),
    ({"end": "2027-03-01T25:00:00"}, "end"),
    ({"start": "2027-03-28T02:30:00", "timeZone": "Europe/Berlin"}, "start"),
    ({"start": "2027-10-31T02:30:00", "timeZone": "Europe/Berlin"}, "start"),
]


def test_an_invalid_range_is_422(clinic: Clinic) -> None:
    for parameters, field in INVALID:
        answer = clinic.doctor.get(f"/appointments?{query_of(parameters)}")
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field]), parameters
    errors = clinic.doctor.get(f"/appointments?{query_of(INVALID[-1][0])}").get_json()["errors"]
    assert "+01:00 or +02:00" in errors["start"]


@pytest.fixture
def crowded(clinic: Clinic) -> Clinic:
    """Add 1,001 cancelled appointments on one day."""
    row = clinic.appointment(date=f"{MONDAY}T10:00:00Z")
    with clinic.inside() as session:
        first = session.get(Appointment, row["id"])
        names = ("patient_id", "doctor_id", "start", "end", "blocked_until")
        values: dict[str, Any] = {name: getattr(first, name) for name in names}
        session.add_all(Appointment(**values, status="cancelled") for _ in range(1_000))
    return clinic


def test_a_calendar_gets_up_to_1000_rows_and_a_sign_of_further_ones(crowded: Clinic) -> None:
    whole = crowded.doctor.get(f"/appointments?start={FROM}&end={TO}")
    rest = crowded.doctor.get(f"/appointments?start={FROM}&end={TO}&page=2")
    page = crowded.doctor.get(f"/appointments?start={FROM}&end={TO}&per_page=7")
    day = crowded.doctor.get(f"/appointments?start_date={MONDAY}&end_date={MONDAY}")

    assert [len(answer.get_json()) for answer in (whole, rest, page, day)] == [1_000, 1, 7, 20]
    assert {answer.headers["X-Total-Count"] for answer in (whole, rest, page, day)} == {"1001"}
    assert 'page=2>; rel="next"' in whole.headers["Link"]
    assert "per_page=1000" in whole.headers["Link"]


def test_time_off_of_a_calendar_range_overlaps_it(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    row = clinic.admin.make(f"/doctors/{doctor}/time-off", start="2027-02-20", end="2027-03-10")
    path = f"/doctors/{doctor}/time-off"

    assert clinic.doctor.get(f"{path}?start={FROM}&end={TO}").get_json() == [row]
    assert clinic.doctor.get(f"{path}?start_date={FROM}&end_date={TO}").get_json() == []
    assert clinic.doctor.get(f"{path}?start=2027-03-11&end=2027-03-12").get_json() == []
