"""Changes of appointments: moving, status, cancellation, check-in; permissions and lists."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from models import Appointment, AuditLog
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

monday_morning = booking.monday_morning


# --- Moving --------------------------------------------------------------------------------------------


MOVES: list[Any] = [
    ({"date": f"{MONDAY}T11:00"}, "11:00", "11:45"),
    ({"start": f"{MONDAY}T11:00"}, "11:00", "11:45"),
    ({"start": f"{MONDAY}T09:15"}, "09:15", "10:00"),
    ({"start": f"{MONDAY}T11:00", "end": f"{MONDAY}T11:20"}, "11:00", "11:20"),
    ({"end": f"{MONDAY}T10:30"}, "09:00", "10:30"),
    ({"duration": 10}, "09:00", "09:10"),
    ({"date": f"{MONDAY}T12:00+01:00", "duration": 10}, "11:00", "11:10"),
]


def test_a_new_start_alone_keeps_the_duration(clinic: Clinic) -> None:
    for change, start, end in MOVES:
        row = clinic.admin.make("/appointments", **booking_body(clinic, duration=45))

        moved = clinic.admin.patch(f"/appointments/{row['id']}", change)

        assert moved.status_code == 200
        body = moved.get_json()
        assert (body["start"][11:16], body["end"][11:16], body["date"]) == (start, end, body["start"])
        assert audit_actions(clinic, "PATCH")[-1] == "reschedule"


def test_a_put_of_the_whole_row_applies_the_changed_member(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **booking_body(clinic))

    moved = clinic.admin.put(f"/appointments/{row['id']}", row | {"date": f"{MONDAY}T11:00:00Z"})

    assert (moved.status_code, moved.get_json()["end"]) == (200, f"{MONDAY}T11:30:00+00:00")


CONTRADICTIONS: list[Any] = [
    ({"date": f"{MONDAY}T10:00", "start": f"{MONDAY}T11:00"}, "start"),
    ({"end": f"{MONDAY}T10:00", "duration": 10}, "duration"),
    ({"date": None}, "date"),
    ({"duration": None}, "duration"),
    ({"doctor_id": 987}, "doctor_id"),
    ({"cancellation_reason": "ill"}, "cancellation_reason"),
    ({"status": "cancelled", "date": f"{MONDAY}T11:00"}, "status"),
    ({"status": "asleep"}, "status"),
]


def test_contradicting_members_of_a_change_are_422(clinic: Clinic) -> None:
    for change, field in CONTRADICTIONS:
        row = clinic.admin.make("/appointments", **booking_body(clinic))

        answer = clinic.admin.patch(f"/appointments/{row['id']}", change)

        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])
        assert clinic.admin.get(f"/appointments/{row['id']}").get_json() == row


def test_a_move_is_checked_like_a_booking_except_against_itself(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **booking_body(clinic))
    other = clinic.admin.make(
        "/appointments", **booking_body(clinic, doctor_id=row["doctor_id"], date=f"{MONDAY}T10:00")
    )

    overlapping_itself = clinic.admin.patch(f"/appointments/{row['id']}", {"date": f"{MONDAY}T09:10"})
    overlapping_another = clinic.admin.patch(f"/appointments/{row['id']}", {"duration": 60})
    into_the_past = clinic.admin.patch(f"/appointments/{other['id']}", {"date": f"{MONDAY}T07:00"})

    assert overlapping_itself.status_code == 200
    assert conflict_codes(overlapping_another) == ["doctor_busy"]
    assert conflict_codes(into_the_past) == ["in_past"]


def test_a_change_of_doctor_or_patient_is_checked(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **booking_body(clinic))
    busy = clinic.admin.make("/appointments", **booking_body(clinic))
    free_doctor, free_patient = clinic.doctor_row(buffer_minutes=20)["id"], clinic.patient()

    path = f"/appointments/{row['id']}"
    assert conflict_codes(clinic.admin.patch(path, {"doctor_id": busy["doctor_id"]})) == ["doctor_busy"]
    assert conflict_codes(clinic.admin.patch(path, {"patient_id": busy["patient_id"]})) == ["patient_busy"]
    reassigned = clinic.admin.patch(path, {"doctor_id": free_doctor})
    swapped = clinic.admin.patch(path, {"patient_id": free_patient["id"]})

    assert (reassigned.status_code, reassigned.get_json()["doctor"]["id"]) == (200, free_doctor)
    assert (swapped.status_code, swapped.get_json()["patient_name"]) == (200, free_patient["name"])
    assert "reassign" in audit_actions(clinic, "PATCH")
    with clinic.inside() as session:
        assert session.get(Appointment, row["id"]).blocked_until.strftime("%H:%M") == "09:50"


def test_a_stale_version_is_refused_and_a_current_one_accepted(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **booking_body(clinic))
    path = f"/appointments/{row['id']}"
    tag = clinic.admin.get(path).headers["ETag"]

    first = clinic.admin.patch(path, {"notes": "fasting"}, headers={"If-Match": tag})
    stale = clinic.admin.delete(path, headers={"If-Match": tag})
    fresh = clinic.admin.delete(path, headers={"If-Match": first.headers["ETag"]})

    assert (first.status_code, stale.status_code, fresh.status_code) == (200, 412, 200)


# --- Status --------------------------------------------------------------------------------------------


def test_a_completed_and_a_cancelled_appointment_are_final(clinic: Clinic) -> None:
    completed, cancelled = (clinic.appointment(date=f"{MONDAY}T{time}") for time in ("09:00", "10:00"))
    clinic.admin.patch(f"/appointments/{completed['id']}", {"status": "completed"})
    clinic.admin.patch(f"/appointments/{cancelled['id']}", {"status": "cancelled", "cancelled_by": "patient"})

    for row in (completed, cancelled):
        for change in ({"status": "scheduled"}, {"status": "no_show"}, {"date": f"{MONDAY}T12:00"}):
            answer = clinic.admin.patch(f"/appointments/{row['id']}", change)
            problem = answer.get_json()
            assert (answer.status_code, problem["error"], problem["allowed"]) == (
                409,
                "invalid_transition",
                [],
            )
        assert clinic.admin.get(f"/appointments/{row['id']}").get_json()["allowed_transitions"] == []
    assert clinic.admin.patch(f"/appointments/{completed['id']}", {"notes": "came early"}).status_code == 200


def test_an_appointment_cannot_be_missed_before_its_start(clinic: Clinic) -> None:
    row = clinic.appointment(date=NINE)

    early = clinic.admin.patch(f"/appointments/{row['id']}", {"status": "no_show"})
    with later(hours=1, minutes=1):
        admin = clinic.sign_in("admin")
        allowed = admin.get(f"/appointments/{row['id']}").get_json()["allowed_transitions"]
        late = admin.patch(f"/appointments/{row['id']}", {"status": "no_show"})

    assert (early.status_code, early.get_json()["allowed"]) == (409, ["completed", "cancelled"])
    assert allowed == ["completed", "cancelled", "no_show"]
    assert (late.status_code, late.get_json()["allowed_transitions"]) == (200, ["completed", "scheduled"])
    assert audit_actions(clinic, "PATCH")[-1] == "no_show"


def create_missed_appointment(clinic: Clinic, **members: Any) -> dict[str, Any]:
    """Create an appointment at nine o'clock with the status `no_show`."""
    row = clinic.admin.make("/appointments", **booking_body(clinic, **members))
    with later(hours=2):
        clinic.sign_in("admin").patch(f"/appointments/{row['id']}", {"status": "no_show"})
    return row


