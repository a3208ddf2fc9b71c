"""Appointments: booking, moving, cancelling, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import select

from models import Appointment, AuditLog
from tests.clinic import Clinic

MONDAY = "2027-03-01"
NINE = f"{MONDAY}T09:00:00+00:00"
NOW = datetime(2027, 3, 1, 8, tzinfo=UTC)


@pytest.fixture(autouse=True)
def monday_morning() -> Iterator[None]:
    """It is 08:00 on a Monday."""
    with time_machine.travel(NOW):
        yield


def later(**ago: float) -> time_machine.travel:
    """Some time after that Monday morning; callers sign in anew."""
    return time_machine.travel(NOW + timedelta(**ago))


def wish(clinic: Clinic, **members: Any) -> dict[str, Any]:
    """A booking of nine o'clock by a new patient."""
    if "patient_id" not in members:
        members["patient_id"] = clinic.patient()["id"]
    if "doctor_id" not in members:
        members["doctor_id"] = clinic.doctor_row()["id"]
    return {"date": NINE} | members


def codes(answer: Any) -> list[str]:
    """Every clash that a refusal names."""
    problem = answer.get_json()
    assert (answer.status_code, problem["error"]) == (409, "appointment_conflict"), problem
    return [conflict["code"] for conflict in problem["conflicts"]]


def audited(clinic: Clinic, operation: str) -> list[tuple[str, str | None, list[str]]]:
    with clinic.inside() as session:
        entries = session.scalars(
            select(AuditLog).where(AuditLog.operation.startswith(operation)).order_by(AuditLog.id)
        ).all()
        return [(entry.action, entry.detail, entry.fields) for entry in entries]


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


@pytest.mark.parametrize(
    ("members", "end", "duration"),
    [
        ({"date": NINE}, "09:20", 20),
        ({"start": NINE, "date": None}, "09:20", 20),
        ({"start": NINE, "date": f"{MONDAY}T10:00+01:00", "duration": 45}, "09:45", 45),
        ({"date": NINE, "end": f"{MONDAY}T10:00Z"}, "10:00", 60),
        ({"date": NINE, "end": f"{MONDAY}T09:05", "duration": 5}, "09:05", 5),
        ({"date": NINE, "duration": 480}, "17:00", 480),
    ],
)
def test_the_time_is_told_in_several_ways(
    clinic: Clinic, members: dict[str, Any], end: str, duration: int
) -> None:
    doctor = clinic.doctor_row(slot_minutes=20)["id"]

    row = clinic.admin.make("/appointments", **wish(clinic, doctor_id=doctor, **members))

    assert (row["start"], row["end"][11:16], row["duration"]) == (NINE, end, duration)


@pytest.mark.parametrize(
    ("members", "field"),
    [
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
    ],
)
def test_members_that_make_no_appointment_are_422(
    clinic: Clinic, members: dict[str, Any], field: str
) -> None:
    answer = clinic.admin.post("/appointments", wish(clinic, **members))

    assert answer.status_code == 422
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

URGENT = {"overbook": True, "overbook_reason": "chest pain"}


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

    actions = [action for action, _detail, _fields in audited(clinic, "POST /appointments")]
    assert actions == ["create", *["overbook"] * 4]


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


# --- Moving --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "start", "end"),
    [
        ({"date": f"{MONDAY}T11:00"}, "11:00", "11:45"),
        ({"start": f"{MONDAY}T11:00"}, "11:00", "11:45"),
        ({"start": f"{MONDAY}T09:15"}, "09:15", "10:00"),
        ({"start": f"{MONDAY}T11:00", "end": f"{MONDAY}T11:20"}, "11:00", "11:20"),
        ({"end": f"{MONDAY}T10:30"}, "09:00", "10:30"),
        ({"duration": 10}, "09:00", "09:10"),
        ({"date": f"{MONDAY}T12:00+01:00", "duration": 10}, "11:00", "11:10"),
    ],
)
def test_a_new_start_alone_keeps_the_duration(
    clinic: Clinic, change: dict[str, Any], start: str, end: str
) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic, duration=45))

    moved = clinic.admin.patch(f"/appointments/{row['id']}", change)

    assert moved.status_code == 200
    told = moved.get_json()
    assert (told["start"][11:16], told["end"][11:16], told["date"]) == (start, end, told["start"])
    assert audited(clinic, "PATCH")[-1][0] == "reschedule"


