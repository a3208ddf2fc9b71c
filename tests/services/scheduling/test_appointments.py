"""Booking of appointments: members, conflicts, overbooking, and concurrent requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from models import AuditLog
from tests.support import booking
from tests.support.booking import (
    MONDAY,
    NINE,
    URGENT,
    audit_actions,
    booking_body,
    conflict_codes,
    later,
)
from tests.support.clinic import Clinic
from tests.support.concurrency import run_concurrently

monday_morning = booking.monday_morning


# --- Booking -------------------------------------------------------------------------------------------


def test_the_response_to_a_booking_has_all_members(clinic: Clinic) -> None:
    patient, doctor = clinic.patient(), clinic.doctor_row(specialty="cardiology")
    body = {"patient_id": patient["id"], "doctor_id": doctor["id"], "date": NINE, "type": "follow_up"}

    row = clinic.receptionist.make("/appointments", **body, reason="Pain <4 weeks", notes="bring X-rays")

    for name in ("id", "created_at", "updated_at"):
        assert row.pop(name)
    receptionist = {"id": clinic.receptionist.user_id, "name": row["created_by_name"]}
    assert row == {
        "patient_id": patient["id"],
        "patient_name": patient["name"],
        "title": patient["name"],
        "patient": {"id": patient["id"], "name": patient["name"]},
        "doctor_id": doctor["id"],
        "doctor_name": doctor["name"],
        "doctor": {"id": doctor["id"], "name": doctor["name"], "specialty": "cardiology"},
        "date": NINE,
        "start": NINE,
        "end": f"{MONDAY}T09:30:00+00:00",
        "duration": 30,
        "status": "scheduled",
        "type": "follow_up",
        "reason": "Pain <4 weeks",
        "notes": "bring X-rays",
        "cancellation_reason": None,
        "cancelled_by": None,
        "cancelled_at": None,
        "rescheduled_at": None,
        "reschedule_count": 0,
        "previous_start": None,
        "confirmed_at": None,
        "status_reason": None,
        "overbooked": False,
        "overbook_reason": None,
        "checked_in_at": None,
        "visit_id": None,
        "allowed_transitions": ["completed", "cancelled"],
        "created_by_id": clinic.receptionist.user_id,
        "created_by_name": receptionist["name"],
        "created_by": receptionist,
    }


TIME_MEMBERS: list[Any] = [
    ({"date": NINE}, "09:20", 20),
    ({"start": NINE, "date": None}, "09:20", 20),
    ({"start": NINE, "date": f"{MONDAY}T10:00+01:00", "duration": 45}, "09:45", 45),
    ({"date": NINE, "end": f"{MONDAY}T10:00Z"}, "10:00", 60),
    ({"date": NINE, "end": f"{MONDAY}T09:05", "duration": 5}, "09:05", 5),
    ({"date": NINE, "duration": 480}, "17:00", 480),
]


def test_the_time_can_be_given_by_different_members(clinic: Clinic) -> None:
    for members, end, duration in TIME_MEMBERS:
        doctor = clinic.doctor_row(slot_minutes=20)["id"]

        row = clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=doctor, **members))

        assert (row["start"], row["end"][11:16], row["duration"]) == (NINE, end, duration)


INVALID_BOOKINGS: list[Any] = [
    ({"date": None}, "date"),
    ({"start": f"{MONDAY}T10:00"}, "start"),
    ({"end": f"{MONDAY}T10:00", "duration": 30}, "duration"),
    ({"end": NINE}, "end"),
    ({"end": f"{MONDAY}T08:30"}, "end"),
    ({"end": f"{MONDAY}T09:30:30"}, "end"),
    ({"end": f"{MONDAY}T17:01"}, "end"),
    ({"duration": 4}, "duration"),
    ({"duration": 481}, "duration"),
    ({"date": "tomorrow"}, "date"),
    ({"status": "completed"}, "status"),
    ({"patient_id": 987}, "patient_id"),
    ({"doctor_id": 987}, "doctor_id"),
    ({"overbook": True}, "overbook_reason"),
    ({"overbook": True, "overbook_reason": " "}, "overbook_reason"),
    ({"room": 3}, "room"),
]


def test_invalid_members_of_a_booking_are_422(clinic: Clinic) -> None:
    for members, field in INVALID_BOOKINGS:
        answer = clinic.admin.post("/appointments", booking_body(clinic, **members))

        assert answer.status_code == 422, members
        assert list(answer.get_json()["errors"]) == [field]


def test_a_date_without_time_means_midnight(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")

    row = clinic.admin.make("/appointments", **booking_body(clinic, date="2027-03-29"))

    assert row["date"] == "2027-03-29T00:00:00+02:00"


def test_a_time_skipped_by_daylight_saving_is_422_and_names_the_offsets(
    make_clinic: Callable[..., Clinic],
) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")

    answer = clinic.admin.post("/appointments", booking_body(clinic, date="2027-03-28T02:30"))

    assert answer.status_code == 422
    assert "+01:00 or +02:00" in answer.get_json()["errors"]["date"]


def test_a_booking_writes_one_audit_entry(clinic: Clinic) -> None:
    row = clinic.appointment(date=NINE)

    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.operation == "POST /appointments")).one()
        assert (entry.action, entry.entity, entry.entity_id) == ("create", "appointment", row["id"])
        assert (entry.patient_ids, entry.user_id) == ([row["patient_id"]], clinic.admin.user_id)
        assert "blocked_until" not in entry.fields


# --- Conflicts -----------------------------------------------------------------------------------------


def test_the_same_slot_cannot_be_booked_twice(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **booking_body(clinic))

    answer = clinic.admin.post("/appointments", booking_body(clinic, doctor_id=first["doctor_id"]))

    assert conflict_codes(answer) == ["doctor_busy"]
    assert answer.get_json()["next_available"] == [
        {"start": f"{MONDAY}T{start}:00+00:00", "end": f"{MONDAY}T{end}:00+00:00"}
        for start, end in (("09:30", "10:00"), ("10:00", "10:30"), ("10:30", "11:00"))
    ]
    assert first["patient_name"] not in answer.get_data(as_text=True)


def test_back_to_back_appointments_do_not_conflict(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **booking_body(clinic))

    for time in ("08:30", "09:30"):
        clinic.admin.make(
            "/appointments", **booking_body(clinic, doctor_id=first["doctor_id"], date=f"{MONDAY}T{time}")
        )


def test_a_patient_cannot_have_two_appointments_at_the_same_time(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **booking_body(clinic))

    answer = clinic.admin.post("/appointments", booking_body(clinic, patient_id=first["patient_id"]))

    assert conflict_codes(answer) == ["patient_busy"]
    # the other doctor is free at nine, but the patient is not
    assert answer.get_json()["next_available"][0]["start"] == f"{MONDAY}T09:30:00+00:00"


def test_the_buffer_is_required_before_and_after_an_appointment(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=15)["id"]
    clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=doctor))

    responses = {
        time: clinic.admin.post(
            "/appointments", booking_body(clinic, doctor_id=doctor, date=f"{MONDAY}T{time}")
        )
        for time in ("09:30", "08:20", "08:15", "09:45")
    }

    assert conflict_codes(responses["09:30"]) == conflict_codes(responses["08:20"]) == ["buffer"]
    assert (responses["08:15"].status_code, responses["09:45"].status_code) == (201, 201)


def test_a_refused_booking_reports_all_conflicts(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(license_expires_on="2027-02-28")["id"]
    clinic.admin.put(
        f"/doctors/{doctor}/schedule", {"windows": [{"weekday": 3, "start": "09:00", "end": "10:00"}]}
    )
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=MONDAY, end=MONDAY)
    patient = clinic.patient()["id"]
    clinic.admin.make(
        "/appointments", **booking_body(clinic, patient_id=patient, date=f"{MONDAY}T08:01", duration=60)
    )
    clinic.admin.delete(f"/doctors/{doctor}")

    with later(minutes=10):
        answer = clinic.sign_in("admin").post(
            "/appointments",
            booking_body(clinic, doctor_id=doctor, patient_id=patient, date=f"{MONDAY}T08:05"),
        )

    assert conflict_codes(answer) == [
        "in_past",
        "doctor_inactive",
        "license_expired",
        "time_off",
        "outside_hours",
        "patient_busy",
    ]
    assert answer.get_json()["next_available"] == []


def test_an_archived_patient_cannot_be_booked(clinic: Clinic) -> None:
    body = booking_body(clinic)
    clinic.admin.delete(f"/patients/{body['patient_id']}")

    assert conflict_codes(clinic.admin.post("/appointments", body)) == ["patient_inactive"]


def test_a_licence_is_valid_until_the_end_of_its_last_day(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(license_expires_on=MONDAY)["id"]

    last = clinic.admin.post("/appointments", booking_body(clinic, doctor_id=doctor, date=f"{MONDAY}T23:30"))
    beyond = clinic.admin.post(
        "/appointments", booking_body(clinic, doctor_id=doctor, date=f"{MONDAY}T23:15", duration=60)
    )
    after = clinic.admin.post(
        "/appointments", booking_body(clinic, doctor_id=doctor, date="2027-03-02T00:00")
    )

    assert last.status_code == 201
    assert "license_expired" in conflict_codes(beyond)
    assert conflict_codes(after) == ["license_expired"]


def test_times_suggested_by_a_refusal_can_be_booked(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=10)["id"]
    clinic.admin.put(
        f"/doctors/{doctor}/schedule", {"windows": [{"weekday": 0, "start": "09:00", "end": "10:30"}]}
    )
    first = clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=doctor))
    clinic.admin.make(
        "/appointments", **booking_body(clinic, patient_id=first["patient_id"], date=f"{MONDAY}T10:00")
    )

    answer = clinic.admin.post(
        "/appointments", booking_body(clinic, doctor_id=doctor, patient_id=first["patient_id"])
    )

    offered = answer.get_json()["next_available"]
    assert [slot["start"][:16] for slot in offered] == [
        f"2027-03-08T{t}" for t in ("09:00", "09:30", "10:00")
    ]
    for slot in (offered[0], offered[2]):
        clinic.admin.make(
            "/appointments",
            patient_id=first["patient_id"],
            doctor_id=doctor,
            start=slot["start"],
            end=slot["end"],
        )


def test_a_dry_run_returns_the_check_and_books_nothing(clinic: Clinic) -> None:
    body = booking_body(clinic)
    possible = clinic.admin.post("/appointments?dry_run=true", body)
    row = clinic.admin.make("/appointments", **body)
    refused = clinic.admin.post(
        "/appointments?dry_run=true", booking_body(clinic, doctor_id=row["doctor_id"])
    )
    moved = clinic.admin.patch(f"/appointments/{row['id']}?dry_run=true", {"date": f"{MONDAY}T11:00"})
    unmoved = clinic.admin.patch(f"/appointments/{row['id']}?dry_run=true", {"notes": "fasting"})

    free = {"possible": True, "conflicts": [], "next_available": []}
    assert [(a.status_code, a.get_json()) for a in (possible, moved, unmoved)] == [(200, free)] * 3
    assert refused.status_code == 200
    assert refused.get_json()["possible"] is False
    assert refused.get_json()["conflicts"] == [
        {"code": "doctor_busy", "message": "The doctor already has an appointment then."}
    ]
    assert refused.get_json()["next_available"][0]["start"] == f"{MONDAY}T09:30:00+00:00"
    assert clinic.admin.get("/appointments").get_json() == [row]


def test_a_refused_booking_is_audited_with_its_patient(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **booking_body(clinic))
    clinic.admin.post("/appointments", booking_body(clinic, patient_id=first["patient_id"]))

    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.outcome == "refused")).one()
        assert (entry.detail, entry.patient_ids) == ("appointment_conflict", [first["patient_id"]])


# --- Overbooking ---------------------------------------------------------------------------------------


def test_overbooking_overrides_hours_buffer_and_overlap_and_is_audited(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=15)["id"]
    clinic.admin.put(
        f"/doctors/{doctor}/schedule", {"windows": [{"weekday": 0, "start": "09:00", "end": "10:30"}]}
    )
    clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=doctor))

    for time in ("09:00", "09:30", "10:15", "20:00"):
        row = clinic.receptionist.make(
            "/appointments", **booking_body(clinic, doctor_id=doctor, date=f"{MONDAY}T{time}"), **URGENT
        )
        assert (row["overbooked"], row["overbook_reason"]) == (True, "chest pain")

    assert audit_actions(clinic, "POST /appointments") == ["create", *["overbook"] * 4]


def test_overbooking_does_not_override_patient_licence_time_off_or_past(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(license_expires_on=MONDAY)["id"]
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=f"{MONDAY}T12:00", end=f"{MONDAY}T13:00")
    first = clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=doctor))

    def refused(**members: Any) -> list[str]:
        return conflict_codes(
            clinic.admin.post("/appointments", booking_body(clinic, doctor_id=doctor, **members) | URGENT)
        )

    assert refused(patient_id=first["patient_id"]) == ["patient_busy"]
    assert refused(date=f"{MONDAY}T12:30") == ["time_off"]
    assert refused(date="2027-03-02T09:00") == ["license_expired"]
    assert refused(date=f"{MONDAY}T07:00") == ["in_past"]


def test_an_unnecessary_overbooking_is_stored_as_a_normal_booking(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **booking_body(clinic), **URGENT)

    assert (row["overbooked"], row["overbook_reason"]) == (False, None)


def test_a_doctor_may_not_overbook(clinic: Clinic) -> None:
    body = booking_body(clinic, doctor_id=clinic.doctor.doctor_id)

    assert clinic.doctor.post("/appointments", body | URGENT).status_code == 403
    assert clinic.doctor.post("/appointments", body).status_code == 201


def test_an_overbooked_appointment_blocks_its_time(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **booking_body(clinic))
    clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=first["doctor_id"]), **URGENT)
    clinic.admin.delete(f"/appointments/{first['id']}")

    assert conflict_codes(
        clinic.admin.post("/appointments", booking_body(clinic, doctor_id=first["doctor_id"]))
    ) == ["doctor_busy"]


def test_an_overbooked_appointment_moved_to_a_free_time_is_no_longer_overbooked(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **booking_body(clinic))
    over = clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=first["doctor_id"]), **URGENT)

    unmoved = clinic.admin.patch(f"/appointments/{over['id']}", {"notes": "waits outside"})
    moved = clinic.admin.patch(f"/appointments/{over['id']}", {"date": f"{MONDAY}T11:00"})

    assert unmoved.get_json()["overbooked"] is True
    assert (moved.get_json()["overbooked"], moved.get_json()["overbook_reason"]) == (False, None)


# --- Concurrent requests ------------------------------------------------------------------------------


def test_one_of_many_concurrent_bookings_of_a_slot_succeeds(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    bodies = [booking_body(clinic, doctor_id=doctor) for _ in range(12)]
    admin = clinic.admin

    answers = run_concurrently([lambda body=body: admin.post("/appointments", body) for body in bodies])

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    assert {answer.get_json().get("error") for answer in answers} == {None, "appointment_conflict"}


def test_concurrent_bookings_of_different_slots_all_succeed(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=10)["id"]
    start = datetime.fromisoformat(NINE)
    bodies = [
        booking_body(clinic, doctor_id=doctor, date=(start + timedelta(minutes=40 * n)).isoformat())
        for n in range(12)
    ]
    admin = clinic.admin

    answers = run_concurrently([lambda body=body: admin.post("/appointments", body) for body in bodies])

    assert [answer.status_code for answer in answers] == [201] * 12


def test_concurrent_reassignments_between_two_doctors_do_not_deadlock(clinic: Clinic) -> None:
    first, second = (clinic.admin.make("/appointments", **booking_body(clinic)) for _ in range(2))
    admin = clinic.admin

    answers = run_concurrently(
        [
            lambda: admin.patch(
                f"/appointments/{first['id']}", {"doctor_id": second["doctor_id"], "date": f"{MONDAY}T11:00"}
            ),
            lambda: admin.patch(
                f"/appointments/{second['id']}", {"doctor_id": first["doctor_id"], "date": f"{MONDAY}T11:00"}
            ),
        ]
    )

    assert [answer.status_code for answer in answers] == [200, 200]