def test_a_missed_appointment_can_be_booked_again_with_a_reason_within_a_week(clinic: Clinic) -> None:
    row = create_missed_appointment(clinic)
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
    assert conflict_codes(past) == ["in_past"]
    assert (moved_only.status_code, moved_only.get_json()["allowed"]) == (409, ["completed", "scheduled"])
    assert done.status_code == 200
    body = done.get_json()
    assert (body["status"], body["start"], body["status_reason"]) == (
        "scheduled",
        "2027-03-20T09:00:00+00:00",
        "the bus broke down",
    )
    assert audit_actions(clinic, "PATCH")[-1] == "reopen"


def test_a_missed_appointment_cannot_be_booked_again_after_a_week(clinic: Clinic) -> None:
    row = create_missed_appointment(clinic)

    with later(days=7, hours=2):
        answer = clinic.sign_in("admin").patch(
            f"/appointments/{row['id']}",
            {"status": "scheduled", "date": "2027-03-20T09:00", "reason": "the bus broke down"},
        )

    assert (answer.status_code, answer.get_json()["allowed"]) == (409, ["completed"])


def test_booking_a_missed_appointment_again_is_checked(clinic: Clinic) -> None:
    row = create_missed_appointment(clinic)
    clinic.admin.make(
        "/appointments", **booking_body(clinic, doctor_id=row["doctor_id"], date="2027-03-20T09:00")
    )

    with later(days=1):
        answer = clinic.sign_in("admin").patch(
            f"/appointments/{row['id']}",
            {"status": "scheduled", "date": "2027-03-20T09:15", "reason": "the bus broke down"},
        )

    assert conflict_codes(answer) == ["doctor_busy"]