def test_a_grid_that_sends_the_whole_row_back_moves_by_the_member_it_changed(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))

    moved = clinic.admin.put(f"/appointments/{row['id']}", row | {"date": f"{MONDAY}T11:00:00Z"})

    assert (moved.status_code, moved.get_json()["end"]) == (200, f"{MONDAY}T11:30:00+00:00")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"date": f"{MONDAY}T10:00", "start": f"{MONDAY}T11:00"}, "start"),
        ({"end": f"{MONDAY}T10:00", "duration": 10}, "duration"),
        ({"date": None}, "date"),
        ({"duration": None}, "duration"),
        ({"doctor_id": 987}, "doctor_id"),
        ({"cancellation_reason": "ill"}, "cancellation_reason"),
        ({"status": "cancelled", "date": f"{MONDAY}T11:00"}, "status"),
        ({"status": "asleep"}, "status"),
    ],
)
def test_a_change_that_contradicts_itself_is_422(clinic: Clinic, change: dict[str, Any], field: str) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))

    answer = clinic.admin.patch(f"/appointments/{row['id']}", change)

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])
    assert clinic.admin.get(f"/appointments/{row['id']}").get_json() == row


def test_moving_is_judged_like_booking_but_not_against_itself(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))
    other = clinic.admin.make(
        "/appointments", **wish(clinic, doctor_id=row["doctor_id"], date=f"{MONDAY}T10:00")
    )

    overlapping_itself = clinic.admin.patch(f"/appointments/{row['id']}", {"date": f"{MONDAY}T09:10"})
    overlapping_another = clinic.admin.patch(f"/appointments/{row['id']}", {"duration": 60})
    into_the_past = clinic.admin.patch(f"/appointments/{other['id']}", {"date": f"{MONDAY}T07:00"})

    assert overlapping_itself.status_code == 200
    assert codes(overlapping_another) == ["doctor_busy"]
    assert codes(into_the_past) == ["in_past"]


def test_another_doctor_and_another_patient_are_judged(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))
    busy = clinic.admin.make("/appointments", **wish(clinic))
    free_doctor, free_patient = clinic.doctor_row(buffer_minutes=20)["id"], clinic.patient()

    path = f"/appointments/{row['id']}"
    assert codes(clinic.admin.patch(path, {"doctor_id": busy["doctor_id"]})) == ["doctor_busy"]
    assert codes(clinic.admin.patch(path, {"patient_id": busy["patient_id"]})) == ["patient_busy"]
    reassigned = clinic.admin.patch(path, {"doctor_id": free_doctor})
    swapped = clinic.admin.patch(path, {"patient_id": free_patient["id"]})

    assert (reassigned.status_code, reassigned.get_json()["doctor"]["id"]) == (200, free_doctor)
    assert (swapped.status_code, swapped.get_json()["patient_name"]) == (200, free_patient["name"])
    assert "reassign" in [action for action, _detail, _fields in audited(clinic, "PATCH")]
    with clinic.inside() as session:
        assert session.get(Appointment, row["id"]).blocked_until.strftime("%H:%M") == "09:50"


def test_a_stale_version_is_refused_and_a_fresh_one_taken(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))
    path = f"/appointments/{row['id']}"
    tag = clinic.admin.get(path).headers["ETag"]

    first = clinic.admin.patch(path, {"notes": "fasting"}, headers={"If-Match": tag})
    stale = clinic.admin.delete(path, headers={"If-Match": tag})
    fresh = clinic.admin.delete(path, headers={"If-Match": first.headers["ETag"]})

    assert (first.status_code, stale.status_code, fresh.status_code) == (200, 412, 200)


# --- Status --------------------------------------------------------------------------------------------


