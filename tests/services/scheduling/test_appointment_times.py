"""The day of an appointment, and the times of its cancellation and its moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support import booking
from tests.support.booking import MONDAY, NINE, later
from tests.support.clinic import Caller, Clinic

monday_morning = booking.monday_morning


# --- Before the day ------------------------------------------------------------------------------------


def complete_and_check_in(caller: Caller, row: dict[str, Any]) -> list[tuple[int, str | None]]:
    answers = [
        caller.post(f"/appointments/{row['id']}/check-in"),
        caller.patch(f"/appointments/{row['id']}", {"status": "completed"}),
    ]
    return [(answer.status_code, answer.get_json().get("error")) for answer in answers]


def test_an_appointment_is_not_completed_or_checked_in_before_its_day(clinic: Clinic) -> None:
    row = clinic.appointment(date="2027-03-22T09:00")
    evening = clinic.appointment(date=f"{MONDAY}T20:00")

    early = complete_and_check_in(clinic.admin, row)
    with later(days=20, hours=15, minutes=59):
        day_before = complete_and_check_in(clinic.sign_in("admin"), row)
    with later(days=20, hours=16):
        on_its_day = complete_and_check_in(clinic.sign_in("admin"), row)

    assert early == day_before == [(409, "invalid_transition")] * 2
    assert row["allowed_transitions"] == ["cancelled"]
    assert evening["allowed_transitions"] == ["completed", "cancelled"]
    assert complete_and_check_in(clinic.admin, evening) == on_its_day == [(200, None)] * 2


def test_the_day_of_an_appointment_is_in_the_zone_of_the_clinic(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Pacific/Auckland")  # 21:00 on Monday, when UTC has 08:00
    tuesday = clinic.appointment(date="2027-03-02T00:30")  # 11:30 on Monday in UTC
    monday = clinic.appointment(date="2027-03-01T23:30")

    assert complete_and_check_in(clinic.admin, tuesday) == [(409, "invalid_transition")] * 2
    assert complete_and_check_in(clinic.admin, monday) == [(200, None)] * 2


# --- Times ---------------------------------------------------------------------------------------------


def test_a_cancellation_has_its_time(clinic: Clinic) -> None:
    rows = [clinic.appointment(date=f"{MONDAY}T{hour}:00") for hour in (10, 11, 12)]
    cancellation = {"status": "cancelled", "cancelled_by": "patient"}

    with later(minutes=10):
        patched = clinic.admin.patch(f"/appointments/{rows[0]['id']}", cancellation).get_json()
        deleted = clinic.admin.delete(f"/appointments/{rows[1]['id']}").get_json()

    assert rows[0]["cancelled_at"] is None
    assert patched["cancelled_at"][:16] == deleted["cancelled_at"][:16] == f"{MONDAY}T08:10"
    found = clinic.admin.get(f"/appointments?cancelled_at_gte={MONDAY}T08:05&cancelled_by=patient").get_json()
    assert [row["id"] for row in found] == [rows[0]["id"]]


def test_a_move_is_counted_and_has_its_time(clinic: Clinic) -> None:
    row, other = (
        clinic.appointment(date=NINE),
        clinic.appointment(date=NINE, doctor_id=clinic.doctor_row()["id"]),
    )
    path = f"/appointments/{row['id']}"

    longer = clinic.admin.patch(path, {"duration": 45, "notes": "bring X-rays"}).get_json()
    tried = clinic.admin.patch(f"{path}?dry_run=true", {"date": f"{MONDAY}T10:00"})
    with later(minutes=5):
        clinic.admin.patch(path, {"date": f"{MONDAY}T10:00"})
    with later(minutes=10):
        moved = clinic.admin.patch(path, {"start": f"{MONDAY}T11:00"}).get_json()

    assert tried.status_code == 200
    assert (longer["reschedule_count"], longer["rescheduled_at"]) == (0, None)
    assert (moved["reschedule_count"], moved["duration"]) == (2, 45)
    assert moved["rescheduled_at"][:16] == f"{MONDAY}T08:10"
    found = clinic.admin.get("/appointments?reschedule_count_gte=1&sort_by=rescheduled_at").get_json()
    assert [each["id"] for each in found] == [row["id"]]
    assert clinic.admin.get("/appointments?reschedule_count=0").get_json()[0]["id"] == other["id"]


def test_booking_a_missed_appointment_again_counts_as_a_move(clinic: Clinic) -> None:
    row = clinic.appointment(date=NINE)
    with later(hours=2):
        admin = clinic.sign_in("admin")
        admin.patch(f"/appointments/{row['id']}", {"status": "no_show"})
        again = {"status": "scheduled", "date": "2027-03-03T09:00", "status_reason": "ill"}
        booked = admin.patch(f"/appointments/{row['id']}", again).get_json()

    assert (booked["status"], booked["reschedule_count"]) == ("scheduled", 1)
