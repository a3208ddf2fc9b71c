"""Visits: documenting, vitals and diagnoses, appointments, money, signing, voiding, who sees what."""

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
    """A date so many days from now, `YYYY-MM-DD`."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


# --- Documenting ---------------------------------------------------------------------------------------


def test_a_doctor_documents_an_own_visit_with_a_patient_alone(clinic: Clinic) -> None:
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


def test_whoever_is_no_doctor_names_one(clinic: Clinic) -> None:
    patient = clinic.patient()

    answer = clinic.admin.post("/visits", {"patient_id": patient["id"]})

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["doctor_id"])


def test_a_visit_comes_with_treatments_and_prescriptions(clinic: Clinic) -> None:
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
    assert [(one["name"], one["status"]) for one in row["treatments"]] == [
        ("Dressing", "completed"),
        ("Follow-up dressing", "planned"),
    ]
    assert row["treatments"][0]["inventory_used"][0]["quantity"] == 2
    assert row["prescriptions"][0]["medications"][0]["name"] == "Paracetamol"
    assert row["notes"] == CLINICAL["notes"]
    assert clinic.doctor.get(f"/visits/{row['id']}").get_json() == row


def test_a_visit_whose_treatment_is_short_of_stock_is_not_documented_at_all(clinic: Clinic) -> None:
    item = clinic.item(quantity=1)
    wanted = [{"item_id": item["id"], "quantity": 2}]

    answer = clinic.doctor.post(
        "/visits",
        {
            "patient_id": clinic.patient()["id"],
            "treatments": [{"name": "Dressing", "cost": 40, "inventory_items": wanted}],
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
        ({"status": "signed"}, "status"),
    ],
)
def test_a_wrong_visit_is_refused_by_the_name_of_the_field(
    clinic: Clinic, members: dict[str, Any], field: str
) -> None:
    patient = clinic.patient(date_of_birth="1980-01-01")

    answer = clinic.doctor.post("/visits", {"patient_id": patient["id"]} | members)

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])


def test_a_newborn_is_seen_on_the_day_of_birth(clinic: Clinic) -> None:
    patient = clinic.patient(date_of_birth=day(0))

    vitals = {"weight_kg": 3.25, "height_cm": 50, "respiratory_rate": 60}
    row = clinic.doctor.make("/visits", patient_id=patient["id"], date=day(0), vitals=vitals)

    assert row["date"].startswith(day(0))
    assert row["vitals"]["bmi"] == 13.0


def test_codes_are_printed_and_described_by_the_table(clinic: Clinic) -> None:
    row = clinic.visit(diagnoses=[{"icd10": "j029"}, {"description": "Grief"}])

    assert row["diagnoses"] == [
        {"icd10": "J02.9", "description": "Acute pharyngitis, unspecified"},
        {"icd10": None, "description": "Grief"},
    ]


# --- Appointments --------------------------------------------------------------------------------------


def test_a_visit_completes_its_appointment(clinic: Clinic) -> None:
    booked = clinic.appointment()

    row = clinic.doctor.make("/visits", patient_id=booked["patient_id"], appointment_id=booked["id"])

    after = clinic.doctor.get(f"/appointments/{booked['id']}").get_json()
    assert (after["status"], after["visit_id"]) == ("completed", row["id"])
    assert row["doctor_id"] == booked["doctor_id"]


def test_a_visit_agrees_with_its_appointment(clinic: Clinic) -> None:
    booked = clinic.appointment()
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


def test_a_cancelled_appointment_has_no_visit(clinic: Clinic) -> None:
    booked = clinic.appointment()
    clinic.admin.delete(f"/appointments/{booked['id']}")

    answer = clinic.doctor.post(
        "/visits", {"patient_id": booked["patient_id"], "appointment_id": booked["id"]}
    )

    assert refusal(answer) == (409, "conflict")


def test_an_appointment_has_one_visit_and_a_voided_one_does_not_count(clinic: Clinic) -> None:
    booked = clinic.appointment()
    body = {"patient_id": booked["patient_id"], "appointment_id": booked["id"]}
    first = clinic.doctor.make("/visits", **body)

    second = clinic.doctor.post("/visits", body)
    clinic.admin.delete(f"/visits/{first['id']}", {"reason": "wrong notes"})
    third = clinic.doctor.post("/visits", body)

    assert refusal(second) == (409, "conflict")
    assert third.status_code == 201


def test_two_who_document_one_appointment_at_once_make_one_visit(clinic: Clinic) -> None:
    booked = clinic.appointment()
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


def test_a_visit_may_find_its_appointment_later_but_then_keeps_it(clinic: Clinic) -> None:
    booked = clinic.appointment()
    row = clinic.visit(patient_id=booked["patient_id"])
    path = f"/visits/{row['id']}"

    linked = clinic.doctor.patch(path, {"appointment_id": booked["id"]})
    loosed = clinic.doctor.patch(path, {"appointment_id": None})

    assert linked.get_json()["appointment_id"] == booked["id"]
    assert clinic.doctor.get(f"/appointments/{booked['id']}").get_json()["status"] == "completed"
    assert refusal(loosed) == (409, "read_only")


# --- Changing ------------------------------------------------------------------------------------------


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


def test_a_row_sent_back_whole_changes_nothing_but_what_was_edited(clinic: Clinic) -> None:
    row = clinic.visit(vitals={"weight_kg": 80, "height_cm": 200}, **{k: CLINICAL[k] for k in ("diagnoses",)})
    path = f"/visits/{row['id']}"

    edited = row | {"summary": "Well", "vitals": row["vitals"] | {"weight_kg": 100}}
    answer = clinic.doctor.put(path, edited, headers={"If-Match": '"1"'})
    same = clinic.doctor.put(path, answer.get_json())

    assert answer.status_code == 200
    assert answer.get_json()["vitals"]["bmi"] == 25.0
    assert answer.get_json()["diagnoses"] == row["diagnoses"]
    assert same.headers["ETag"] == answer.headers["ETag"] == '"2"'


def test_the_diagnoses_are_replaced_and_belong_to_the_version(clinic: Clinic) -> None:
    row = clinic.visit(diagnoses=[{"description": "Cough"}])
    path = f"/visits/{row['id']}"

    answer = clinic.doctor.patch(path, {"diagnoses": [{"icd10": "R05.9"}]})
    stale = clinic.doctor.patch(path, {"summary": "x"}, headers={"If-Match": '"1"'})

    assert [one["icd10"] for one in answer.get_json()["diagnoses"]] == ["R05.9"]
    assert refusal(stale) == (412, "stale_version")


def test_a_visit_keeps_its_patient(clinic: Clinic) -> None:
    row, other = clinic.visit(), clinic.patient()

    answer = clinic.doctor.patch(f"/visits/{row['id']}", {"patient_id": other["id"]})

    assert refusal(answer) == (409, "read_only")


def test_an_admin_may_hand_a_visit_to_another_doctor_unless_its_appointment_says_who(clinic: Clinic) -> None:
    other = clinic.sign_in("doctor")
    booked = clinic.appointment()
    row = clinic.visit()
    bound = clinic.visit(patient_id=booked["patient_id"], appointment_id=booked["id"])

    handed = clinic.admin.patch(f"/visits/{row['id']}", {"doctor_id": other.doctor_id})
    refused = clinic.admin.patch(f"/visits/{bound['id']}", {"doctor_id": other.doctor_id})

    assert handed.get_json()["doctor"]["id"] == other.doctor_id
    assert refused.status_code == 422


# --- Money ---------------------------------------------------------------------------------------------


def test_what_is_paid_with_the_visit_becomes_the_patients_credit(clinic: Clinic) -> None:
    patient = clinic.patient()

    row = clinic.doctor.make("/visits", patient_id=patient["id"], amount_paid="30.00", payment_method="cash")

    assert (row["amount_paid"], row["balance"]) == ("30.00", "0.00")
    assert clinic.admin.get(f"/patients/{patient['id']}").get_json()["account_balance"] == "-30.00"


def test_paid_and_balance_follow_the_visits_bills(clinic: Clinic) -> None:
    row = clinic.visit(
        treatments=[{"name": "Dressing", "cost": "100.00"}], amount_paid="30.00", payment_method="cash"
    )
    bill = clinic.admin.make("/billings", visit_id=row["id"])

    def figures() -> tuple[str, str]:
        found = clinic.admin.get(f"/visits/{row['id']}").get_json()
        return found["amount_paid"], found["balance"]

    def pay(amount: str, method: str) -> None:
        clinic.admin.make(f"/billings/{bill['id']}/payments", amount=amount, method=method)

    assert figures() == ("30.00", "100.00")
    pay("30.00", "credit")  # the same thirty, moved
    assert figures() == ("30.00", "70.00")
    pay("20.00", "card")
    assert figures() == ("50.00", "50.00")


# --- Signing -------------------------------------------------------------------------------------------


def test_a_signed_visit_is_read_only(clinic: Clinic) -> None:
    row = clinic.visit()
    path = f"/visits/{row['id']}"

    signed = clinic.doctor.post(f"{path}/sign")

    assert signed.status_code == 200
    assert (signed.get_json()["status"], signed.get_json()["signed_by_id"]) == (
        "signed",
        clinic.doctor.user_id,
    )
    assert refusal(clinic.doctor.post(f"{path}/sign")) == (409, "invalid_transition")
    assert refusal(clinic.doctor.patch(path, {"notes": "x"})) == (409, "read_only")
    assert refusal(clinic.technician.patch(path, {"vitals": {"spo2": 97}})) == (409, "read_only")
    assert refusal(clinic.admin.delete(path, {"reason": "x"})) == (409, "read_only")
    assert clinic.doctor.put(path, signed.get_json()).status_code == 200


def test_corrections_of_a_signed_visit_are_addenda(clinic: Clinic) -> None:
    row = clinic.visit()
    path = f"/visits/{row['id']}"

    early = clinic.doctor.post(f"{path}/addenda", {"text": "Left ear."})
    clinic.doctor.post(f"{path}/sign")
    answer = clinic.doctor.post(f"{path}/addenda", {"text": "Left ear, not right."})

    addendum = answer.get_json()
    assert refusal(early) == (409, "conflict")
    assert (answer.status_code, answer.headers["Location"]) == (201, path)
    assert (addendum["text"], addendum["author_id"]) == ("Left ear, not right.", clinic.doctor.user_id)
    assert addendum["created_at"]
    assert clinic.doctor.get(path).get_json()["addenda"] == [addendum]
    assert clinic.doctor.post(f"{path}/addenda", {"text": " "}).status_code == 422


# --- Voiding -------------------------------------------------------------------------------------------


def test_voiding_takes_what_hangs_on_the_visit_with_it(clinic: Clinic) -> None:
    item = clinic.item(quantity=5)
    used = [{"item_id": item["id"], "quantity": 2}]
    row = clinic.visit(
        treatments=[{"name": "Dressing", "cost": 1, "inventory_items": used}],
        prescriptions=[{"medications": [{"name": "Paracetamol"}]}],
    )
    path = f"/visits/{row['id']}"

    unexplained = clinic.admin.delete(path)
    answer = clinic.admin.delete(f"{path}?reason=wrong patient")

    voided = answer.get_json()
    assert (unexplained.status_code, list(unexplained.get_json()["errors"])) == (422, ["reason"])
    assert (answer.status_code, voided["status"], voided["void_reason"]) == (200, "void", "wrong patient")
    assert [one["status"] for one in voided["treatments"]] == ["cancelled"]
    assert [one["status"] for one in voided["prescriptions"]] == ["cancelled"]
    assert clinic.admin.get(f"/inventory/{item['id']}").get_json()["quantity"] == 5
    assert refusal(clinic.doctor.patch(path, {"notes": "x"})) == (409, "read_only")
    assert refusal(clinic.doctor.post(f"{path}/sign")) == (409, "invalid_transition")


def test_a_billed_visit_is_not_voided_until_the_bill_is(clinic: Clinic) -> None:
    row = clinic.visit(treatments=[{"name": "Dressing", "cost": 1}])
    bill = clinic.admin.make("/billings", visit_id=row["id"])

    refused = clinic.admin.delete(f"/visits/{row['id']}", {"reason": "twice"})
    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "twice"})
    done = clinic.admin.delete(f"/visits/{row['id']}", {"reason": "twice"})

    assert refusal(refused) == (409, "in_use")
    assert done.get_json()["status"] == "void"


# --- Who -----------------------------------------------------------------------------------------------


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


# --- Lists and traces ----------------------------------------------------------------------------------


def test_the_worklist_names_who_is_due_and_was_not_seen_since(clinic: Clinic) -> None:
    due = clinic.visit(date=day(-10), follow_up_date=day(-1))
    clinic.visit(date=day(-10), follow_up_date=day(1))
    clinic.visit(date=day(-10))
    seen = clinic.visit(date=day(-10), follow_up_date=day(-1))
    clinic.visit(patient_id=seen["patient_id"], date=day(-2))
    void = clinic.visit(date=day(-10), follow_up_date=day(-1))
    clinic.admin.delete(f"/visits/{void['id']}", {"reason": "x"})

    found = clinic.receptionist.get("/visits?follow_up_due=true").get_json()
    others = clinic.receptionist.get("/visits?follow_up_due=false").get_json()

    assert [row["id"] for row in found] == [due["id"]]
    assert len(others) == 5


def test_the_list_filters_by_status_dates_people_and_name(clinic: Clinic) -> None:
    one = clinic.visit(patient_id=clinic.patient(name="Łukasz Nowak")["id"], date=day(-3))
    two = clinic.visit()
    clinic.doctor.post(f"/visits/{two['id']}/sign")

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.doctor.get(f"/visits?{query}").get_json()]

    assert ids("status=open") == ids("q=lukasz") == ids(f"patient_id={one['patient_id']}") == [one["id"]]
    assert ids("status=signed") == ids(f"start_date={day(-1)}") == [two["id"]]
    assert ids("status=void") == []
    assert ids("sort_by=date&sort_order=desc") == [two["id"], one["id"]]
    assert clinic.doctor.get("/visits?status=closed").status_code == 422


def test_the_list_takes_the_same_number_of_queries_however_long_it_is(clinic: Clinic) -> None:
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


def test_signing_and_reading_leave_one_entry_each_about_the_patient(clinic: Clinic) -> None:
    row = clinic.visit()

    clinic.doctor.post(f"/visits/{row['id']}/sign")
    clinic.doctor.get(f"/visits/{row['id']}")

    with clinic.inside() as session:
        entries = session.query(AuditLog).filter_by(user_id=clinic.doctor.user_id).order_by(AuditLog.id)
        told = [(one.action, one.entity, one.entity_id) for one in entries]
        subjects = session.query(AuditSubject).filter_by(patient_id=row["patient_id"]).count()
    assert told == [("sign", "visit", row["id"]), ("read", "visit", row["id"])]
    assert subjects >= 3