def test_a_completed_and_a_cancelled_appointment_are_final(clinic: Clinic) -> None:
    done, off = (clinic.appointment(date=f"{MONDAY}T{time}") for time in ("09:00", "10:00"))
    clinic.admin.patch(f"/appointments/{done['id']}", {"status": "completed"})
    clinic.admin.patch(f"/appointments/{off['id']}", {"status": "cancelled", "cancelled_by": "patient"})

    for row in (done, off):
        for change in ({"status": "scheduled"}, {"status": "no_show"}, {"date": f"{MONDAY}T12:00"}):
            answer = clinic.admin.patch(f"/appointments/{row['id']}", change)
            problem = answer.get_json()
            assert (answer.status_code, problem["error"], problem["allowed"]) == (
                409,
                "invalid_transition",
                [],
            )
        assert clinic.admin.get(f"/appointments/{row['id']}").get_json()["allowed_transitions"] == []
    assert clinic.admin.patch(f"/appointments/{done['id']}", {"notes": "came early"}).status_code == 200


def test_nobody_is_missed_before_the_start(clinic: Clinic) -> None:
    row = clinic.appointment(date=NINE)

    early = clinic.admin.patch(f"/appointments/{row['id']}", {"status": "no_show"})
    with later(hours=1, minutes=1):
        admin = clinic.sign_in("admin")
        allowed = admin.get(f"/appointments/{row['id']}").get_json()["allowed_transitions"]
        late = admin.patch(f"/appointments/{row['id']}", {"status": "no_show"})

    assert (early.status_code, early.get_json()["allowed"]) == (409, ["completed", "cancelled"])
    assert allowed == ["completed", "cancelled", "no_show"]
    assert (late.status_code, late.get_json()["allowed_transitions"]) == (200, ["completed", "scheduled"])
    assert audited(clinic, "PATCH")[-1][0] == "no_show"


def missed(clinic: Clinic, **members: Any) -> dict[str, Any]:
    """An appointment of nine o'clock that nobody came to."""
    row = clinic.admin.make("/appointments", **wish(clinic, **members))
    with later(hours=2):
        clinic.sign_in("admin").patch(f"/appointments/{row['id']}", {"status": "no_show"})
    return row


def test_a_missed_appointment_is_booked_again_with_a_reason_within_a_week(clinic: Clinic) -> None:
    row = missed(clinic)
    path, again = f"/appointments/{row['id']}", {"status": "scheduled", "date": "2027-03-20T09:00"}

    with later(days=6):
        admin = clinic.sign_in("admin")
        without_reason = admin.patch(path, again)
        without_date = admin.patch(path, {"status": "scheduled", "status_reason": "the bus broke down"})
        past = admin.patch(path, again | {"date": "2027-03-02T09:00", "status_reason": "the bus broke down"})
        moved_only = admin.patch(path, {"date": "2027-03-20T09:00"})
        done = admin.patch(path, again | {"status_reason": "the bus broke down"})

    assert list(without_reason.get_json()["errors"]) == ["status_reason"]
    assert list(without_date.get_json()["errors"]) == ["date"]
    assert codes(past) == ["in_past"]
    assert (moved_only.status_code, moved_only.get_json()["allowed"]) == (409, ["completed", "scheduled"])
    assert done.status_code == 200
    told = done.get_json()
    assert (told["status"], told["start"], told["status_reason"]) == (
        "scheduled",
        "2027-03-20T09:00:00+00:00",
        "the bus broke down",
    )
    assert audited(clinic, "PATCH")[-1][0] == "reopen"


def test_after_a_week_a_missed_appointment_is_not_booked_again(clinic: Clinic) -> None:
    row = missed(clinic)

    with later(days=7, hours=2):
        answer = clinic.sign_in("admin").patch(
            f"/appointments/{row['id']}",
            {"status": "scheduled", "date": "2027-03-20T09:00", "reason": "the bus broke down"},
        )

    assert (answer.status_code, answer.get_json()["allowed"]) == (409, ["completed"])