def test_a_missed_appointment_can_be_completed_only_if_its_time_is_still_free(clinic: Clinic) -> None:
    row, other = create_missed_appointment(clinic), create_missed_appointment(clinic)
    with later(hours=0):
        clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=row["doctor_id"]))

    with later(hours=3):
        admin = clinic.sign_in("admin")
        conflicting = admin.patch(f"/appointments/{row['id']}", {"status": "completed"})
        free = admin.patch(f"/appointments/{other['id']}", {"status": "completed"})
        overbooked = admin.patch(f"/appointments/{row['id']}", {"status": "completed"} | URGENT)

    assert conflict_codes(conflicting) == ["doctor_busy"]
    assert (free.status_code, free.get_json()["status"]) == (200, "completed")
    assert (overbooked.status_code, overbooked.get_json()["overbooked"]) == (200, True)


# --- Cancelling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["body", "query", "neither"])
def test_a_cancelled_appointment_frees_its_time_and_stays_visible(clinic: Clinic, form: str) -> None:
    row = clinic.admin.make("/appointments", **booking_body(clinic))
    path = f"/appointments/{row['id']}"

    if form == "body":
        answer = clinic.receptionist.delete(path, {"cancellation_reason": "flu", "cancelled_by": "patient"})
    elif form == "query":
        answer = clinic.receptionist.delete(f"{path}?cancellation_reason=flu&cancelled_by=patient")
    else:
        answer = clinic.receptionist.delete(path)

    body = answer.get_json()
    expected = (None, None) if form == "neither" else ("flu", "patient")
    assert (answer.status_code, body["status"]) == (200, "cancelled")
    assert (body["cancellation_reason"], body["cancelled_by"]) == expected
    assert clinic.admin.get(path).get_json() == body
    clinic.admin.make(
        "/appointments", **booking_body(clinic, doctor_id=row["doctor_id"], patient_id=row["patient_id"])
    )
    assert audit_actions(clinic, "DELETE")[-1] == "cancel"


def test_a_cancelled_appointment_cannot_be_cancelled_again(clinic: Clinic) -> None:
    path = f"/appointments/{clinic.appointment(date=NINE)['id']}"
    clinic.admin.delete(path)

    again = clinic.admin.delete(path)

    assert (again.status_code, again.get_json()["error"]) == (409, "invalid_transition")
    assert clinic.admin.delete("/appointments/987").status_code == 404


# --- Checking in ---------------------------------------------------------------------------------------


def test_a_second_check_in_keeps_the_first_time(clinic: Clinic) -> None:
    path = f"/appointments/{clinic.appointment(date=NINE)['id']}"

    first = clinic.receptionist.post(f"{path}/check-in")
    with later(minutes=5):
        second = clinic.sign_in("receptionist").post(f"{path}/check-in")

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.get_json()["checked_in_at"] == second.get_json()["checked_in_at"] is not None
    assert audit_actions(clinic, "POST /appointments/<") == ["check_in", "read"]
    moved = clinic.admin.patch(path, {"date": f"{MONDAY}T11:00"})
    assert moved.get_json()["checked_in_at"] is None


def test_only_a_scheduled_appointment_can_be_checked_in(clinic: Clinic) -> None:
    path = f"/appointments/{clinic.appointment(date=NINE)['id']}"
    clinic.admin.delete(path)

    answer = clinic.admin.post(f"{path}/check-in")

    assert (answer.status_code, answer.get_json()["error"]) == (409, "invalid_transition")


# --- Permissions ---------------------------------------------------------------------------------------


