"""Availability of doctors: slots, reasons, and days on which daylight saving time changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import time_machine

from tests.support import booking, queries
from tests.support.booking import MONDAY
from tests.support.clinic import Clinic

monday_morning = booking.monday_morning
WEEKDAY_MORNINGS = [{"weekday": day, "start": "09:00", "end": "12:00"} for day in range(5)]


def working_doctor(clinic: Clinic, windows: Any = WEEKDAY_MORNINGS, **members: Any) -> int:
    row = clinic.doctor_row(**members)
    answer = clinic.admin.put(f"/doctors/{row['id']}/schedule", {"windows": windows})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return int(row["id"])


def get_availability(clinic: Clinic, doctor_id: int, query: str = f"date={MONDAY}") -> dict[str, Any]:
    answer = clinic.technician.get(f"/doctors/{doctor_id}/availability?{query}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    availability: dict[str, Any] = answer.get_json()
    return availability


def start_times(availability: dict[str, Any]) -> list[str]:
    """Return the starts of the slots as local times."""
    return [slot["start"][11:16] for slot in availability["slots"]]


def test_a_day_has_the_slots_of_its_working_hours(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    availability = get_availability(clinic, doctor)

    assert availability["available"] is True
    assert start_times(availability) == ["09:00", "09:30", "10:00", "10:30", "11:00", "11:30"]
    assert availability["slots"][0] == {
        "start": "2027-03-01T09:00:00+00:00",
        "end": "2027-03-01T09:30:00+00:00",
    }
    assert availability["next_available"] == "2027-03-01T09:00:00+00:00"
    assert availability["reason"] is None
    assert availability["days"] == [{"date": MONDAY, "available": True, "reason": None}]


def test_appointments_and_their_buffers_are_not_available(clinic: Clinic) -> None:
    doctor = working_doctor(clinic, buffer_minutes=10)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T10:00")

    availability = get_availability(clinic, doctor)

    # the buffer after 09:30 would end at 10:10; the buffer after 10:00 ends at 10:40
    assert start_times(availability) == ["09:00", "11:00", "11:30"]


def test_exactly_the_available_slots_can_be_booked(clinic: Clinic) -> None:
    doctor = working_doctor(clinic, buffer_minutes=10)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T10:00")
    patient = clinic.patient()["id"]

    def possible(time: str) -> bool:
        body = {"patient_id": patient, "doctor_id": doctor, "date": f"{MONDAY}T{time}"}
        answer = clinic.receptionist.post("/appointments?dry_run=true", body)
        return bool(answer.get_json()["possible"])

    grid = [f"{hour:02}:{minute}" for hour in (8, 9, 10, 11, 12) for minute in ("00", "30")]
    assert [time for time in grid if possible(time)] == start_times(get_availability(clinic, doctor))


def test_past_times_are_not_available(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    with time_machine.travel(datetime(2027, 3, 1, 10, 10, tzinfo=UTC)):
        assert start_times(get_availability(clinic, doctor)) == ["10:30", "11:00", "11:30"]
        past = get_availability(clinic, doctor, "date=2027-02-26")

    assert (past["slots"], past["reason"]) == ([], "no_hours")
    assert past["next_available"] == "2027-03-01T10:30:00+00:00"


def test_a_longer_appointment_needs_a_longer_gap(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    availability = get_availability(clinic, doctor, f"date={MONDAY}&duration=120")

    assert start_times(availability) == ["09:00", "09:30", "10:00"]
    assert availability["slots"][0]["end"] == "2027-03-01T11:00:00+00:00"


def test_a_gap_between_regular_starts_has_a_slot_at_its_beginning(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00", duration=75)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T11:05", duration=55)

    availability = get_availability(clinic, doctor, f"date={MONDAY}&duration=45")

    assert start_times(availability) == ["10:15"]


def test_a_day_without_hours_has_the_reason_no_hours_and_the_next_slot(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    availability = get_availability(clinic, doctor, "date=2027-03-06")

    assert (availability["available"], availability["slots"], availability["reason"]) == (
        False,
        [],
        "no_hours",
    )
    assert availability["next_available"] == "2027-03-08T09:00:00+00:00"


def test_a_day_off_has_the_reason_time_off(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=MONDAY, end=MONDAY)

    availability = get_availability(clinic, doctor)

    assert (availability["available"], availability["reason"]) == (False, "time_off")
    assert availability["next_available"] == "2027-03-02T09:00:00+00:00"


def test_half_a_day_off_leaves_the_other_half_available(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=f"{MONDAY}T09:00", end=f"{MONDAY}T10:45")

    assert start_times(get_availability(clinic, doctor)) == ["11:00", "11:30"]


def test_a_full_day_has_the_reason_full(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00", duration=180)

    availability = get_availability(clinic, doctor)

    assert (availability["available"], availability["reason"]) == (False, "full")


def test_a_day_with_short_gaps_has_the_reason_no_gap_long_enough(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:20", duration=140)

    availability = get_availability(clinic, doctor)

    assert (availability["available"], availability["reason"]) == (False, "no_gap_long_enough")


def test_a_licence_is_valid_through_its_last_day(clinic: Clinic) -> None:
    doctor = working_doctor(clinic, license_expires_on="2027-03-02")

    availability = get_availability(clinic, doctor, "start_date=2027-03-02&end_date=2027-03-03")

    assert [day["reason"] for day in availability["days"]] == [None, "license_expired"]
    expired = get_availability(clinic, doctor, "date=2027-03-03")
    assert (expired["reason"], expired["next_available"]) == ("license_expired", None)


def test_a_deactivated_doctor_is_not_available(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    clinic.admin.delete(f"/doctors/{doctor}")

    availability = get_availability(clinic, doctor)

    assert (availability["slots"], availability["reason"], availability["next_available"]) == (
        [],
        "inactive",
        None,
    )


def test_a_doctor_without_windows_is_available_at_all_hours(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]

    availability = get_availability(clinic, doctor, "date=2027-03-06")

    assert len(availability["slots"]) == 48
    assert (start_times(availability)[0], start_times(availability)[-1]) == ("00:00", "23:30")


def test_cancelled_and_missed_appointments_do_not_block_their_time(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)
    cancelled = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")
    missed = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T11:00", duration=60)
    clinic.admin.delete(f"/appointments/{cancelled['id']}")

    assert start_times(get_availability(clinic, doctor)) == ["09:00", "09:30", "10:00", "10:30"]

    with time_machine.travel(datetime(2027, 3, 1, 11, 10, tzinfo=UTC)):
        clinic.sign_in("admin").patch(f"/appointments/{missed['id']}", {"status": "no_show"})
        availability = clinic.sign_in("technician").get(f"/doctors/{doctor}/availability?date={MONDAY}")

    assert start_times(availability.get_json()) == ["11:30"]


def test_without_dates_the_availability_covers_a_week(clinic: Clinic) -> None:
    doctor = working_doctor(clinic)

    days = get_availability(clinic, doctor, "")["days"]

    assert [days[0]["date"], days[-1]["date"], len(days)] == [MONDAY, "2027-03-08", 8]


INVALID_QUERIES: list[Any] = [
    ("date=2027-03-01&start_date=2027-03-01", "date"),
    ("start_date=2027-03-02&end_date=2027-03-01", "end_date"),
    ("start_date=2027-03-01&end_date=2027-05-03", "end_date"),
    ("date=tomorrow", "date"),
    ("date=2027-03-01&duration=4", "duration"),
    ("date=2027-03-01&duration=481", "duration"),
    ("day=2027-03-01", "day"),
]


def test_an_invalid_query_is_422(clinic: Clinic) -> None:
    for query, field in INVALID_QUERIES:
        doctor = clinic.doctor_row()["id"]

        answer = clinic.admin.get(f"/doctors/{doctor}/availability?{query}")

        assert answer.status_code == 422, query
        assert field in answer.get_json()["errors"]


def test_the_availability_of_an_unknown_doctor_is_404(clinic: Clinic) -> None:
    assert clinic.admin.get("/doctors/987/availability").status_code == 404


# --- Daylight saving time ------------------------------------------------------------------------------


def test_working_hours_keep_the_wall_clock_time_when_summer_time_begins(
    make_clinic: Callable[..., Clinic],
) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = working_doctor(clinic, [{"weekday": day, "start": "09:00", "end": "10:00"} for day in (5, 6)])

    availability = get_availability(clinic, doctor, "start_date=2027-03-27&end_date=2027-03-28")

    assert [slot["start"] for slot in availability["slots"]] == [
        "2027-03-27T09:00:00+01:00",
        "2027-03-27T09:30:00+01:00",
        "2027-03-28T09:00:00+02:00",
        "2027-03-28T09:30:00+02:00",
    ]


LENGTHS: list[Any] = [("2027-03-27", 24), ("2027-03-28", 23), ("2027-10-31", 25)]


def test_a_day_with_a_clock_change_has_23_or_25_hours(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    for day, hours in LENGTHS:
        doctor = clinic.doctor_row(slot_minutes=60)["id"]

        availability = get_availability(clinic, doctor, f"date={day}")

        starts = [datetime.fromisoformat(slot["start"]) for slot in availability["slots"]]
        assert len(starts) == len(set(starts)) == hours
        assert {start.date().isoformat() for start in starts} == {day}


def test_working_hours_over_the_spring_change_are_one_hour_shorter(
    make_clinic: Callable[..., Clinic],
) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = working_doctor(clinic, [{"weekday": 6, "start": "01:00", "end": "04:00"}], slot_minutes=60)

    availability = get_availability(clinic, doctor, "date=2027-03-28")

    assert [slot["start"] for slot in availability["slots"]] == [
        "2027-03-28T01:00:00+01:00",
        "2027-03-28T03:00:00+02:00",
    ]


def test_working_hours_in_the_skipped_hour_do_not_exist(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = working_doctor(clinic, [{"weekday": 6, "start": "02:30", "end": "03:00"}])

    shown = clinic.admin.get(
        f"/doctors/{doctor}/schedule?start_date=2027-03-28&end_date=2027-04-04"
    ).get_json()

    assert get_availability(clinic, doctor, "date=2027-03-28")["reason"] == "no_hours"
    assert [day["working"] for day in shown["days"]] == [False] * 7 + [True]


# --- Number of queries ---------------------------------------------------------------------------------


def test_the_number_of_queries_does_not_depend_on_the_number_of_doctors(clinic: Clinic) -> None:
    for _ in range(3):
        working_doctor(clinic)

    count_of_1, count_of_3 = (
        queries.count(clinic, clinic.admin, f"/doctors?per_page={rows}") for rows in (1, 3)
    )

    assert count_of_3 == count_of_1