def test_booking_a_missed_appointment_again_is_judged(clinic: Clinic) -> None:
    row = missed(clinic)
    clinic.admin.make("/appointments", **wish(clinic, doctor_id=row["doctor_id"], date="2027-03-20T09:00"))

    with later(days=1):
        answer = clinic.sign_in("admin").patch(
            f"/appointments/{row['id']}",
            {"status": "scheduled", "date": "2027-03-20T09:15", "reason": "the bus broke down"},
        )

    assert codes(answer) == ["doctor_busy"]


def test_a_missed_appointment_that_took_place_after_all_must_find_its_time_free(clinic: Clinic) -> None:
    row, other = missed(clinic), missed(clinic)
    with later(hours=0):
        clinic.admin.make("/appointments", **wish(clinic, doctor_id=row["doctor_id"]))

    with later(hours=3):
        admin = clinic.sign_in("admin")
        taken = admin.patch(f"/appointments/{row['id']}", {"status": "completed"})
        free = admin.patch(f"/appointments/{other['id']}", {"status": "completed"})
        squeezed = admin.patch(f"/appointments/{row['id']}", {"status": "completed"} | URGENT)

    assert codes(taken) == ["doctor_busy"]
    assert (free.status_code, free.get_json()["status"]) == (200, "completed")
    assert (squeezed.status_code, squeezed.get_json()["overbooked"]) == (200, True)


# --- Cancelling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["body", "query", "neither"])
def test_cancelling_frees_the_time_at_once_and_stays_visible(clinic: Clinic, form: str) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))
    path = f"/appointments/{row['id']}"

    if form == "body":
        answer = clinic.receptionist.delete(path, {"cancellation_reason": "flu", "cancelled_by": "patient"})
    elif form == "query":
        answer = clinic.receptionist.delete(f"{path}?cancellation_reason=flu&cancelled_by=patient")
    else:
        answer = clinic.receptionist.delete(path)

    told = answer.get_json()
    expected = (None, None) if form == "neither" else ("flu", "patient")
    assert (answer.status_code, told["status"]) == (200, "cancelled")
    assert (told["cancellation_reason"], told["cancelled_by"]) == expected
    assert clinic.admin.get(path).get_json() == told
    clinic.admin.make(
        "/appointments", **wish(clinic, doctor_id=row["doctor_id"], patient_id=row["patient_id"])
    )
    assert audited(clinic, "DELETE")[-1][0] == "cancel"


def test_nothing_is_cancelled_twice(clinic: Clinic) -> None:
    path = f"/appointments/{clinic.appointment(date=NINE)['id']}"
    clinic.admin.delete(path)

    again = clinic.admin.delete(path)

    assert (again.status_code, again.get_json()["error"]) == (409, "invalid_transition")
    assert clinic.admin.delete("/appointments/987").status_code == 404


# --- Checking in ---------------------------------------------------------------------------------------


def test_the_first_arrival_counts(clinic: Clinic) -> None:
    path = f"/appointments/{clinic.appointment(date=NINE)['id']}"

    first = clinic.receptionist.post(f"{path}/check-in")
    with later(minutes=5):
        second = clinic.sign_in("receptionist").post(f"{path}/check-in")

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.get_json()["checked_in_at"] == second.get_json()["checked_in_at"] is not None
    assert [action for action, *_ in audited(clinic, "POST /appointments/<")] == ["check_in", "read"]
    moved = clinic.admin.patch(path, {"date": f"{MONDAY}T11:00"})
    assert moved.get_json()["checked_in_at"] is None


def test_only_a_scheduled_appointment_is_checked_in(clinic: Clinic) -> None:
    path = f"/appointments/{clinic.appointment(date=NINE)['id']}"
    clinic.admin.delete(path)

    answer = clinic.admin.post(f"{path}/check-in")

    assert (answer.status_code, answer.get_json()["error"]) == (409, "invalid_transition")


# --- Whose appointments --------------------------------------------------------------------------------


