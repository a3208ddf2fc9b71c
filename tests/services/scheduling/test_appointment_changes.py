"""What becomes of an appointment: moved, missed, completed, cancelled; whose it is, and how it is found."""

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
    audited,
    codes,
    later,
    wish,
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
        row = clinic.admin.make("/appointments", **wish(clinic, duration=45))

        moved = clinic.admin.patch(f"/appointments/{row['id']}", change)

        assert moved.status_code == 200
        told = moved.get_json()
        assert (told["start"][11:16], told["end"][11:16], told["date"]) == (start, end, told["start"])
        assert audited(clinic, "PATCH")[-1] == "reschedule"


def test_a_grid_that_sends_the_whole_row_back_moves_by_the_member_it_changed(clinic: Clinic) -> None:
    row = clinic.admin.make("/appointments", **wish(clinic))

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


def test_a_change_that_contradicts_itself_is_422(clinic: Clinic) -> None:
    for change, field in CONTRADICTIONS:
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
    assert "reassign" in audited(clinic, "PATCH")
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
    assert audited(clinic, "PATCH")[-1] == "no_show"


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
    assert audited(clinic, "PATCH")[-1] == "reopen"


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
    assert audited(clinic, "DELETE")[-1] == "cancel"


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
    assert audited(clinic, "POST /appointments/<") == ["check_in", "read"]
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
