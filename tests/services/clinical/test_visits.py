"""Visits: document, vitals and diagnoses, appointments, money, permissions, lists."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import AuditLog, AuditSubject
from tests.support.clinic import Clinic, soon
from tests.support.queries import count

CLINICAL = {
    "summary": "Viral infection",
    "procedure_details": "Throat swab",
    "chief_complaint": "Sore throat",
    "notes": "BP <120/80 & HR >60",
    "diagnoses": [{"icd10": "J02.9", "description": "Sore throat"}],
    "vitals": {"systolic": 118, "diastolic": 76},
    "prescriptions": [{"medications": [{"name": "Paracetamol"}]}],
}


def day(days: int) -> str:
    """Return the date `days` days from today, `YYYY-MM-DD`."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


# --- Documenting ---------------------------------------------------------------------------------------


def test_a_visit_of_a_doctor_needs_the_patient_only(clinic: Clinic) -> None:
    patient = clinic.patient()

    answer = clinic.doctor.post("/visits", {"patient_id": patient["id"]})

    row = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/visits/{row['id']}"
    assert (row["doctor_id"], row["status"]) == (clinic.doctor.doctor_id, "open")
    assert (row["patient_name"], row["patient"]) == (
        patient["name"],
        {"id": patient["id"], "name": patient["name"]},
    )
    assert (row["amount_paid"], row["balance"], row["vitals"]) == ("0.00", "0.00", None)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(row["date"])) < timedelta(minutes=1)


def test_the_doctor_is_required_unless_the_user_is_one(clinic: Clinic) -> None:
    patient = clinic.patient()

    answer = clinic.admin.post("/visits", {"patient_id": patient["id"]})

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["doctor_id"])


def test_a_visit_is_documented_with_treatments_and_prescriptions(clinic: Clinic) -> None:
    item = clinic.item(quantity=5)
    used = [{"item_id": item["id"], "quantity": 2}]
    patient = clinic.patient()

    answer = clinic.doctor.post(
        "/visits",
        {
            "patient_id": patient["id"],
            "treatments": [
                {
                    "name": "Dressing",
                    "cost": "40.00",
                    "inventory_items": used,
                },
                {"name": "Follow-up dressing", "cost": 40, "status": "planned"},
            ],
            **CLINICAL,
        },
    )

    row = answer.get_json()
    assert answer.status_code == 201
    assert [(treatment["name"], treatment["status"]) for treatment in row["treatments"]] == [
        ("Dressing", "completed"),
        ("Follow-up dressing", "planned"),
    ]
    assert row["treatments"][0]["inventory_used"][0]["quantity"] == 2
    assert row["prescriptions"][0]["medications"][0]["name"] == "Paracetamol"
    assert row["notes"] == CLINICAL["notes"]
    assert clinic.doctor.get(f"/visits/{row['id']}").get_json() == row


def test_insufficient_stock_for_a_treatment_refuses_the_whole_visit(clinic: Clinic) -> None:
    item = clinic.item(quantity=1)
    usages = [{"item_id": item["id"], "quantity": 2}]

    answer = clinic.doctor.post(
        "/visits",
        {
            "patient_id": clinic.patient()["id"],
            "treatments": [{"name": "Dressing", "cost": 40, "inventory_items": usages}],
        },
    )

    assert refusal(answer) == (409, "insufficient_stock")
    assert clinic.doctor.get("/visits").get_json() == []


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"date": soon(days=1)}, "date"),
        ({"date": "1979-12-31"}, "date"),
        ({"follow_up_date": day(-1)}, "follow_up_date"),
        ({"patient_id": 987654}, "patient_id"),
        ({"appointment_id": 987654}, "appointment_id"),
        ({"vitals": {"temperature_c": 98.6}}, "vitals.temperature_c"),
        ({"vitals": {"height_cm": 1.72}}, "vitals.height_cm"),
        ({"vitals": {"heart_rate": 700}}, "vitals.heart_rate"),
        ({"vitals": {"spo2": 101}}, "vitals.spo2"),
        ({"vitals": {"pulse": 70}}, "vitals.pulse"),
        ({"vitals": {"systolic": 80, "diastolic": 120}}, "vitals.diastolic"),
        ({"diagnoses": [{"icd10": "J02.9"}, {"icd10": "XYZ"}]}, "diagnoses.1.icd10"),
        ({"diagnoses": [{}]}, "diagnoses.0.description"),
        ({"treatments": [{"name": "X"}]}, "treatments.0.cost"),
        ({"amount_paid": "-5"}, "amount_paid"),
        ({"amount_paid": 5, "payment_method": "credit"}, "payment_method"),
    ],
)
def test_an_invalid_visit_reports_the_field(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    patient = clinic.patient(date_of_birth="1980-01-01")

    answer = clinic.doctor.post("/visits", {"patient_id": patient["id"]} | members)

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])