def test_a_doctor_reads_all_appointments_and_changes_own_ones_only(clinic: Clinic) -> None:
    own = clinic.admin.make("/appointments", **booking_body(clinic, doctor_id=clinic.doctor.doctor_id))
    foreign = clinic.admin.make("/appointments", **booking_body(clinic))
    path = f"/appointments/{foreign['id']}"

    assert clinic.doctor.get(path).status_code == 200
    refused = [
        clinic.doctor.post("/appointments", booking_body(clinic, date=f"{MONDAY}T11:00")),
        clinic.doctor.patch(path, {"notes": "mine"}),
        clinic.doctor.delete(path),
        clinic.doctor.post(f"{path}/check-in"),
        clinic.doctor.patch(f"/appointments/{own['id']}", {"doctor_id": foreign["doctor_id"]}),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5
    assert clinic.doctor.patch(f"/appointments/{own['id']}", {"notes": "mine"}).status_code == 200
    assert clinic.doctor.delete(f"/appointments/{own['id']}").status_code == 200


def test_a_technician_may_only_read_appointments(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **booking_body(clinic))
    path = f"/appointments/{row['id']}"

    assert clinic.technician.get(path).get_json() == row
    assert clinic.technician.post("/appointments", booking_body(clinic)).status_code == 403
    assert clinic.technician.patch(path, {"notes": "mine"}).status_code == 403
    assert clinic.technician.delete(path).status_code == 403


# --- Lists ---------------------------------------------------------------------------------------------


def test_the_list_is_filtered_by_date_status_patient_and_doctor(clinic: Clinic) -> None:
    first = clinic.appointment(date=f"{MONDAY}T22:00")
    second = clinic.appointment(date="2027-03-02T09:00")
    third = clinic.appointment(date="2027-03-02T23:30")
    clinic.admin.delete(f"/appointments/{third['id']}")

    def listed_ids(query: str) -> list[int]:
        answer = clinic.receptionist.get(f"/appointments?{query}")
        assert answer.status_code == 200, (query, answer.get_data(as_text=True))
        return [row["id"] for row in answer.get_json()]

    ids = [first["id"], second["id"], third["id"]]
    assert listed_ids("") == ids[::-1]  # the newest first
    assert listed_ids("start_date=2027-03-02") == ids[:0:-1]
    assert listed_ids(f"end_date={MONDAY}") == ids[:1]
    assert listed_ids("start_date=2027-03-02&end_date=2027-03-02&sort_by=start") == ids[1:]
    assert listed_ids("end_date=2027-03-02T09:00:00Z") == ids[:1]
    assert listed_ids("start=2027-03-01T00:00:00Z&end=2027-03-02T00:00:00Z&timeZone=UTC") == ids[:1]
    assert listed_ids("date=2027-03-02&sort_order=asc") == ids[1:]
    assert listed_ids(f"date={MONDAY}&date=2027-03-02T09:00:00Z&sort_by=id") == ids[:2]
    assert listed_ids("date=2027-03-02T09:00:00Z") == ids[1:2]
    assert listed_ids("status=cancelled") == ids[2:]
    assert listed_ids(f"patient_id={second['patient_id']}") == ids[1:2]
    assert listed_ids(f"doctor_id={second['doctor_id']}&sort_by=start&sort_order=desc") == ids[::-1]
    assert listed_ids("sort_by=date&_order=DESC&per_page=1") == ids[2:]
    assert listed_ids("visit_id=987") == []


def test_appointments_are_searched_by_names_and_reason(clinic: Clinic) -> None:
    patient = clinic.patient(name="Łucja Nowak")["id"]
    doctor = clinic.doctor_row(name="Zoë Adeyemi")["id"]
    first = clinic.appointment(patient_id=patient, date=NINE, reason="Chest pain")["id"]
    second = clinic.appointment(doctor_id=doctor, date=NINE, reason="Follow-up")["id"]

    for query, expected in {
        "q=lucja": [first],
        "q=adeyemi": [second],
        "q=CHEST": [first],
        "patient_name=nowak": [first],
        "doctor_name=zoe": [second],
        "reason=follow": [second],
        "reason=follow&patient_name=nowak": [],
    }.items():
        answer = clinic.technician.get(f"/appointments/search?{query}")
        assert [row["id"] for row in answer.get_json()["appointments"]] == expected, query
        assert answer.get_json()["pagination"]["total_count"] == len(expected)


def test_a_list_is_audited_as_a_read_of_its_patients(clinic: Clinic) -> None:
    rows = [clinic.appointment(date=f"{MONDAY}T{time}") for time in ("09:00", "10:00")]
    clinic.technician.get("/appointments")

    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.operation == "GET /appointments")).one()
        assert (entry.action, entry.entity_ids) == ("list", [row["id"] for row in reversed(rows)])
        assert entry.patient_ids == sorted(row["patient_id"] for row in rows)
