"""Doctors: profiles, user accounts, and deactivation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from sqlalchemy import select

from models import Appointment, AuditLog, Doctor
from tests.support import booking
from tests.support.booking import MONDAY
from tests.support.clinic import PASSWORD, Clinic

monday_morning = booking.monday_morning


# --- Creation ------------------------------------------------------------------------------------------


def test_a_doctor_is_created_with_name_specialty_and_licence(clinic: Clinic) -> None:
    row = clinic.admin.make("/doctors", name="Łucja Øster", specialty="cardiology", license_number="L 77/b")

    created = {name: row.pop(name) for name in ("created_at", "updated_at", "id")}
    assert row == {
        "user_id": None,
        "name": "Łucja Øster",
        "email": None,
        "phone": None,
        "specialty": "cardiology",
        "specialties": [],
        "license_number": "L 77/b",
        "license_expires_on": None,
        "certifications": [],
        "consultation_fee": "0.00",
        "slot_minutes": 30,
        "buffer_minutes": 0,
        "is_active": True,
        "next_available": "2027-03-01T08:30:00+00:00",
        "patient_count": 0,
    }
    assert clinic.technician.get(f"/doctors/{created['id']}").get_json() == row | created


REQUIRED_MEMBERS: list[Any] = ["name", "specialty", "license_number"]


def test_a_missing_required_member_is_422(clinic: Clinic) -> None:
    for missing in REQUIRED_MEMBERS:
        body = {"name": "Amina", "specialty": "surgery", "license_number": "L-1"}
        del body[missing]

        answer = clinic.admin.post("/doctors", body)

        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [missing])


INVALID_MEMBERS: list[Any] = [
    ("slot_minutes", 4),
    ("slot_minutes", 481),
    ("buffer_minutes", -1),
    ("buffer_minutes", 241),
    ("consultation_fee", -1),
    ("consultation_fee", "1.001"),
    ("license_expires_on", "soon"),
    ("specialty", ""),
    ("specialties", [1]),
    ("shoe_size", 43),
]


def test_an_invalid_member_is_422_and_named(clinic: Clinic) -> None:
    for member, value in INVALID_MEMBERS:
        body = {"name": "Amina", "specialty": "surgery", "license_number": "L-1", member: value}

        answer = clinic.admin.post("/doctors", body)

        assert answer.status_code == 422, member
        assert any(field.startswith(member) for field in answer.get_json()["errors"])


def test_a_licence_number_is_unique(clinic: Clinic) -> None:
    first = clinic.doctor_row(license_number="L-9")
    second = clinic.doctor_row()
    clinic.admin.delete(f"/doctors/{first['id']}")

    again = clinic.admin.post("/doctors", {"name": "B", "specialty": "x", "license_number": "L-9"})
    changed = clinic.admin.patch(f"/doctors/{second['id']}", {"license_number": "L-9"})

    for answer in (again, changed):
        assert (answer.status_code, answer.get_json()["error"]) == (409, "already_exists")
        assert "license_number" in answer.get_json()["errors"]


def test_a_doctor_can_be_created_with_a_new_user(clinic: Clinic) -> None:
    row = clinic.doctor_row(name="Amina Yusuf", user={"email": "Amina@clinic.example", "password": PASSWORD})

    user = clinic.admin.get(f"/users/{row['user_id']}").get_json()
    assert (user["name"], user["email"], user["role"]) == ("Amina Yusuf", "Amina@clinic.example", "doctor")
    assert (user["is_active"], user["doctor_id"]) == (True, row["id"])
    assert row["email"] == "Amina@clinic.example"


def test_a_refused_user_or_doctor_creates_neither(clinic: Clinic) -> None:
    clinic.doctor_row(license_number="L-9")
    user = {"email": "amina@clinic.example", "password": PASSWORD}

    taken = clinic.admin.post(
        "/doctors", {"name": "A", "specialty": "x", "license_number": "L-9", "user": user}
    )
    weak = clinic.admin.post(
        "/doctors",
        {"name": "A", "specialty": "x", "license_number": "L-10", "user": user | {"password": "short"}},
    )

    assert (taken.status_code, weak.status_code) == (409, 422)
    assert clinic.admin.get("/users?q=amina@").get_json() == []
    assert clinic.admin.get("/doctors?license_number=L-10").get_json() == []


def test_a_doctor_can_be_created_with_an_existing_user(clinic: Clinic) -> None:
    user = clinic.admin.make("/users", name="Amina", email="a@b.example", password=PASSWORD, role="doctor")

    row = clinic.admin.make("/doctors", user_id=user["id"], specialty="surgery", license_number="L-1")

    assert (row["name"], row["user_id"]) == ("Amina", user["id"])
    second = {"user_id": user["id"], "specialty": "surgery", "license_number": "L-2"}
    answer = clinic.admin.post("/doctors", second)
    assert (answer.status_code, answer.get_json()["error"]) == (409, "already_exists")


@pytest.mark.parametrize("who", ["receptionist", "nobody", "both"])
def test_the_user_of_a_doctor_must_have_the_role_doctor(clinic: Clinic, who: str) -> None:
    body: dict[str, Any] = {"name": "A", "specialty": "surgery", "license_number": "L-1"}
    body["user_id"] = 987 if who == "nobody" else clinic.receptionist.user_id
    if who == "both":
        body["user"] = {"email": "a@b.example", "password": PASSWORD}

    answer = clinic.admin.post("/doctors", body)

    assert answer.status_code == 422
    assert {"user_id", "user"} & set(answer.get_json()["errors"])


# --- Changes -------------------------------------------------------------------------------------------


def test_a_doctor_may_change_their_profile_except_clinic_only_members(clinic: Clinic) -> None:
    own = f"/doctors/{clinic.doctor.doctor_id}"
    other = clinic.doctor_row()

    answer = clinic.doctor.patch(
        own, {"phone": "555-767-7476", "slot_minutes": 20, "specialties": ["asthma"]}
    )

    assert answer.status_code == 200
    assert (answer.get_json()["slot_minutes"], answer.get_json()["specialties"]) == (20, ["asthma"])
    for member, value in {
        "license_number": "L-77",
        "license_expires_on": "2030-01-01",
        "consultation_fee": "80.00",
        "user_id": None,
        "user": {"email": "x@y.example", "password": PASSWORD},
        "is_active": False,
    }.items():
        refused = clinic.doctor.patch(own, {member: value})
        assert (refused.status_code, list(refused.get_json()["errors"])) == (403, [member])
    assert clinic.doctor.patch(f"/doctors/{other['id']}", {"phone": "555-767-7476"}).status_code == 403
    assert clinic.doctor.delete(own).status_code == 403


def test_a_put_of_the_whole_row_applies_the_changed_members(clinic: Clinic) -> None:
    row = clinic.doctor.get(f"/doctors/{clinic.doctor.doctor_id}").get_json()

    answer = clinic.doctor.put(f"/doctors/{row['id']}", row | {"phone": "555-767-7476", "patient_count": 99})

    assert answer.status_code == 200
    assert (answer.get_json()["phone"], answer.get_json()["patient_count"]) == ("555-767-7476", 0)


def test_a_stale_version_is_refused(clinic: Clinic) -> None:
    path = f"/doctors/{clinic.doctor_row()['id']}"
    tag = clinic.admin.get(path).headers["ETag"]
    first = clinic.admin.patch(path, {"phone": "555-767-7476"}, headers={"If-Match": tag})

    second = clinic.admin.patch(path, {"phone": "555-767-7477"}, headers={"If-Match": tag})

    assert (first.status_code, second.status_code) == (200, 412)
    assert first.headers["ETag"] != tag


def test_a_user_can_be_added_and_removed_later(clinic: Clinic) -> None:
    path = f"/doctors/{clinic.doctor_row()['id']}"
    user = {"email": "late@clinic.example", "password": PASSWORD}

    added = clinic.admin.patch(path, {"user": user})
    second = clinic.admin.patch(path, {"user": user | {"email": "other@clinic.example"}})
    removed = clinic.admin.patch(path, {"user_id": None})

    assert added.get_json()["user_id"] is not None
    assert second.status_code == 422
    assert removed.get_json()["user_id"] is None


def test_a_change_writes_one_audit_entry(clinic: Clinic) -> None:
    row = clinic.doctor_row()
    clinic.admin.patch(f"/doctors/{row['id']}", {"name": "New Name", "slot_minutes": 45})

    with clinic.inside() as session:
        entry = session.scalars(
            select(AuditLog).where(AuditLog.operation == "PATCH /doctors/<int:doctor_id>")
        ).one()
        assert (entry.action, entry.entity, entry.entity_id) == ("update", "doctor", row["id"])
        assert (entry.fields, entry.user_id) == (["name", "slot_minutes"], clinic.admin.user_id)


def test_a_new_buffer_applies_to_booked_appointments_up_to_the_next_one(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    first, second = (
        clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T{time}") for time in ("09:00", "09:40")
    )

    def blocked() -> list[str]:
        with clinic.inside() as session:
            rows = [session.get(Appointment, row["id"]) for row in (first, second)]
            assert [row.version for row in rows] == [1, 1]
            return [row.blocked_until.strftime("%H:%M") for row in rows]

    assert (
        clinic.admin.patch(f"/doctors/{doctor}", {"buffer_minutes": 20, "on_conflict": "keep"}).status_code
        == 200
    )
    assert blocked() == ["09:40", "10:30"]
    assert clinic.admin.patch(f"/doctors/{doctor}", {"buffer_minutes": 5}).status_code == 200
    assert blocked() == ["09:35", "10:15"]


# --- Search --------------------------------------------------------------------------------------------


def test_doctors_are_found_by_parts_of_name_specialty_and_licence(clinic: Clinic) -> None:
    doctor_id = clinic.doctor_row(
        name="Łucja Øster", specialty="Cardiology", specialties=["Échographie"], license_number="KT-88"
    )["id"]
    clinic.doctor_row(name="Amina Yusuf", specialty="Surgery")

    for query in ("q=oster", "q=lucja", "q=cardio", "q=kt-8", "name=oster", "specialty=CARDIO", "q=Échogr"):
        answer = clinic.receptionist.get(f"/doctors/search?{query}")
        assert [row["id"] for row in answer.get_json()["doctors"]] == [doctor_id], query
    assert answer.get_json()["pagination"]["total_count"] == 1


def test_doctors_are_filtered_and_sorted(clinic: Clinic) -> None:
    rows = [clinic.doctor_row(consultation_fee=fee) for fee in ("30.00", "10.00", "20.00")]
    clinic.admin.delete(f"/doctors/{rows[2]['id']}")

    answer = clinic.technician.get("/doctors?is_active=true&sort_by=consultation_fee&consultation_fee_gte=10")

    assert [row["id"] for row in answer.get_json()] == [rows[1]["id"], rows[0]["id"]]
    assert answer.headers["Content-Range"] == "doctors 0-1/2"
    assert clinic.admin.get("/doctors?colour=red").status_code == 422


def test_patient_count_counts_each_patient_once(clinic: Clinic) -> None:
    doctor, patients = clinic.doctor.doctor_id, [clinic.patient()["id"] for _ in range(3)]
    for patient, time in ((0, "09:00"), (0, "10:00"), (1, "11:00")):
        clinic.appointment(doctor_id=doctor, patient_id=patients[patient], date=f"{MONDAY}T{time}")
    cancelled = clinic.appointment(doctor_id=doctor, patient_id=patients[2], date=f"{MONDAY}T12:00")
    clinic.admin.delete(f"/appointments/{cancelled['id']}")

    assert clinic.admin.get(f"/doctors/{doctor}").get_json()["patient_count"] == 2


def test_an_unknown_doctor_is_404(clinic: Clinic) -> None:
    assert clinic.admin.get("/doctors/987").status_code == 404
    assert clinic.admin.patch("/doctors/987", {"phone": "555-1234"}).status_code == 404


# --- Deactivation --------------------------------------------------------------------------------------


def test_a_deactivated_doctor_stays_visible_and_can_be_activated(clinic: Clinic) -> None:
    path = f"/doctors/{clinic.doctor_row()['id']}"

    deactivated = clinic.admin.delete(path)
    activated = clinic.admin.patch(path, {"is_active": True})

    assert (
        deactivated.status_code,
        deactivated.get_json()["is_active"],
        deactivated.get_json()["next_available"],
    ) == (
        200,
        False,
        None,
    )
    assert activated.get_json()["is_active"] is True
    with clinic.inside() as session:
        actions = session.scalars(select(AuditLog.action).where(AuditLog.entity == "doctor")).all()
    assert actions[-2:] == ["deactivate", "activate"]


@pytest.mark.parametrize("way", ["DELETE", "PATCH"])
def test_deactivation_with_booked_appointments_is_refused_without_a_choice(clinic: Clinic, way: str) -> None:
    doctor = clinic.doctor_row()["id"]
    booked = [clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T{time}") for time in ("11:00", "09:00")]

    body = {"is_active": False} if way == "PATCH" else None
    answer = clinic.admin.send(way, f"/doctors/{doctor}", body)

    problem = answer.get_json()
    assert (answer.status_code, problem["error"], problem["total"]) == (409, "booked_appointments", 2)
    assert [row["id"] for row in problem["appointments"]] == [booked[1]["id"], booked[0]["id"]]
    assert clinic.admin.get(f"/doctors/{doctor}").get_json()["is_active"] is True


@pytest.mark.parametrize("way", ["DELETE body", "DELETE query", "PATCH"])
def test_deactivation_can_cancel_booked_appointments(clinic: Clinic, way: str) -> None:
    doctor = clinic.doctor_row()["id"]
    booked = clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")

    if way == "PATCH":
        answer = clinic.admin.patch(f"/doctors/{doctor}", {"is_active": False, "on_conflict": "cancel"})
    elif way == "DELETE body":
        answer = clinic.admin.delete(f"/doctors/{doctor}", {"on_conflict": "cancel"})
    else:
        answer = clinic.admin.delete(f"/doctors/{doctor}?on_conflict=cancel")

    assert (answer.status_code, answer.get_json()["is_active"]) == (200, False)
    row = clinic.admin.get(f"/appointments/{booked['id']}").get_json()
    assert (row["status"], row["cancelled_by"]) == ("cancelled", "clinic")


@pytest.mark.parametrize("way", ["nested", "flat", "query"])
def test_deactivation_can_reassign_booked_appointments(clinic: Clinic, way: str) -> None:
    doctor, other = clinic.doctor_row()["id"], clinic.doctor_row()["id"]
    booked = [clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T{time}") for time in ("09:00", "11:00")]

    if way == "query":
        answer = clinic.admin.delete(f"/doctors/{doctor}?reassign_to={other}")
    else:
        choice: dict[str, Any] = {"reassign_to": other}
        body = {"on_conflict": choice} if way == "nested" else choice
        answer = clinic.admin.delete(f"/doctors/{doctor}", body)

    assert answer.status_code == 200
    rows = [clinic.admin.get(f"/appointments/{row['id']}").get_json() for row in booked]
    assert [(row["doctor_id"], row["status"]) for row in rows] == [(other, "scheduled")] * 2


def test_a_refused_reassignment_keeps_the_doctor_active(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    other = clinic.doctor_row(license_expires_on=MONDAY)["id"]
    rows = [
        clinic.appointment(doctor_id=doctor, date=date) for date in (f"{MONDAY}T09:00", "2027-03-02T09:00")
    ]

    answer = clinic.admin.delete(f"/doctors/{doctor}", {"reassign_to": other})

    assert (answer.status_code, answer.get_json()["error"]) == (409, "appointment_conflict")
    assert [c["code"] for c in answer.get_json()["conflicts"]] == ["license_expired"]
    with clinic.inside() as session:
        assert session.get(Doctor, doctor).is_active is True
        assert [session.get(Appointment, row["id"]).doctor_id for row in rows] == [doctor, doctor]


def test_past_appointments_do_not_prevent_deactivation(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.appointment(doctor_id=doctor, date=f"{MONDAY}T09:00")

    with time_machine.travel(datetime(2027, 3, 2, 8, tzinfo=UTC)):
        answer = clinic.sign_in("admin").delete(f"/doctors/{doctor}")

    assert answer.status_code == 200