def test_a_visit_on_the_day_of_birth_is_accepted(clinic: Clinic) -> None:
    patient = clinic.patient(date_of_birth=day(0))

    vitals = {"weight_kg": 3.25, "height_cm": 50, "respiratory_rate": 60}
    row = clinic.doctor.make("/visits", patient_id=patient["id"], date=day(0), vitals=vitals)

    assert row["date"].startswith(day(0))
    assert row["vitals"]["bmi"] == 13.0


def test_a_diagnosis_code_gets_its_printed_form_and_official_title(clinic: Clinic) -> None:
    row = clinic.visit(diagnoses=[{"icd10": "j029"}, {"description": "Grief"}])

    assert row["diagnoses"] == [
        {"icd10": "J02.9", "description": "Acute pharyngitis, unspecified"},
        {"icd10": None, "description": "Grief"},
    ]


# --- Appointments --------------------------------------------------------------------------------------


def test_a_visit_completes_its_appointment(clinic: Clinic) -> None:
    booked = clinic.due_appointment()

    row = clinic.doctor.make("/visits", patient_id=booked["patient_id"], appointment_id=booked["id"])

    after = clinic.doctor.get(f"/appointments/{booked['id']}").get_json()
    assert (after["status"], after["visit_id"]) == ("completed", row["id"])
    assert row["doctor_id"] == booked["doctor_id"]


def test_a_visit_must_have_the_patient_and_doctor_of_its_appointment(clinic: Clinic) -> None:
    booked = clinic.due_appointment()
    other = clinic.sign_in("doctor")

    patient = clinic.admin.post(
        "/visits", {"patient_id": clinic.patient()["id"], "appointment_id": booked["id"]}
    )
    doctor = clinic.admin.post(
        "/visits",
        {
            "patient_id": booked["patient_id"],
            "appointment_id": booked["id"],
            "doctor_id": other.doctor_id,
        },
    )

    assert (patient.status_code, list(patient.get_json()["errors"])) == (422, ["patient_id"])
    assert (doctor.status_code, list(doctor.get_json()["errors"])) == (422, ["doctor_id"])
    assert clinic.doctor.get(f"/appointments/{booked['id']}").get_json()["status"] == "scheduled"


def test_no_visit_of_an_appointment_before_its_day(clinic: Clinic) -> None:
    booked = clinic.appointment(date=soon(days=20))
    body = {"patient_id": booked["patient_id"], "appointment_id": booked["id"]}
    row = clinic.visit(patient_id=booked["patient_id"])

    created = clinic.doctor.post("/visits", body)
    linked = clinic.doctor.patch(f"/visits/{row['id']}", {"appointment_id": booked["id"]})

    assert refusal(created) == refusal(linked) == (409, "invalid_transition")
    assert clinic.doctor.get(f"/appointments/{booked['id']}").get_json()["status"] == "scheduled"


def test_a_cancelled_appointment_cannot_have_a_visit(clinic: Clinic) -> None:
    booked = clinic.appointment()
    clinic.admin.delete(f"/appointments/{booked['id']}")

    answer = clinic.doctor.post(
        "/visits", {"patient_id": booked["patient_id"], "appointment_id": booked["id"]}
    )

    assert refusal(answer) == (409, "conflict")


