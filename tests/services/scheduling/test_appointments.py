"""Booking: what an appointment is made of, what the judge says over HTTP, overbooking, and many at once."""

from __future__ import annotations

import threading
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
    audited,
    codes,
    later,
    wish,
)
from tests.support.clinic import Clinic

monday_morning = booking.monday_morning


# --- Booking -------------------------------------------------------------------------------------------


def test_a_booked_appointment_tells_all_about_itself(clinic: Clinic) -> None:
    patient, doctor = clinic.patient(), clinic.doctor_row(specialty="cardiology")
    body = {"patient_id": patient["id"], "doctor_id": doctor["id"], "date": NINE, "type": "follow_up"}

    row = clinic.receptionist.make("/appointments", **body, reason="Pain <4 weeks", notes="bring X-rays")

    for name in ("id", "created_at", "updated_at"):
        assert row.pop(name)
    receptionist = {"id": clinic.receptionist.user_id, "name": row["created_by_name"]}
    assert row == {
        "patient_id": patient["id"],
        "patient_name": patient["name"],
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


WAYS: list[Any] = [
    ({"date": NINE}, "09:20", 20),
    ({"start": NINE, "date": None}, "09:20", 20),
    ({"start": NINE, "date": f"{MONDAY}T10:00+01:00", "duration": 45}, "09:45", 45),
    ({"date": NINE, "end": f"{MONDAY}T10:00Z"}, "10:00", 60),
    ({"date": NINE, "end": f"{MONDAY}T09:05", "duration": 5}, "09:05", 5),
    ({"date": NINE, "duration": 480}, "17:00", 480),
]


def test_the_time_is_told_in_several_ways(clinic: Clinic) -> None:
    for members, end, duration in WAYS:
        doctor = clinic.doctor_row(slot_minutes=20)["id"]

        row = clinic.admin.make("/appointments", **wish(clinic, doctor_id=doctor, **members))

        assert (row["start"], row["end"][11:16], row["duration"]) == (NINE, end, duration)


NO_APPOINTMENT: list[Any] = [
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


def test_members_that_make_no_appointment_are_422(clinic: Clinic) -> None:
    for members, field in NO_APPOINTMENT:
        answer = clinic.admin.post("/appointments", wish(clinic, **members))

        assert answer.status_code == 422, members
        assert list(answer.get_json()["errors"]) == [field]


def test_a_bare_day_is_its_first_moment(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")

    row = clinic.admin.make("/appointments", **wish(clinic, date="2027-03-29"))

    assert row["date"] == "2027-03-29T00:00:00+02:00"


def test_a_time_that_the_clocks_skip_is_422_and_names_the_offsets(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin")

    answer = clinic.admin.post("/appointments", wish(clinic, date="2027-03-28T02:30"))

    assert answer.status_code == 422
    assert "+01:00 or +02:00" in answer.get_json()["errors"]["date"]


def test_a_booking_leaves_one_entry_in_the_audit(clinic: Clinic) -> None:
    row = clinic.appointment(date=NINE)

    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.operation == "POST /appointments")).one()
        assert (entry.action, entry.entity, entry.entity_id) == ("create", "appointment", row["id"])
        assert (entry.patient_ids, entry.user_id) == ([row["patient_id"]], clinic.admin.user_id)
        assert "blocked_until" not in entry.fields


# --- The judge, asked over HTTP ------------------------------------------------------------------------


def test_the_same_slot_cannot_be_booked_twice(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **wish(clinic))

    answer = clinic.admin.post("/appointments", wish(clinic, doctor_id=first["doctor_id"]))

    assert codes(answer) == ["doctor_busy"]
    assert answer.get_json()["next_available"] == [
        {"start": f"{MONDAY}T{start}:00+00:00", "end": f"{MONDAY}T{end}:00+00:00"}
        for start, end in (("09:30", "10:00"), ("10:00", "10:30"), ("10:30", "11:00"))
    ]
    assert first["patient_name"] not in answer.get_data(as_text=True)


def test_back_to_back_is_no_clash(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **wish(clinic))

    for time in ("08:30", "09:30"):
        clinic.admin.make(
            "/appointments", **wish(clinic, doctor_id=first["doctor_id"], date=f"{MONDAY}T{time}")
        )


def test_a_patient_cannot_be_with_two_doctors_at_once(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **wish(clinic))

    answer = clinic.admin.post("/appointments", wish(clinic, patient_id=first["patient_id"]))

    assert codes(answer) == ["patient_busy"]
    # the other doctor is free at nine, but the patient is not
    assert answer.get_json()["next_available"][0]["start"] == f"{MONDAY}T09:30:00+00:00"


def test_the_buffer_is_kept_before_and_after(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=15)["id"]
    clinic.admin.make("/appointments", **wish(clinic, doctor_id=doctor))

    found = {
        time: clinic.admin.post("/appointments", wish(clinic, doctor_id=doctor, date=f"{MONDAY}T{time}"))
        for time in ("09:30", "08:20", "08:15", "09:45")
    }

    assert codes(found["09:30"]) == codes(found["08:20"]) == ["buffer"]
    assert (found["08:15"].status_code, found["09:45"].status_code) == (201, 201)


def test_a_refusal_names_every_clash_at_once(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(license_expires_on="2027-02-28")["id"]
    clinic.admin.put(
        f"/doctors/{doctor}/schedule", {"windows": [{"weekday": 3, "start": "09:00", "end": "10:00"}]}
    )
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=MONDAY, end=MONDAY)
    patient = clinic.patient()["id"]
    clinic.admin.make(
        "/appointments", **wish(clinic, patient_id=patient, date=f"{MONDAY}T08:01", duration=60)
    )
    clinic.admin.delete(f"/doctors/{doctor}")

    with later(minutes=10):
        answer = clinic.sign_in("admin").post(
            "/appointments",
            wish(clinic, doctor_id=doctor, patient_id=patient, date=f"{MONDAY}T08:05"),
        )

    assert codes(answer) == [
        "in_past",
        "doctor_inactive",
        "license_expired",
        "time_off",
        "outside_hours",
        "patient_busy",
    ]
    assert answer.get_json()["next_available"] == []


def test_an_archived_patient_is_not_booked(clinic: Clinic) -> None:
    body = wish(clinic)
    clinic.admin.delete(f"/patients/{body['patient_id']}")

    assert codes(clinic.admin.post("/appointments", body)) == ["patient_inactive"]


def test_a_licence_covers_its_last_day_to_the_end(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(license_expires_on=MONDAY)["id"]

    last = clinic.admin.post("/appointments", wish(clinic, doctor_id=doctor, date=f"{MONDAY}T23:30"))
    beyond = clinic.admin.post(
        "/appointments", wish(clinic, doctor_id=doctor, date=f"{MONDAY}T23:15", duration=60)
    )
    after = clinic.admin.post("/appointments", wish(clinic, doctor_id=doctor, date="2027-03-02T00:00"))

    assert last.status_code == 201
    assert "license_expired" in codes(beyond)
    assert codes(after) == ["license_expired"]


def test_what_a_refusal_offers_can_be_booked(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=10)["id"]
    clinic.admin.put(
        f"/doctors/{doctor}/schedule", {"windows": [{"weekday": 0, "start": "09:00", "end": "10:30"}]}
    )
    first = clinic.admin.make("/appointments", **wish(clinic, doctor_id=doctor))
    clinic.admin.make("/appointments", **wish(clinic, patient_id=first["patient_id"], date=f"{MONDAY}T10:00"))

    answer = clinic.admin.post(
        "/appointments", wish(clinic, doctor_id=doctor, patient_id=first["patient_id"])
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


def test_a_rehearsal_answers_the_judgement_and_books_nothing(clinic: Clinic) -> None:
    body = wish(clinic)
    possible = clinic.admin.post("/appointments?dry_run=true", body)
    row = clinic.admin.make("/appointments", **body)
    refused = clinic.admin.post("/appointments?dry_run=true", wish(clinic, doctor_id=row["doctor_id"]))
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


def test_a_refusal_is_audited_with_its_patient(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **wish(clinic))
    clinic.admin.post("/appointments", wish(clinic, patient_id=first["patient_id"]))

    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.outcome == "refused")).one()
        assert (entry.detail, entry.patient_ids) == ("appointment_conflict", [first["patient_id"]])


# --- Overbooking ---------------------------------------------------------------------------------------


def test_overbooking_passes_hours_buffer_and_overlap_and_is_audited(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=15)["id"]
    clinic.admin.put(
        f"/doctors/{doctor}/schedule", {"windows": [{"weekday": 0, "start": "09:00", "end": "10:30"}]}
    )
    clinic.admin.make("/appointments", **wish(clinic, doctor_id=doctor))

    for time in ("09:00", "09:30", "10:15", "20:00"):
        row = clinic.receptionist.make(
            "/appointments", **wish(clinic, doctor_id=doctor, date=f"{MONDAY}T{time}"), **URGENT
        )
        assert (row["overbooked"], row["overbook_reason"]) == (True, "chest pain")

    assert audited(clinic, "POST /appointments") == ["create", *["overbook"] * 4]


def test_overbooking_never_passes_patient_licence_time_off_or_past(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(license_expires_on=MONDAY)["id"]
    clinic.admin.make(f"/doctors/{doctor}/time-off", start=f"{MONDAY}T12:00", end=f"{MONDAY}T13:00")
    first = clinic.admin.make("/appointments", **wish(clinic, doctor_id=doctor))

    def refused(**members: Any) -> list[str]:
        return codes(clinic.admin.post("/appointments", wish(clinic, doctor_id=doctor, **members) | URGENT))

    assert refused(patient_id=first["patient_id"]) == ["patient_busy"]
    assert refused(date=f"{MONDAY}T12:30") == ["time_off"]
    assert refused(date="2027-03-02T09:00") == ["license_expired"]
    assert refused(date=f"{MONDAY}T07:00") == ["in_past"]


def test_what_needed_no_overbooking_is_a_plain_booking(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic), **URGENT)

    assert (row["overbooked"], row["overbook_reason"]) == (False, None)


def test_a_doctor_does_not_overbook(clinic: Clinic) -> None:
    body = wish(clinic, doctor_id=clinic.doctor.doctor_id)

    assert clinic.doctor.post("/appointments", body | URGENT).status_code == 403
    assert clinic.doctor.post("/appointments", body).status_code == 201


def test_an_overbooked_time_is_not_free_for_others(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **wish(clinic))
    clinic.admin.make("/appointments", **wish(clinic, doctor_id=first["doctor_id"]), **URGENT)
    clinic.admin.delete(f"/appointments/{first['id']}")

    assert codes(clinic.admin.post("/appointments", wish(clinic, doctor_id=first["doctor_id"]))) == [
        "doctor_busy"
    ]


def test_an_overbooked_appointment_that_moves_to_free_time_is_overbooked_no_more(clinic: Clinic) -> None:
    first = clinic.admin.make("/appointments", **wish(clinic))
    over = clinic.admin.make("/appointments", **wish(clinic, doctor_id=first["doctor_id"]), **URGENT)

    unmoved = clinic.admin.patch(f"/appointments/{over['id']}", {"notes": "waits outside"})
    moved = clinic.admin.patch(f"/appointments/{over['id']}", {"date": f"{MONDAY}T11:00"})

    assert unmoved.get_json()["overbooked"] is True
    assert (moved.get_json()["overbooked"], moved.get_json()["overbook_reason"]) == (False, None)


# --- At once -------------------------------------------------------------------------------------------


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """The answers of calls that all begin together."""
    ready, answers = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number: int, call: Callable[[], Any]) -> None:
        ready.wait()
        answers[number] = call()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_many_who_ask_at_once_one_gets_the_slot(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    wishes = [wish(clinic, doctor_id=doctor) for _ in range(12)]
    admin = clinic.admin

    answers = at_once([lambda body=body: admin.post("/appointments", body) for body in wishes])

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    assert {answer.get_json().get("error") for answer in answers} == {None, "appointment_conflict"}


def test_different_slots_booked_at_once_are_all_booked(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(buffer_minutes=10)["id"]
    start = datetime.fromisoformat(NINE)
    wishes = [
        wish(clinic, doctor_id=doctor, date=(start + timedelta(minutes=40 * n)).isoformat())
        for n in range(12)
    ]
    admin = clinic.admin

    answers = at_once([lambda body=body: admin.post("/appointments", body) for body in wishes])

    assert [answer.status_code for answer in answers] == [201] * 12


def test_appointments_handed_over_crosswise_at_once_do_not_block_each_other(clinic: Clinic) -> None:
    one, two = (clinic.admin.make("/appointments", **wish(clinic)) for _ in range(2))
    admin = clinic.admin

    answers = at_once(
        [
            lambda: admin.patch(
                f"/appointments/{one['id']}", {"doctor_id": two["doctor_id"], "date": f"{MONDAY}T11:00"}
            ),
            lambda: admin.patch(
                f"/appointments/{two['id']}", {"doctor_id": one["doctor_id"], "date": f"{MONDAY}T11:00"}
            ),
        ]
    )

    assert [answer.status_code for answer in answers] == [200, 200]