def test_a_doctor_reads_all_and_changes_the_own(clinic: Clinic) -> None:
    own = clinic.admin.make("/appointments", **wish(clinic, doctor_id=clinic.doctor.doctor_id))
    foreign = clinic.admin.make("/appointments", **wish(clinic))
    path = f"/appointments/{foreign['id']}"

    assert clinic.doctor.get(path).status_code == 200
    refused = [
        clinic.doctor.post("/appointments", wish(clinic, date=f"{MONDAY}T11:00")),
        clinic.doctor.patch(path, {"notes": "mine"}),
        clinic.doctor.delete(path),
        clinic.doctor.post(f"{path}/check-in"),
        clinic.doctor.patch(f"/appointments/{own['id']}", {"doctor_id": foreign["doctor_id"]}),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5
    assert clinic.doctor.patch(f"/appointments/{own['id']}", {"notes": "mine"}).status_code == 200
    assert clinic.doctor.delete(f"/appointments/{own['id']}").status_code == 200


def test_a_technician_reads_only(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))
    path = f"/appointments/{row['id']}"

    assert clinic.technician.get(path).get_json() == row
    assert clinic.technician.post("/appointments", wish(clinic)).status_code == 403
    assert clinic.technician.patch(path, {"notes": "mine"}).status_code == 403
    assert clinic.technician.delete(path).status_code == 403


# --- Lists ---------------------------------------------------------------------------------------------


def test_the_list_is_filtered_by_dates_status_and_people(clinic: Clinic) -> None:
    one = clinic.appointment(date=f"{MONDAY}T22:00")
    two = clinic.appointment(date="2027-03-02T09:00")
    three = clinic.appointment(date="2027-03-02T23:30")
    clinic.admin.delete(f"/appointments/{three['id']}")

    def found(query: str) -> list[int]:
        answer = clinic.receptionist.get(f"/appointments?{query}")
        assert answer.status_code == 200, (query, answer.get_data(as_text=True))
        return [row["id"] for row in answer.get_json()]

    first, second, third = one["id"], two["id"], three["id"]
    assert found("start_date=2027-03-02") == [second, third]
    assert found(f"end_date={MONDAY}") == [first]
    assert found("start_date=2027-03-02&end_date=2027-03-02") == [second, third]
    assert found("end_date=2027-03-02T09:00:00Z") == [first]
    assert found("start=2027-03-01T00:00:00Z&end=2027-03-02T00:00:00Z&timeZone=UTC") == [first]
    assert found("date=2027-03-02") == [second, third]
    assert found("date=2027-03-02T09:00:00Z") == [second]
    assert found("status=cancelled") == [third]
    assert found(f"patient_id={two['patient_id']}") == [second]
    assert found(f"doctor_id={two['doctor_id']}&sort_by=start&sort_order=desc") == [third, second, first]
    assert found("sort_by=date&_order=DESC&per_page=1") == [third]
    assert found("visit_id=987") == []


def test_appointments_are_searched_by_names_and_reason(clinic: Clinic) -> None:
    łucja = clinic.patient(name="Łucja Nowak")["id"]
    zoë = clinic.doctor_row(name="Zoë Adeyemi")["id"]
    one = clinic.appointment(patient_id=łucja, date=NINE, reason="Chest pain")["id"]
    two = clinic.appointment(doctor_id=zoë, date=NINE, reason="Follow-up")["id"]

    for query, expected in {
        "q=lucja": [one],
        "q=adeyemi": [two],
        "q=CHEST": [one],
        "patient_name=nowak": [one],
        "doctor_name=zoe": [two],
        "reason=follow": [two],
        "reason=follow&patient_name=nowak": [],
    }.items():
        answer = clinic.technician.get(f"/appointments/search?{query}")
        assert [row["id"] for row in answer.get_json()["appointments"]] == expected, query
        assert answer.get_json()["pagination"]["total_count"] == len(expected)


def test_a_list_is_a_read_of_the_patients_it_shows(clinic: Clinic) -> None:
    rows = [clinic.appointment(date=f"{MONDAY}T{time}") for time in ("09:00", "10:00")]
    clinic.technician.get("/appointments")

    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.operation == "GET /appointments")).one()
        assert (entry.action, entry.entity_ids) == ("list", [row["id"] for row in rows])
        assert entry.patient_ids == sorted(row["patient_id"] for row in rows)


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
