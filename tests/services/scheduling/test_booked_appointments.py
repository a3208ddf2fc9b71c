"""Changes of a doctor's calendar over booked appointments."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.support import booking
from tests.support.booking import URGENT
from tests.support.clinic import Clinic
from tests.support.concurrency import run_concurrently

monday_morning = booking.monday_morning
TUESDAY = "2027-03-02"
DAYTIME = [{"weekday": day, "start": "08:00", "end": "18:00"} for day in range(7)]
# The change, and the indexes of the appointments that no longer fit after it. They are on Tuesday at 09:00,
# 09:30, 14:00 and 17:30, and on Friday at 10:00; each takes 30 minutes.
STARTS = [f"{TUESDAY}T09:00", f"{TUESDAY}T09:30", f"{TUESDAY}T14:00", f"{TUESDAY}T17:30", "2027-03-05T10:00"]
SCHEDULE = "/schedule"
CHANGES: dict[str, tuple[str, str, dict[str, Any], list[int]]] = {
    "shorter hours": (
        "PUT",
        SCHEDULE,
        {"windows": [window | {"end": "17:00"} for window in DAYTIME]},
        [3],
    ),
    "a free weekday": ("PUT", SCHEDULE, {"windows": DAYTIME[:4]}, [4]),
    "a break": (
        "PUT",
        SCHEDULE,
        {
            "windows": [window | {"end": "14:15"} for window in DAYTIME]
            + [window | {"start": "14:20"} for window in DAYTIME]
        },
        [2],
    ),
    "a longer buffer": ("PATCH", "", {"buffer_minutes": 10}, [0, 1]),
    "an earlier end of the licence": ("PATCH", "", {"license_expires_on": "2027-03-04"}, [4]),
    "a licence that has ended": ("PUT", "", {"license_expires_on": "2027-02-01"}, [0, 1, 2, 3, 4]),
    "two changes": ("PATCH", "", {"license_expires_on": "2027-03-04", "buffer_minutes": 10}, [0, 1, 4]),
}
FINAL: dict[str, tuple[str, str, dict[str, Any], list[int]]] = {
    "time off": ("POST", "/time-off", {"start": TUESDAY, "end": TUESDAY}, [0, 1, 2, 3]),
    "deactivation": ("PATCH", "", {"is_active": False, "buffer_minutes": 0}, [0, 1, 2, 3, 4]),
}


class Booked:
    """A doctor with hours and appointments."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.doctor = clinic.doctor_row(license_expires_on="2027-12-31")["id"]
        clinic.admin.put(f"/doctors/{self.doctor}/schedule", {"windows": DAYTIME})
        self.rows = [clinic.appointment(doctor_id=self.doctor, date=start) for start in STARTS]

    def change(self, change: tuple[str, str, dict[str, Any], list[int]], **choice: Any) -> Any:
        method, path, body, _affected = change
        return self.clinic.admin.send(method, f"/doctors/{self.doctor}{path}", body | choice)

    def members(self, name: str) -> list[Any]:
        return [self.clinic.admin.get(f"/appointments/{row['id']}").get_json()[name] for row in self.rows]

    def outside_hours(self) -> list[int]:
        answer = self.clinic.admin.get("/appointments?outside_hours=true&sort_by=id&sort_order=asc")
        assert answer.headers["X-Total-Count"] == str(len(answer.get_json()))
        return [[row["id"] for row in self.rows].index(row["id"]) for row in answer.get_json()]


@pytest.mark.parametrize("name", [*CHANGES, *FINAL])
def test_a_change_over_booked_appointments_is_refused_and_lists_them(clinic: Clinic, name: str) -> None:
    booked, change = Booked(clinic), (CHANGES | FINAL)[name]

    refused = booked.change(change)

    problem = refused.get_json()
    assert (refused.status_code, problem["error"]) == (409, "booked_appointments")
    assert [row["id"] for row in problem["appointments"]] == [booked.rows[n]["id"] for n in change[3]]
    assert problem["total"] == len(change[3])
    assert booked.outside_hours() == []
    entries = clinic.admin.get(f"/patients/{booked.rows[change[3][0]]['patient_id']}/access-log").get_json()
    assert [entry["outcome"] for entry in entries].count("refused") == 1

    cancelled = booked.change(change, on_conflict="cancel")

    assert cancelled.status_code in (200, 201), cancelled.get_json()
    expected = ["cancelled" if n in change[3] else "scheduled" for n in range(len(STARTS))]
    assert booked.members("status") == expected
    assert {row for row in booked.members("cancelled_by") if row} == {"clinic"}
    assert all((row is not None) is (n in change[3]) for n, row in enumerate(booked.members("cancelled_at")))


