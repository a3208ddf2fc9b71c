"""When a doctor is free: slots, reasons, and days on which the clocks change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import time_machine

from tests.support import booking, queries
from tests.support.booking import MONDAY
from tests.support.clinic import Clinic

monday_morning = booking.monday_morning
HOURS = [{"weekday": day, "start": "09:00", "end": "12:00"} for day in range(5)]


def working_doctor(clinic: Clinic, windows: Any = HOURS, **members: Any) -> int:
    row = clinic.doctor_row(**members)
    answer = clinic.admin.put(f"/doctors/{row['id']}/schedule", {"windows": windows})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return int(row["id"])


def asked(clinic: Clinic, doctor_id: int, query: str = f"date={MONDAY}") -> dict[str, Any]:
    answer = clinic.technician.get(f"/doctors/{doctor_id}/availability?{query}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def times(found: dict[str, Any]) -> list[str]:
    """The beginnings of the slots, as local time of the day."""
    return [slot["start"][11:16] for slot in found["slots"]]


def test_a_day_offers_the_slots_of_its_hours(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    found = asked(clinic, doctor)

    assert found["available"] is True
    assert times(found) == ["09:00", "09:30", "10:00", "10:30", "11:00", "11:30"]
    assert found["slots"][0] == {"start": "2027-03-01T09:00:00+00:00", "end": "2027-03-01T09:30:00+00:00"}
    assert found["next_available"] == "2027-03-01T09:00:00+00:00"
    assert found["reason"] is None
    assert found["days"] == [{"date": MONDAY, "available": True, "reason": None}]


def test_what_is_booked_is_not_offered_nor_the_buffers_around_it(clinic: Clinic) -> None:
    doctor = working_doctor(clinic, buffer_minutes=10)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T10:00")

    found = asked(clinic, doctor)

    # 09:30 would need its buffer until 10:10, and 10:30 lies in the buffer of 10:00
    assert times(found) == ["09:00", "11:00", "11:30"]


def test_what_is_offered_can_be_booked_and_what_is_not_cannot(clinic: Clinic) -> None:
    doctor = working_doctor(clinic, buffer_minutes=10)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T10:00")
    patient = clinic.patient()["id"]

    def possible(time: str) -> bool:
        wish = {"patient_id": patient, "doctor_id": doctor, "date": f"{MONDAY}T{time}"}
        answer = clinic.receptionist.post("/appointments?dry_run=true", wish)
        return bool(answer.get_json()["possible"])

    grid = [f"{hour:02}:{minute}" for hour in (8, 9, 10, 11, 12) for minute in ("00", "30")]
    assert [time for time in grid if possible(time)] == times(asked(clinic, doctor))


def test_time_that_is_over_is_not_offered(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    with time_machine.travel(datetime(2027, 3, 1, 10, 10, tzinfo=UTC)):
        assert times(asked(clinic, doctor)) == ["10:30", "11:00", "11:30"]
        over = asked(clinic, doctor, "date=2027-02-26")

    assert (over["slots"], over["reason"]) == ([], "no_hours")
    assert over["next_available"] == "2027-03-01T10:30:00+00:00"


def test_a_longer_appointment_needs_a_longer_gap(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    found = asked(clinic, doctor, f"date={MONDAY}&duration=120")

    assert times(found) == ["09:00", "09:30", "10:00"]
    assert found["slots"][0]["end"] == "2027-03-01T11:00:00+00:00"


def test_a_gap_off_the_grid_offers_its_beginning(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00", duration=75)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T11:05", duration=55)

    found = asked(clinic, doctor, f"date={MONDAY}&duration=45")

    assert times(found) == ["10:15"]


def test_a_day_without_hours_says_so_and_names_the_next_free_time(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    found = asked(clinic, doctor, "date=2027-03-06")

    assert (found["available"], found["slots"], found["reason"]) == (False, [], "no_hours")
    assert found["next_available"] == "2027-03-08T09:00:00+00:00"


def test_a_day_off_says_so(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=MONDAY, end=MONDAY)

    found = asked(clinic, doctor)

    assert (found["available"], found["reason"]) == (False, "time_off")
    assert found["next_available"] == "2027-03-02T09:00:00+00:00"


def test_half_a_day_off_leaves_the_other_half(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=f"{MONDAY}T09:00", end=f"{MONDAY}T10:45")

    assert times(asked(clinic, doctor)) == ["11:00", "11:30"]


def test_a_full_day_says_so(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00", duration=180)

    found = asked(clinic, doctor)

    assert (found["available"], found["reason"]) == (False, "full")


def test_a_day_whose_gaps_are_too_short_says_so(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:20", duration=140)

    found = asked(clinic, doctor)

    assert (found["available"], found["reason"]) == (False, "no_gap_long_enough")


def test_a_licence_is_good_through_its_last_day(clinic: Clinic) -> None:
    doctor = working_doctor(clinic, license_expires_on="2027-03-02")

    found = asked(clinic, doctor, "start_date=2027-03-02&end_date=2027-03-03")

    assert [day["reason"] for day in found["days"]] == [None, "license_expired"]
    beyond = asked(clinic, doctor, "date=2027-03-03")
    assert (beyond["reason"], beyond["next_available"]) == ("license_expired", None)


def test_nobody_books_with_a_doctor_who_left(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.admin.delete(f"/doctors/{doctor}")

    found = asked(clinic, doctor)

    assert (found["slots"], found["reason"], found["next_available"]) == ([], "inactive", None)


def test_a_doctor_without_windows_is_bookable_at_any_hour(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]

    found = asked(clinic, doctor, "date=2027-03-06")

    assert len(found["slots"]) == 48
    assert (times(found)[0], times(found)[-1]) == ("00:00", "23:30")


def test_a_cancelled_and_a_missed_appointment_leave_their_time_free(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    cancelled = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")
    missed = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T11:00", duration=60)
    clinic.admin.delete(f"/appointments/{cancelled['id']}")

    assert times(asked(clinic, doctor)) == ["09:00", "09:30", "10:00", "10:30"]

    with time_machine.travel(datetime(2027, 3, 1, 11, 10, tzinfo=UTC)):
        clinic.sign_in("admin").patch(f"/appointments/{missed['id']}", {"status": "no_show"})
        found = clinic.sign_in("technician").get(f"/doctors/{doctor}/availability?date={MONDAY}")

    assert times(found.get_json()) == ["11:30"]


def test_without_dates_a_week_is_looked_at(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    days = asked(clinic, doctor, "")["days"]

    assert [days[0]["date"], days[-1]["date"], len(days)] == [MONDAY, "2027-03-08", 8]


NOT_ASKABLE: list[Any] = [
    ("date=2027-03-01&start_date=2027-03-01", "date"),
    ("start_date=2027-03-02&end_date=2027-03-01", "end_date"),
    ("start_date=2027-03-01&end_date=2027-05-03", "end_date"),
    ("date=tomorrow", "date"),
    ("date=2027-03-01&duration=4", "duration"),
    ("date=2027-03-01&duration=481", "duration"),
    ("day=2027-03-01", "day"),
]


def test_what_cannot_be_asked_is_422(clinic: Clinic) -> None:
    for query, field in NOT_ASKABLE:
        doctor = clinic.doctor_row()["id"]

        answer = clinic.admin.get(f"/doctors/{doctor}/availability?{query}")

        assert answer.status_code == 422, query
        assert field in answer.get_json()["errors"]


def test_an_unknown_doctor_has_no_availability(clinic: Clinic) -> None:
    assert clinic.admin.get("/doctors/987/availability").status_code == 404


# --- The clocks change ---------------------------------------------------------------------------------


def test_the_hours_stay_on_the_wall_clock_when_summer_time_begins(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = working_doctor(clinic, [{"weekday": day, "start": "09:00", "end": "10:00"} for day in (5, 6)])

    found = asked(clinic, doctor, "start_date=2027-03-27&end_date=2027-03-28")

    assert [slot["start"] for slot in found["slots"]] == [
        "2027-03-27T09:00:00+01:00",
        "2027-03-27T09:30:00+01:00",
        "2027-03-28T09:00:00+02:00",
        "2027-03-28T09:30:00+02:00",
    ]


LENGTHS: list[Any] = [("2027-03-27", 24), ("2027-03-28", 23), ("2027-10-31", 25)]


def test_a_day_has_as_many_hours_as_the_clocks_leave_it(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    for day, hours in LENGTHS:
        doctor = clinic.doctor_row(slot_minutes=60)["id"]

        found = asked(clinic, doctor, f"date={day}")

        starts = [datetime.fromisoformat(slot["start"]) for slot in found["slots"]]
        assert len(starts) == len(set(starts)) == hours
        assert {start.date().isoformat() for start in starts} == {day}


def test_hours_over_the_spring_gap_are_as_long_as_they_really_are(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = working_doctor(clinic, [{"weekday": 6, "start": "01:00", "end": "04:00"}], slot_minutes=60)

    found = asked(clinic, doctor, "date=2027-03-28")

    assert [slot["start"] for slot in found["slots"]] == [
        "2027-03-28T01:00:00+01:00",
        "2027-03-28T03:00:00+02:00",
    ]


def test_hours_that_the_clocks_skip_are_none(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = working_doctor(clinic, [{"weekday": 6, "start": "02:30", "end": "03:00"}])

    shown = clinic.admin.get(
        f"/doctors/{doctor}/schedule?start_date=2027-03-28&end_date=2027-04-04"
    ).get_json()

    assert asked(clinic, doctor, "date=2027-03-28")["reason"] == "no_hours"
    assert [day["working"] for day in shown["days"]] == [False] * 7 + [True]


# --- Cost ----------------------------------------------------------------------------------------------


def test_the_next_free_time_of_many_doctors_costs_no_more_queries_than_that_of_one(clinic: Clinic) -> None:
    for _ in range(3):
        working_doctor(clinic)

    one, three = (queries.count(clinic, clinic.admin, f"/doctors?per_page={rows}") for rows in (1, 3))

    assert three == one
