"""A doctor's weekly hours, and the schedule of a date range."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models import AuditLog
from tests.support import booking
from tests.support.booking import MONDAY
from tests.support.clinic import Clinic

monday_morning = booking.monday_morning
MORNING = {"weekday": 0, "start": "09:00", "end": "13:00"}
AFTERNOON = {"weekday": 0, "start": "14:00", "end": "18:00"}
NIGHT = {"weekday": 0, "start": "22:00", "end": "06:00"}


# --- Weekly hours --------------------------------------------------------------------------------------


def test_the_weekly_hours_are_set_and_shown_in_order(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]

    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [AFTERNOON, MORNING]})

    assert answer.status_code == 200
    assert answer.get_json()["windows"] == [MORNING, AFTERNOON]
    assert clinic.technician.get(f"/doctors/{doctor}/schedule").get_json()["windows"] == [MORNING, AFTERNOON]


def test_new_hours_replace_all_old_hours(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING, AFTERNOON]})

    longer = MORNING | {"end": "14:00"}
    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [longer]})

    assert answer.get_json()["windows"] == [longer]
    empty = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": []})
    assert empty.get_json()["windows"] == []


def test_a_put_of_the_whole_schedule_is_accepted(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    shown = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING]}).get_json()

    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", shown | {"windows": [AFTERNOON]})

    assert (answer.status_code, answer.get_json()["windows"]) == (200, [AFTERNOON])


def test_outdated_hours_do_not_replace_newer_ones(clinic: Clinic) -> None:
    path = f"/doctors/{clinic.doctor_row()['id']}/schedule"
    tag = clinic.admin.get(path).headers["ETag"]

    first = clinic.admin.put(path, {"windows": [MORNING]}, headers={"If-Match": tag})
    stale = clinic.admin.put(path, {"windows": [AFTERNOON]}, headers={"If-Match": tag})
    same = clinic.admin.put(path, {"windows": [MORNING]})
    fresh = clinic.admin.put(
        path, {"windows": [MORNING, AFTERNOON]}, headers={"If-Match": first.headers["ETag"]}
    )

    assert [answer.status_code for answer in (first, stale, same, fresh)] == [200, 412, 200, 200]
    assert clinic.admin.get(path).get_json()["windows"] == [MORNING, AFTERNOON]
    assert clinic.admin.get(path).headers["ETag"] == fresh.headers["ETag"] != tag


INVALID_WINDOWS: list[Any] = [
    [MORNING, {"weekday": 0, "start": "12:59", "end": "13:30"}],
    [MORNING, {"weekday": 0, "start": "10:00", "end": "11:00"}],
    [MORNING, {"weekday": 0, "start": "09:00", "end": "14:00"}],
    [{"weekday": 0, "start": "09:00", "end": "09:00"}],
    [{"weekday": 0, "start": "00:00", "end": "00:00"}],
    [{"weekday": 0, "start": "24:00", "end": "06:00"}],
    [NIGHT, {"weekday": 1, "start": "05:59", "end": "09:00"}],
    [NIGHT, {"weekday": 0, "start": "23:00", "end": "24:00"}],
    [NIGHT, {"weekday": 1, "start": "00:00", "end": "01:00"}],
    [NIGHT, NIGHT | {"start": "21:00", "end": "23:00"}],
    [NIGHT | {"weekday": 6}, {"weekday": 0, "start": "00:00", "end": "01:00"}],
    [NIGHT | {"weekday": 6}, {"weekday": 0, "start": "05:00", "end": "04:00"}],
    [{"weekday": 7, "start": "09:00", "end": "13:00"}],
    [{"weekday": 0, "start": "9 am", "end": "13:00"}],
    [{"weekday": 0, "start": "09:00", "end": "25:00"}],
    [{"weekday": 0, "start": "09:00"}],
    None,
]


def test_overlapping_and_invalid_hours_are_422(clinic: Clinic) -> None:
    for windows in INVALID_WINDOWS:
        doctor = clinic.doctor_row()["id"]

        answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": windows})

        assert answer.status_code == 422, windows
        assert any(field.startswith("windows") for field in answer.get_json()["errors"])
        assert clinic.admin.get(f"/doctors/{doctor}/schedule").get_json()["windows"] == []


def test_an_appointment_may_span_touching_windows(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    touching = {"weekday": 0, "start": "13:00", "end": "15:00"}
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING, touching]})

    row = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T12:30", duration=60)

    assert row["end"] == "2027-03-01T13:30:00+00:00"


def test_an_appointment_may_span_a_night_shift_over_midnight(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    night = [
        {"weekday": 0, "start": "22:00", "end": "24:00"},
        {"weekday": 1, "start": "00:00", "end": "06:00"},
    ]
    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": night})

    assert answer.get_json()["windows"] == night
    row = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T23:45", duration=30)
    assert row["end"] == "2027-03-02T00:15:00+00:00"


def test_windows_may_end_on_the_next_day_and_touch(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    sunday = NIGHT | {"weekday": 6}
    windows = [NIGHT, {"weekday": 1, "start": "06:00", "end": "24:00"}, sunday]
    windows += [{"weekday": 2, "start": "20:00", "end": "00:00"}]

    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": windows})

    assert (answer.status_code, answer.get_json()["windows"]) == (200, [*windows[:2], windows[3], sunday])
    for start, status in (
        (f"{MONDAY}T05:30", 409),  # in the past
        (f"{MONDAY}T21:45", 409),
        (f"{MONDAY}T23:45", 201),
        ("2027-03-02T05:30", 201),
        ("2027-03-02T23:30", 201),
        ("2027-03-03T00:00", 409),
        ("2027-03-07T23:00", 201),
        ("2027-03-08T05:30", 201),
        ("2027-03-08T06:00", 409),
    ):
        body = {"doctor_id": doctor, "patient_id": clinic.patient()["id"], "date": start}
        assert clinic.admin.post("/appointments", body).status_code == status, start


def test_a_night_shift_is_working_time_of_both_days(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(slot_minutes=60)["id"]
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [NIGHT]})
    clinic.appointment(doctor_id=doctor, date="2027-03-02T01:00", duration=60)

    shown = clinic.admin.get(f"/doctors/{doctor}/schedule?end_date=2027-03-03").get_json()
    free = clinic.admin.get(f"/doctors/{doctor}/availability?end_date=2027-03-03").get_json()

    assert [day["working"] for day in shown["days"]] == [True, True, False]
    assert [slot["start"][8:16] for slot in free["slots"]] == [
        *("01T22:00", "01T23:00", "02T00:00", "02T02:00", "02T03:00", "02T04:00", "02T05:00")
    ]
    assert [day["reason"] for day in free["days"]] == [None, None, "no_hours"]


@pytest.mark.parametrize(("saturday", "hours"), [("2027-03-27", 7), ("2027-10-30", 9), ("2027-06-05", 8)])
def test_a_night_shift_is_shorter_or_longer_when_the_clocks_change(
    make_clinic: Callable[..., Clinic], saturday: str, hours: int
) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = clinic.doctor_row(slot_minutes=60)["id"]
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [NIGHT | {"weekday": 5}]})
    sunday = (date.fromisoformat(saturday) + timedelta(days=1)).isoformat()

    free = clinic.admin.get(
        f"/doctors/{doctor}/availability?start_date={saturday}&end_date={sunday}"
    ).get_json()

    starts = [datetime.fromisoformat(slot["start"]) for slot in free["slots"]]
    assert len(starts) == len(set(starts)) == hours
    assert starts[0].hour == 22
    assert datetime.fromisoformat(free["slots"][-1]["end"]).hour == 6
    for start in starts:
        body = {"doctor_id": doctor, "patient_id": clinic.patient()["id"], "date": start.isoformat()}
        assert clinic.admin.post("/appointments", body).status_code == 201, start


def test_a_doctor_may_set_own_hours_only(clinic: Clinic) -> None:
    other = clinic.doctor_row()["id"]

    own = clinic.doctor.put(f"/doctors/{clinic.doctor.doctor_id}/schedule", {"windows": [MORNING]})
    foreign = clinic.doctor.put(f"/doctors/{other}/schedule", {"windows": [MORNING]})

    assert (own.status_code, foreign.status_code) == (200, 403)


def test_new_hours_write_an_audit_entry(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING, AFTERNOON]})

    with clinic.inside() as session:
        entries = session.scalars(
            select(AuditLog).where(AuditLog.operation == "PUT /doctors/<int:doctor_id>/schedule")
        ).all()
        changes = [(entry.action, entry.entity, entry.entity_id, entry.fields) for entry in entries]

    assert ("update", "doctor", doctor, ["schedule_windows"]) in changes


# --- Schedule of a date range --------------------------------------------------------------------------


def test_a_schedule_shows_days_appointments_and_time_off(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING, MORNING | {"weekday": 2}]})
    booked = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")
    cancelled = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T10:00")
    clinic.admin.delete(f"/appointments/{cancelled['id']}")
    clinic.admin.make(f"/doctors/{doctor}/time-off", start="2027-03-03", end="2027-03-03", reason="Congress")

    shown = clinic.receptionist.get(f"/doctors/{doctor}/schedule").get_json()

    assert [row["id"] for row in shown["appointments"]] == [booked["id"]]
    assert shown["appointments"][0]["patient_name"] == booked["patient_name"]
    assert shown["appointments"][0]["allowed_transitions"] == ["completed", "cancelled"]
    assert [row["reason"] for row in shown["time_off"]] == ["Congress"]
    assert shown["days"][:3] == [
        {"date": MONDAY, "working": True, "booked": 1},
        {"date": "2027-03-02", "working": False, "booked": 0},
        {"date": "2027-03-03", "working": False, "booked": 0},
    ]
    assert len(shown["days"]) == 8


def test_a_schedule_has_at_most_62_days(clinic: Clinic) -> None:
    path = f"/doctors/{clinic.doctor_row()['id']}/schedule"

    longest = clinic.admin.get(f"{path}?start_date=2027-07-01&end_date=2027-08-31")
    too_long = clinic.admin.get(f"{path}?start_date=2027-07-01&end_date=2027-09-02")
    backwards = clinic.admin.get(f"{path}?start_date=2027-07-02&end_date=2027-07-01")

    assert (longest.status_code, len(longest.get_json()["days"])) == (200, 62)
    assert (too_long.status_code, backwards.status_code) == (422, 422)


def test_a_schedule_is_audited_as_a_read_of_its_appointments(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    booked = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")

    clinic.receptionist.get(f"/doctors/{doctor}/schedule")

    with clinic.inside() as session:
        entry = session.scalars(
            select(AuditLog).where(AuditLog.operation == "GET /doctors/<int:doctor_id>/schedule")
        ).one()
        assert (entry.action, entry.entity, entry.entity_ids) == ("list", "appointment", [booked["id"]])
        assert entry.patient_ids == [booked["patient_id"]]