@pytest.mark.parametrize("name", CHANGES)
def test_appointments_can_be_kept_and_are_listed(clinic: Clinic, name: str) -> None:
    booked, change = Booked(clinic), CHANGES[name]

    kept = booked.change(change, on_conflict="keep")
    again = booked.change(("PATCH", "", {"slot_minutes": 20, "buffer_minutes": 0}, []))

    assert (kept.status_code, again.status_code) == (200, 200)
    assert booked.members("status") == ["scheduled"] * len(STARTS)
    assert booked.outside_hours() == [n for n in change[3] if n > 1 or "buffer" not in str(change)]
    others = clinic.admin.get("/appointments?outside_hours=false").get_json()
    assert len(others) == len(STARTS) - len(booked.outside_hours())


@pytest.mark.parametrize("name", ["a break", "two changes", *FINAL])
def test_appointments_can_be_reassigned(clinic: Clinic, name: str) -> None:
    booked, change = Booked(clinic), (CHANGES | FINAL)[name]
    other = clinic.doctor_row()["id"]

    moved = booked.change(change, on_conflict={"reassign_to": other})

    assert moved.status_code in (200, 201), moved.get_json()
    assert booked.members("doctor_id") == [
        other if n in change[3] else booked.doctor for n in range(len(STARTS))
    ]
    assert booked.members("reschedule_count") == [0] * len(STARTS)


@pytest.mark.parametrize("name", FINAL)
def test_time_off_and_deactivation_cannot_keep_appointments(clinic: Clinic, name: str) -> None:
    booked = Booked(clinic)

    answer = booked.change(FINAL[name], on_conflict="keep")

    assert answer.status_code == 422
    assert all(field.startswith("on_conflict") for field in answer.get_json()["errors"])
    assert booked.members("status") == ["scheduled"] * len(STARTS)


def test_only_newly_affected_appointments_need_a_choice(clinic: Clinic) -> None:
    booked = Booked(clinic)
    overbooked = clinic.appointment(doctor_id=booked.doctor, date=f"{TUESDAY}T20:00", **URGENT)
    busy = clinic.appointment(doctor_id=booked.doctor, date=f"{TUESDAY}T14:10", **URGENT)
    booked.change(CHANGES["shorter hours"], on_conflict="keep")

    longer_buffer = booked.change(("PATCH", "", {"buffer_minutes": 5}, []), on_conflict="keep")
    more_hours = booked.change(("PUT", SCHEDULE, {"windows": DAYTIME[:6]}, []))
    no_windows = booked.change(("PUT", SCHEDULE, {"windows": []}, []))

    assert (longer_buffer.status_code, more_hours.status_code, no_windows.status_code) == (200, 200, 200)
    shown = clinic.admin.get("/appointments?outside_hours=true").get_json()
    assert not {overbooked["id"], busy["id"]} & {row["id"] for row in shown}


def test_a_doctor_may_change_own_hours_and_cancel_own_appointments(clinic: Clinic) -> None:
    doctor, other = clinic.doctor.doctor_id, clinic.doctor_row()["id"]
    clinic.appointment(doctor_id=doctor, date=f"{TUESDAY}T09:00")
    body = {"windows": [{"weekday": 0, "start": "09:00", "end": "12:00"}]}
    path = f"/doctors/{doctor}/schedule"

    refused = clinic.doctor.put(path, body)
    reassigned = clinic.doctor.put(path, body | {"reassign_to": other})
    both = clinic.doctor.put(path, body | {"reassign_to": other, "on_conflict": "cancel"})
    unknown = clinic.admin.put(path, body | {"on_conflict": {"reassign_to": 987}})
    cancelled = clinic.doctor.put(path, body | {"on_conflict": "cancel"})

    answers = (refused, reassigned, both, unknown, cancelled)
    assert [answer.status_code for answer in answers] == [409, 403, 422, 422, 200]
    assert "ask an administrator to reassign" in refused.get_json()["message"]
    assert "reassign_to" not in refused.get_json()["message"]


def test_a_concurrent_booking_is_never_left_outside_new_hours(clinic: Clinic) -> None:
    booked = Booked(clinic)
    patients = [clinic.patient()["id"] for _ in range(6)]
    admin, path = clinic.admin, f"/doctors/{booked.doctor}/schedule"
    booked.change(CHANGES["shorter hours"], on_conflict="cancel")
    booked.change(("PUT", SCHEDULE, {"windows": DAYTIME}, []))

    def book(patient: int) -> int:
        body = {"doctor_id": booked.doctor, "patient_id": patient, "date": f"{TUESDAY}T17:15"}
        return admin.post("/appointments", body).status_code

    def shorten() -> int:
        return admin.put(path, CHANGES["shorter hours"][2]).status_code

    statuses = run_concurrently([*(partial(book, patient) for patient in patients), shorten])

    assert sorted(statuses) in ([200] + [409] * 6, [201] + [409] * 6)
    assert booked.outside_hours() == []
