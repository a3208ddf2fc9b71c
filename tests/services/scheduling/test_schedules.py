"""A doctor's weekly hours and time off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from models import Appointment, AuditLog
from tests.support import booking
from tests.support.booking import MONDAY
from tests.support.clinic import Clinic

monday_morning = booking.monday_morning
MORNING = {"weekday": 0, "start": "09:00", "end": "13:00"}
AFTERNOON = {"weekday": 0, "start": "14:00", "end": "18:00"}


# --- Weekly hours --------------------------------------------------------------------------------------


def test_the_weekly_hours_are_set_and_shown_in_order(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]

    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [AFTERNOON, MORNING]})

    assert answer.status_code == 200
    assert answer.get_json()["windows"] == [MORNING, AFTERNOON]
    assert clinic.technician.get(f"/doctors/{doctor}/schedule").get_json()["windows"] == [MORNING, AFTERNOON]


def test_new_hours_replace_the_old_ones_as_a_whole(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING, AFTERNOON]})

    longer = MORNING | {"end": "14:00"}
    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [longer]})

    assert answer.get_json()["windows"] == [longer]
    empty = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": []})
    assert empty.get_json()["windows"] == []


def test_what_a_schedule_shows_may_be_sent_back_whole(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    shown = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING]}).get_json()

    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", shown | {"windows": [AFTERNOON]})

    assert (answer.status_code, answer.get_json()["windows"]) == (200, [AFTERNOON])


NO_HOURS: list[Any] = [
    [MORNING, {"weekday": 0, "start": "12:59", "end": "13:30"}],
    [MORNING, {"weekday": 0, "start": "10:00", "end": "11:00"}],
    [MORNING, {"weekday": 0, "start": "09:00", "end": "14:00"}],
    [{"weekday": 0, "start": "13:00", "end": "09:00"}],
    [{"weekday": 0, "start": "09:00", "end": "09:00"}],
    [{"weekday": 7, "start": "09:00", "end": "13:00"}],
    [{"weekday": 0, "start": "9 am", "end": "13:00"}],
    [{"weekday": 0, "start": "09:00", "end": "25:00"}],
    [{"weekday": 0, "start": "09:00"}],
    None,
]


def test_hours_that_overlap_or_are_no_hours_are_422(clinic: Clinic) -> None:
    for windows in NO_HOURS:
        doctor = clinic.doctor_row()["id"]

        answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": windows})

        assert answer.status_code == 422, windows
        assert any(field.startswith("windows") for field in answer.get_json()["errors"])
        assert clinic.admin.get(f"/doctors/{doctor}/schedule").get_json()["windows"] == []


def test_hours_that_touch_are_one_stretch(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    touching = {"weekday": 0, "start": "13:00", "end": "15:00"}
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING, touching]})

    row = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T12:30", duration=60)

    assert row["end"] == "2027-03-01T13:30:00+00:00"


def test_a_night_shift_goes_over_midnight(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    night = [
        {"weekday": 0, "start": "22:00", "end": "24:00"},
        {"weekday": 1, "start": "00:00", "end": "06:00"},
    ]
    answer = clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": night})

    assert answer.get_json()["windows"] == night
    row = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T23:45", duration=30)
    assert row["end"] == "2027-03-02T00:15:00+00:00"


def test_a_doctor_sets_the_own_hours_only(clinic: Clinic) -> None:
    other = clinic.doctor_row()["id"]

    own = clinic.doctor.put(f"/doctors/{clinic.doctor.doctor_id}/schedule", {"windows": [MORNING]})
    foreign = clinic.doctor.put(f"/doctors/{other}/schedule", {"windows": [MORNING]})

    assert (own.status_code, foreign.status_code) == (200, 403)


def test_new_hours_leave_one_entry_in_the_audit(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.admin.put(f"/doctors/{doctor}/schedule", {"windows": [MORNING, AFTERNOON]})

    with clinic.inside() as session:
        entries = session.scalars(
            select(AuditLog).where(AuditLog.operation == "PUT /doctors/<int:doctor_id>/schedule")
        ).all()
        told = [(entry.action, entry.entity, entry.entity_id, entry.fields) for entry in entries]

    assert ("update", "doctor", doctor, ["schedule_windows"]) in told


# --- A stretch of days ---------------------------------------------------------------------------------


def test_a_schedule_shows_the_days_and_what_fills_them(clinic: Clinic) -> None:
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


def test_a_schedule_spans_at_most_62_days(clinic: Clinic) -> None:
    path = f"/doctors/{clinic.doctor_row()['id']}/schedule"

    longest = clinic.admin.get(f"{path}?start_date=2027-07-01&end_date=2027-08-31")
    too_long = clinic.admin.get(f"{path}?start_date=2027-07-01&end_date=2027-09-02")
    backwards = clinic.admin.get(f"{path}?start_date=2027-07-02&end_date=2027-07-01")

    assert (longest.status_code, len(longest.get_json()["days"])) == (200, 62)
    assert (too_long.status_code, backwards.status_code) == (422, 422)


def test_a_schedule_that_shows_patients_is_a_read_of_their_records(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    booked = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")

    clinic.receptionist.get(f"/doctors/{doctor}/schedule")

    with clinic.inside() as session:
        entry = session.scalars(
            select(AuditLog).where(AuditLog.operation == "GET /doctors/<int:doctor_id>/schedule")
        ).one()
        assert (entry.action, entry.entity, entry.entity_ids) == ("list", "appointment", [booked["id"]])
        assert entry.patient_ids == [booked["patient_id"]]


# --- Time off ------------------------------------------------------------------------------------------


def test_time_off_in_days_includes_the_last(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]

    row = clinic.admin.make(
        f"/doctors/{doctor}/time-off", start="2027-08-02", end="2027-08-13", reason="Leave"
    )

    assert (row["start"], row["end"]) == ("2027-08-02T00:00:00+00:00", "2027-08-14T00:00:00+00:00")
    assert (row["doctor_id"], row["reason"]) == (doctor, "Leave")
    assert clinic.admin.get(f"/doctors/{doctor}/time-off/{row['id']}").get_json() == row


def test_time_off_in_days_is_the_clinics_days(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = clinic.doctor_row()["id"]

    row = clinic.admin.make(f"/doctors/{doctor}/time-off", start="2027-03-28", end="2027-03-28")

    assert (row["start"], row["end"]) == ("2027-03-28T00:00:00+01:00", "2027-03-29T00:00:00+02:00")


def test_time_off_keeps_bookings_away_until_it_is_taken_back(clinic: Clinic) -> None:
    doctor, patient = clinic.doctor_row()["id"], clinic.patient()["id"]
    off = clinic.admin.make(f"/doctors/{doctor}/time-off", start=f"{MONDAY}T12:00", end=f"{MONDAY}T14:00")
    wish = {"patient_id": patient, "doctor_id": doctor, "date": f"{MONDAY}T11:45"}

    refused = clinic.admin.post("/appointments", wish)
    taken_back = clinic.admin.delete(f"/doctors/{doctor}/time-off/{off['id']}")

    assert [conflict["code"] for conflict in refused.get_json()["conflicts"]] == ["time_off"]
    assert (taken_back.status_code, taken_back.get_json()) == (200, off)
    assert clinic.admin.get(f"/doctors/{doctor}/time-off").get_json() == []
    assert clinic.admin.post("/appointments", wish).status_code == 201


def test_time_off_is_listed_per_doctor(clinic: Clinic) -> None:
    doctor, other = clinic.doctor_row()["id"], clinic.doctor_row()["id"]
    march = clinic.admin.make(f"/doctors/{doctor}/time-off", start="2027-03-10", end="2027-03-11")
    clinic.admin.make(f"/doctors/{doctor}/time-off", start="2027-08-02", end="2027-08-13")
    clinic.admin.make(f"/doctors/{other}/time-off", start="2027-03-10", end="2027-03-11")

    answer = clinic.technician.get(f"/doctors/{doctor}/time-off?end_date=2027-04-01")

    assert answer.get_json() == [march]
    assert answer.headers["X-Total-Count"] == "1"
    assert clinic.admin.get(f"/doctors/{other}/time-off/{march['id']}").status_code == 404
    assert clinic.admin.delete(f"/doctors/{other}/time-off/{march['id']}").status_code == 404


NO_STRETCH: list[Any] = [
    ({"start": "2027-08-13", "end": "2027-08-02"}, "end"),
    ({"start": f"{MONDAY}T12:00", "end": f"{MONDAY}T12:00"}, "end"),
    ({"start": "2027-08-13"}, "end"),
    ({"start": "next week", "end": "2027-08-13"}, "start"),
    ({"start": "2027-08-02", "end": "2027-08-13", "on_conflict": "ignore"}, "on_conflict"),
    ({"start": "2027-08-02", "end": "2027-08-13", "paid": True}, "paid"),
]


def test_time_off_that_is_no_stretch_is_422(clinic: Clinic) -> None:
    for body, field in NO_STRETCH:
        doctor = clinic.doctor_row()["id"]

        answer = clinic.admin.post(f"/doctors/{doctor}/time-off", body)

        assert answer.status_code == 422, body
        assert any(name.startswith(field) for name in answer.get_json()["errors"])


def test_a_doctor_takes_the_own_time_off_only(clinic: Clinic) -> None:
    other = clinic.doctor_row()["id"]
    stretch = {"start": "2027-08-02", "end": "2027-08-13"}

    own = clinic.doctor.post(f"/doctors/{clinic.doctor.doctor_id}/time-off", stretch)
    foreign = clinic.doctor.post(f"/doctors/{other}/time-off", stretch)

    assert (own.status_code, foreign.status_code) == (201, 403)
    assert clinic.receptionist.post(f"/doctors/{other}/time-off", stretch).status_code == 403
    row = clinic.admin.make(f"/doctors/{other}/time-off", **stretch)
    assert clinic.doctor.delete(f"/doctors/{other}/time-off/{row['id']}").status_code == 403


# --- Time off over booked appointments -----------------------------------------------------------------


def statuses(clinic: Clinic, *rows: dict[str, Any]) -> list[str]:
    return [clinic.admin.get(f"/appointments/{row['id']}").get_json()["status"] for row in rows]


def test_time_off_over_booked_appointments_is_refused_and_lists_them(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")
    inside = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")

    answer = clinic.admin.post(f"/doctors/{doctor}/time-off", {"start": "2027-03-02", "end": "2027-03-02"})

    problem = answer.get_json()
    assert (answer.status_code, problem["error"]) == (409, "booked_appointments")
    assert problem["appointments"] == [
        {name: inside[name] for name in ("id", "patient_id", "patient_name", "start", "end")}
    ]
    assert clinic.admin.get(f"/doctors/{doctor}/time-off").get_json() == []


def test_time_off_may_cancel_what_is_booked(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    before = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")
    inside = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")

    clinic.admin.make(
        f"/doctors/{doctor}/time-off", start="2027-03-02", end="2027-03-02", on_conflict="cancel"
    )

    assert statuses(clinic, before, inside) == ["scheduled", "cancelled"]
    row = clinic.admin.get(f"/appointments/{inside['id']}").get_json()
    assert (row["cancelled_by"], row["cancellation_reason"]) == ("clinic", "The doctor has time off.")


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_time_off_may_hand_over_what_is_booked(clinic: Clinic, form: str) -> None:
    doctor, other = clinic.doctor_row()["id"], clinic.doctor_row(buffer_minutes=15)["id"]
    inside = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    way: dict[str, Any] = {"reassign_to": other}

    clinic.admin.make(
        f"/doctors/{doctor}/time-off",
        start="2027-03-02",
        end="2027-03-02",
        **({"on_conflict": way} if form == "nested" else way),
    )

    row = clinic.admin.get(f"/appointments/{inside['id']}").get_json()
    assert (row["doctor_id"], row["status"], row["start"]) == (other, "scheduled", inside["start"])
    with clinic.inside() as session:
        blocked = session.get(Appointment, inside["id"]).blocked_until
    assert blocked == datetime(2027, 3, 2, 9, 45, tzinfo=UTC)


def test_one_appointment_that_the_other_doctor_cannot_take_refuses_all(clinic: Clinic) -> None:
    doctor, other = clinic.doctor_row()["id"], clinic.doctor_row()["id"]
    free = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    clashing = clinic.appointment(doctor_id=doctor, date="2027-03-02T11:00")
    clinic.appointment(doctor_id=other, date="2027-03-02T11:15")

    answer = clinic.admin.post(
        f"/doctors/{doctor}/time-off",
        {"start": "2027-03-02", "end": "2027-03-02", "on_conflict": {"reassign_to": other}},
    )

    problem = answer.get_json()
    assert (answer.status_code, problem["error"]) == (409, "appointment_conflict")
    assert [(c["appointment_id"], c["code"]) for c in problem["conflicts"]] == [
        (clashing["id"], "doctor_busy")
    ]
    rows = [clinic.admin.get(f"/appointments/{row['id']}").get_json() for row in (free, clashing)]
    assert [row["doctor_id"] for row in rows] == [doctor, doctor]
    assert clinic.admin.get(f"/doctors/{doctor}/time-off").get_json() == []


def test_a_doctor_cannot_fill_anothers_calendar_by_time_off(clinic: Clinic) -> None:
    doctor, other = clinic.doctor.doctor_id, clinic.doctor_row()["id"]
    booked = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    stretch = {"start": "2027-03-02", "end": "2027-03-02"}

    handed = clinic.doctor.post(f"/doctors/{doctor}/time-off", stretch | {"reassign_to": other})
    cancelled = clinic.doctor.post(f"/doctors/{doctor}/time-off", stretch | {"on_conflict": "cancel"})

    assert (handed.status_code, cancelled.status_code) == (403, 201)
    assert statuses(clinic, booked) == ["cancelled"]


@pytest.mark.parametrize("target", ["itself", "nobody", "both ways"])
def test_a_handover_needs_another_doctor(clinic: Clinic, target: str) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    way: dict[str, Any] = {"reassign_to": doctor if target == "itself" else 987}
    if target == "both ways":
        way["on_conflict"] = "cancel"

    answer = clinic.admin.post(
        f"/doctors/{doctor}/time-off", {"start": "2027-03-02", "end": "2027-03-02"} | way
    )

    assert answer.status_code == 422
    assert "reassign_to" in answer.get_json()["errors"]