def test_an_appointment_has_at_most_one_visit_that_is_not_voided(clinic: Clinic) -> None:
    booked = clinic.due_appointment()
    body = {"patient_id": booked["patient_id"], "appointment_id": booked["id"]}
    first = clinic.doctor.make("/visits", **body)

    second = clinic.doctor.post("/visits", body)
    clinic.admin.delete(f"/visits/{first['id']}", {"reason": "wrong notes"})
    third = clinic.doctor.post("/visits", body)

    assert refusal(second) == (409, "conflict")
    assert third.status_code == 201


def test_concurrent_visits_of_one_appointment_create_one_visit(clinic: Clinic) -> None:
    booked = clinic.due_appointment()
    body = {"patient_id": booked["patient_id"], "appointment_id": booked["id"]}
    doctor = clinic.doctor
    answers: list[int] = []

    threads = [
        threading.Thread(target=lambda: answers.append(doctor.post("/visits", body).status_code))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [201] + [409] * 5


def test_a_visit_may_get_an_appointment_later_but_cannot_lose_it(clinic: Clinic) -> None:
    booked = clinic.due_appointment()
    row = clinic.visit(patient_id=booked["patient_id"])
    path = f"/visits/{row['id']}"

    linked = clinic.doctor.patch(path, {"appointment_id": booked["id"]})
    removed = clinic.doctor.patch(path, {"appointment_id": None})

    assert linked.get_json()["appointment_id"] == booked["id"]
    assert clinic.doctor.get(f"/appointments/{booked['id']}").get_json()["status"] == "completed"
    assert refusal(removed) == (409, "read_only")


# --- Changes -------------------------------------------------------------------------------------------


def test_vitals_merge_member_by_member(clinic: Clinic) -> None:
    row = clinic.visit(vitals={"systolic": 120, "diastolic": 80, "heart_rate": 70})
    path = f"/visits/{row['id']}"

    merged = clinic.technician.patch(path, {"vitals": {"heart_rate": 75, "spo2": 98, "diastolic": None}})
    below = clinic.technician.patch(path, {"vitals": {"diastolic": 130}})
    cleared = clinic.technician.patch(path, {"vitals": None})

    vitals = merged.get_json()["vitals"]
    assert [vitals[name] for name in ("systolic", "diastolic", "heart_rate", "spo2")] == [120, None, 75, 98]
    assert (below.status_code, list(below.get_json()["errors"])) == (422, ["vitals.diastolic"])
    assert cleared.get_json()["vitals"] is None


def test_sending_back_the_whole_row_changes_only_the_edited_members(clinic: Clinic) -> None:
    row = clinic.visit(vitals={"weight_kg": 80, "height_cm": 200}, **{k: CLINICAL[k] for k in ("diagnoses",)})
    path = f"/visits/{row['id']}"

    edited = row | {"summary": "Well", "vitals": row["vitals"] | {"weight_kg": 100}}
    answer = clinic.doctor.put(path, edited, headers={"If-Match": '"1"'})
    same = clinic.doctor.put(path, answer.get_json())

    assert answer.status_code == 200
    assert answer.get_json()["vitals"]["bmi"] == 25.0
    assert answer.get_json()["diagnoses"] == row["diagnoses"]
    assert same.headers["ETag"] == answer.headers["ETag"] == '"2"'


def test_changed_diagnoses_replace_the_list_and_increase_the_version(clinic: Clinic) -> None:
    row = clinic.visit(diagnoses=[{"description": "Cough"}])
    path = f"/visits/{row['id']}"

    answer = clinic.doctor.patch(path, {"diagnoses": [{"icd10": "R05.9"}]})
    stale = clinic.doctor.patch(path, {"summary": "x"}, headers={"If-Match": '"1"'})

    assert [diagnosis["icd10"] for diagnosis in answer.get_json()["diagnoses"]] == ["R05.9"]
    assert refusal(stale) == (412, "stale_version")


def test_a_visit_cannot_move_to_another_patient(clinic: Clinic) -> None:
    row, other = clinic.visit(), clinic.patient()

    answer = clinic.doctor.patch(f"/visits/{row['id']}", {"patient_id": other["id"]})

    assert refusal(answer) == (409, "read_only")


def test_an_admin_may_change_the_doctor_unless_the_visit_has_an_appointment(clinic: Clinic) -> None:
    other = clinic.sign_in("doctor")
    booked = clinic.due_appointment()
    row = clinic.visit()
    with_appointment = clinic.visit(patient_id=booked["patient_id"], appointment_id=booked["id"])

    changed = clinic.admin.patch(f"/visits/{row['id']}", {"doctor_id": other.doctor_id})
    refused = clinic.admin.patch(f"/visits/{with_appointment['id']}", {"doctor_id": other.doctor_id})

    assert changed.get_json()["doctor"]["id"] == other.doctor_id
    assert refused.status_code == 422


# --- Money ---------------------------------------------------------------------------------------------


def test_a_payment_with_the_visit_becomes_credit_of_the_patient(clinic: Clinic) -> None:
    patient = clinic.patient()

    row = clinic.doctor.make("/visits", patient_id=patient["id"], amount_paid="30.00", payment_method="cash")

    assert (row["amount_paid"], row["balance"]) == ("30.00", "0.00")
    assert clinic.admin.get(f"/patients/{patient['id']}").get_json()["account_balance"] == "-30.00"


def test_amount_paid_and_balance_follow_the_bills_of_the_visit(clinic: Clinic) -> None:
    row = clinic.visit(
        treatments=[{"name": "Dressing", "cost": "100.00"}], amount_paid="30.00", payment_method="cash"
    )
    bill = clinic.admin.make("/billings", visit_id=row["id"])

    def amounts() -> tuple[str, str]:
        visit = clinic.admin.get(f"/visits/{row['id']}").get_json()
        return visit["amount_paid"], visit["balance"]

    def pay(amount: str, method: str) -> None:
        clinic.admin.make(f"/billings/{bill['id']}/payments", amount=amount, method=method)

    assert amounts() == ("30.00", "100.00")
    pay("30.00", "credit")  # moves the same 30.00 from the account to the bill
    assert amounts() == ("30.00", "70.00")
    pay("20.00", "card")
    assert amounts() == ("50.00", "50.00")


# --- Permissions ---------------------------------------------------------------------------------------


def test_a_doctor_writes_own_visits_only(clinic: Clinic) -> None:
    row = clinic.visit()
    other = clinic.sign_in("doctor")
    path = f"/visits/{row['id']}"

    assert other.get(path).status_code == 200
    assert other.patch(path, {"notes": "x"}).status_code == 403
    assert other.post(f"{path}/sign").status_code == 403
    assert clinic.doctor.delete(path, {"reason": "x"}).status_code == 403
    body = {"patient_id": row["patient_id"], "doctor_id": row["doctor_id"]}
    assert other.post("/visits", body).status_code == 403
    assert clinic.doctor.patch(path, {"doctor_id": other.doctor_id}).status_code == 403
    clinic.doctor.post(f"{path}/sign")
    assert other.post(f"{path}/addenda", {"text": "x"}).status_code == 403


def test_a_technician_records_vitals_only(clinic: Clinic) -> None:
    row = clinic.visit()
    path = f"/visits/{row['id']}"

    refused = clinic.technician.patch(path, {"vitals": {"spo2": 97}, "notes": "x"})
    shown = clinic.technician.get(path).get_json()
    whole = clinic.technician.put(path, shown | {"vitals": {"spo2": 97}})

    assert (refused.status_code, list(refused.get_json()["errors"])) == (403, ["notes"])
    assert whole.get_json()["vitals"]["spo2"] == 97
    assert not {"amount_paid", "balance"} & set(shown)
    assert clinic.technician.post(f"{path}/sign").status_code == 403
    assert clinic.technician.post("/visits", {"patient_id": row["patient_id"]}).status_code == 403


def test_a_receptionist_sees_no_clinical_fields(clinic: Clinic) -> None:
    row = clinic.visit(treatments=[{"name": "Dressing", "cost": 1, "notes": "anxious"}], **CLINICAL)
    path = f"/visits/{row['id']}"

    shown = clinic.receptionist.get(path).get_json()

    assert not {*CLINICAL, "addenda"} & set(shown)
    assert shown["treatments"][0]["name"] == "Dressing"
    assert "notes" not in shown["treatments"][0]
    assert clinic.receptionist.get("/visits").get_json() == [shown]
    assert clinic.receptionist.get("/visits?sort_by=summary").status_code == 403
    assert clinic.receptionist.get("/visits?notes_like=a").status_code == 403
    assert clinic.receptionist.patch(path, {"visit_type": "x"}).status_code == 403


# --- Lists and audit -----------------------------------------------------------------------------------


def test_follow_up_due_lists_visits_without_a_later_visit(clinic: Clinic) -> None:
    due = clinic.visit(date=day(-10), follow_up_date=day(-1))
    clinic.visit(date=day(-10), follow_up_date=day(1))
    clinic.visit(date=day(-10))
    seen = clinic.visit(date=day(-10), follow_up_date=day(-1))
    clinic.visit(patient_id=seen["patient_id"], date=day(-2))
    void = clinic.visit(date=day(-10), follow_up_date=day(-1))
    clinic.admin.delete(f"/visits/{void['id']}", {"reason": "x"})

    due_visits = clinic.receptionist.get("/visits?follow_up_due=true").get_json()
    others = clinic.receptionist.get("/visits?follow_up_due=false").get_json()

    assert [row["id"] for row in due_visits] == [due["id"]]
    assert len(others) == 5


def test_the_list_filters_by_status_date_patient_and_name(clinic: Clinic) -> None:
    earlier = clinic.visit(patient_id=clinic.patient(name="Łukasz Nowak")["id"], date=day(-3))
    signed = clinic.visit()
    clinic.doctor.post(f"/visits/{signed['id']}/sign")

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.doctor.get(f"/visits?{query}").get_json()]

    assert (
        ids("status=open") == ids("q=lukasz") == ids(f"patient_id={earlier['patient_id']}") == [earlier["id"]]
    )
    assert ids("status=signed") == ids(f"start_date={day(-1)}") == [signed["id"]]
    assert ids("status=void") == []
    assert ids("sort_by=date&sort_order=desc") == [signed["id"], earlier["id"]]
    assert clinic.doctor.get("/visits?status=closed").status_code == 422


def test_the_list_needs_the_same_number_of_queries_for_any_length(clinic: Clinic) -> None:
    def busy_visit() -> None:
        doctor = clinic.sign_in("doctor")
        clinic.visit(
            doctor_id=doctor.doctor_id,
            treatments=[{"name": "Dressing", "cost": 1}],
            **CLINICAL,
        )

    busy_visit()
    few = count(clinic, clinic.admin, "/visits?per_page=100")
    for _ in range(3):
        busy_visit()

    assert count(clinic, clinic.admin, "/visits?per_page=100") == few


def test_signing_and_reading_write_one_audit_entry_each_about_the_patient(clinic: Clinic) -> None:
    row = clinic.visit()

    clinic.doctor.post(f"/visits/{row['id']}/sign")
    clinic.doctor.get(f"/visits/{row['id']}")

    with clinic.inside() as session:
        entries = session.query(AuditLog).filter_by(user_id=clinic.doctor.user_id).order_by(AuditLog.id)
        rows = [(entry.action, entry.entity, entry.entity_id) for entry in entries]
        subjects = session.query(AuditSubject).filter_by(patient_id=row["patient_id"]).count()
    assert rows == [("sign", "visit", row["id"]), ("read", "visit", row["id"])]
    assert subjects >= 3
