"""Time off of doctors, and the booked appointments that it affects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from models import Appointment
from tests.support import booking
from tests.support.booking import MONDAY
from tests.support.clinic import Clinic

monday_morning = booking.monday_morning


def test_time_off_in_days_includes_the_last_day(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]

    row = clinic.admin.make(
        f"/doctors/{doctor}/time-off", start="2027-08-02", end="2027-08-13", reason="Leave"
    )

    assert (row["start"], row["end"]) == ("2027-08-02T00:00:00+00:00", "2027-08-14T00:00:00+00:00")
    assert (row["doctor_id"], row["reason"]) == (doctor, "Leave")
    assert clinic.admin.get(f"/doctors/{doctor}/time-off/{row['id']}").get_json() == row


def test_days_of_time_off_are_in_the_time_zone_of_the_clinic(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")
    doctor = clinic.doctor_row()["id"]

    row = clinic.admin.make(f"/doctors/{doctor}/time-off", start="2027-03-28", end="2027-03-28")

    assert (row["start"], row["end"]) == ("2027-03-28T00:00:00+01:00", "2027-03-29T00:00:00+02:00")


def test_time_off_refuses_bookings_until_it_is_deleted(clinic: Clinic) -> None:
    doctor, patient = clinic.doctor_row()["id"], clinic.patient()["id"]
    time_off = clinic.admin.make(
        f"/doctors/{doctor}/time-off", start=f"{MONDAY}T12:00", end=f"{MONDAY}T14:00"
    )
    body = {"patient_id": patient, "doctor_id": doctor, "date": f"{MONDAY}T11:45"}

    refused = clinic.admin.post("/appointments", body)
    deleted = clinic.admin.delete(f"/doctors/{doctor}/time-off/{time_off['id']}")

    assert [conflict["code"] for conflict in refused.get_json()["conflicts"]] == ["time_off"]
    assert (deleted.status_code, deleted.get_json()) == (200, time_off)
    assert clinic.admin.get(f"/doctors/{doctor}/time-off").get_json() == []
    assert clinic.admin.post("/appointments", body).status_code == 201


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


INVALID_TIME_OFF: list[Any] = [
    ({"start": "2027-08-13", "end": "2027-08-02"}, "end"),
    ({"start": f"{MONDAY}T12:00", "end": f"{MONDAY}T12:00"}, "end"),
    ({"start": "2027-08-13"}, "end"),
    ({"start": "next week", "end": "2027-08-13"}, "start"),
    ({"start": "2027-08-02", "end": "2027-08-13", "on_conflict": "ignore"}, "on_conflict"),
    ({"start": "2027-08-02", "end": "2027-08-13", "paid": True}, "paid"),
]


def test_an_invalid_time_off_is_422(clinic: Clinic) -> None:
    for body, field in INVALID_TIME_OFF:
        doctor = clinic.doctor_row()["id"]

        answer = clinic.admin.post(f"/doctors/{doctor}/time-off", body)

        assert answer.status_code == 422, body
        assert any(name.startswith(field) for name in answer.get_json()["errors"])


def test_a_doctor_may_take_own_time_off_only(clinic: Clinic) -> None:
    other = clinic.doctor_row()["id"]
    period = {"start": "2027-08-02", "end": "2027-08-13"}

    own = clinic.doctor.post(f"/doctors/{clinic.doctor.doctor_id}/time-off", period)
    foreign = clinic.doctor.post(f"/doctors/{other}/time-off", period)

    assert (own.status_code, foreign.status_code) == (201, 403)
    assert clinic.receptionist.post(f"/doctors/{other}/time-off", period).status_code == 403
    row = clinic.admin.make(f"/doctors/{other}/time-off", **period)
    assert clinic.doctor.delete(f"/doctors/{other}/time-off/{row['id']}").status_code == 403


# --- Booked appointments in the time off ----------------------------------------------------------------


def statuses(clinic: Clinic, *rows: dict[str, Any]) -> list[str]:
    return [clinic.admin.get(f"/appointments/{row['id']}").get_json()["status"] for row in rows]


def test_time_off_with_booked_appointments_is_refused_and_lists_them(clinic: Clinic) -> None:
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


def test_time_off_can_cancel_booked_appointments(clinic: Clinic) -> None:
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
def test_time_off_can_reassign_booked_appointments(clinic: Clinic, form: str) -> None:
    doctor, other = clinic.doctor_row()["id"], clinic.doctor_row(buffer_minutes=15)["id"]
    inside = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    choice: dict[str, Any] = {"reassign_to": other}

    clinic.admin.make(
        f"/doctors/{doctor}/time-off",
        start="2027-03-02",
        end="2027-03-02",
        **({"on_conflict": choice} if form == "nested" else choice),
    )

    row = clinic.admin.get(f"/appointments/{inside['id']}").get_json()
    assert (row["doctor_id"], row["status"], row["start"]) == (other, "scheduled", inside["start"])
    with clinic.inside() as session:
        blocked = session.get(Appointment, inside["id"]).blocked_until
    assert blocked == datetime(2027, 3, 2, 9, 45, tzinfo=UTC)


def test_one_conflict_of_the_other_doctor_refuses_all_reassignments(clinic: Clinic) -> None:
    doctor, other = clinic.doctor_row()["id"], clinic.doctor_row()["id"]
    free = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    conflicting = clinic.appointment(doctor_id=doctor, date="2027-03-02T11:00")
    clinic.appointment(doctor_id=other, date="2027-03-02T11:15")

    answer = clinic.admin.post(
        f"/doctors/{doctor}/time-off",
        {"start": "2027-03-02", "end": "2027-03-02", "on_conflict": {"reassign_to": other}},
    )

    problem = answer.get_json()
    assert (answer.status_code, problem["error"]) == (409, "appointment_conflict")
    assert [(c["appointment_id"], c["code"]) for c in problem["conflicts"]] == [
        (conflicting["id"], "doctor_busy")
    ]
    rows = [clinic.admin.get(f"/appointments/{row['id']}").get_json() for row in (free, conflicting)]
    assert [row["doctor_id"] for row in rows] == [doctor, doctor]
    assert clinic.admin.get(f"/doctors/{doctor}/time-off").get_json() == []


def test_a_doctor_may_not_reassign_appointments_to_another_doctor(clinic: Clinic) -> None:
    doctor, other = clinic.doctor.doctor_id, clinic.doctor_row()["id"]
    booked = clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    period = {"start": "2027-03-02", "end": "2027-03-02"}

    reassigned = clinic.doctor.post(f"/doctors/{doctor}/time-off", period | {"reassign_to": other})
    cancelled = clinic.doctor.post(f"/doctors/{doctor}/time-off", period | {"on_conflict": "cancel"})

    assert (reassigned.status_code, cancelled.status_code) == (403, 201)
    assert statuses(clinic, booked) == ["cancelled"]


@pytest.mark.parametrize("target", ["same doctor", "unknown doctor", "both choices"])
def test_a_reassignment_needs_another_existing_doctor(clinic: Clinic, target: str) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.appointment(doctor_id=doctor, date="2027-03-02T09:00")
    choice: dict[str, Any] = {"reassign_to": doctor if target == "same doctor" else 987}
    if target == "both choices":
        choice["on_conflict"] = "cancel"

    answer = clinic.admin.post(
        f"/doctors/{doctor}/time-off", {"start": "2027-03-02", "end": "2027-03-02"} | choice
    )

    assert answer.status_code == 422
    assert "reassign_to" in answer.get_json()["errors"]
