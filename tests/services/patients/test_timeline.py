"""Account and timeline of a patient: content, order, and visibility by role."""

from __future__ import annotations

from typing import Any

from tests.support.clinic import Clinic, soon

# --- Account -------------------------------------------------------------------------------------------


def test_the_account_shows_open_bills_and_the_ledger_newest_first(clinic: Clinic) -> None:
    patient = clinic.patient()
    paid = clinic.bill("50.00", patient_id=patient["id"])
    clinic.admin.post(f"/billings/{paid['id']}/payments", {"amount": "50.00", "method": "cash"})
    owed = clinic.bill("80.00", patient_id=patient["id"])
    clinic.admin.post(f"/billings/{owed['id']}/payments", {"amount": "30.00", "method": "card"})

    account = clinic.receptionist.get(f"/patients/{patient['id']}/account").get_json()

    assert account["patient"] == {"id": patient["id"], "name": patient["name"]}
    assert account["account_balance"] == "50.00"
    assert account["credit"] == "0.00"
    [bill] = account["open_bills"]
    assert (bill["id"], bill["amount"], bill["amount_paid"], bill["balance"], bill["status"]) == (
        owed["id"],
        "80.00",
        "30.00",
        "50.00",
        "partial",
    )
    assert [entry["amount"] for entry in account["entries"]] == ["-30.00", "80.00", "-50.00", "50.00"]
    assert account["entries"][0]["method"] == "card"
    assert account["entries"][0]["invoice_number"] == owed["invoice_number"]
    second = clinic.admin.get(f"/patients/{patient['id']}/account?per_page=2&page=2").get_json()
    assert [entry["amount"] for entry in second["entries"]] == ["-50.00", "50.00"]
    assert second["entry_count"] == 4


def test_a_doctor_sees_the_account_of_own_visits_only(clinic: Clinic) -> None:
    patient = clinic.patient()
    other = clinic.sign_in("doctor")
    own = clinic.visit(patient_id=patient["id"], doctor_id=clinic.doctor.doctor_id)
    clinic.treatment(visit_id=own["id"], cost="70.00")
    mine = clinic.admin.make("/billings", visit_id=own["id"])
    clinic.bill("20.00", patient_id=patient["id"])

    seen = clinic.doctor.get(f"/patients/{patient['id']}/account").get_json()
    theirs = other.get(f"/patients/{patient['id']}/account").get_json()

    assert [bill["id"] for bill in seen["open_bills"]] == [mine["id"]]
    assert [entry["amount"] for entry in seen["entries"]] == ["70.00"]
    assert theirs["open_bills"] == theirs["entries"] == []
    assert clinic.technician.get(f"/patients/{patient['id']}/account").status_code == 403
    assert clinic.admin.get("/patients/987654/account").status_code == 404


# --- Timeline ------------------------------------------------------------------------------------------


def create_patient_with_events(clinic: Clinic) -> dict[str, Any]:
    """Create a patient with one event of each type."""
    patient = clinic.patient()
    clinic.appointment(patient_id=patient["id"], date=soon(days=2), reason="check-up")
    visit = clinic.visit(
        patient_id=patient["id"],
        visit_type="consultation",
        summary="suspected pneumonia",
        prescriptions=[{"medications": [{"name": "Paracetamol", "dosage": "500 mg"}]}],
    )
    clinic.treatment(visit_id=visit["id"], name="Chest X-ray", cost="120.00", notes="no fracture")
    clinic.admin.make("/billings", visit_id=visit["id"])
    return patient


def test_a_timeline_has_all_event_types_newest_first(clinic: Clinic) -> None:
    patient = create_patient_with_events(clinic)

    answer = clinic.admin.get(f"/patients/{patient['id']}/timeline")

    events = answer.get_json()
    assert {event["type"] for event in events} == {
        "appointment",
        "visit",
        "treatment",
        "prescription",
        "billing",
    }
    assert [event["at"] for event in events] == sorted((event["at"] for event in events), reverse=True)
    assert answer.headers["X-Total-Count"] == "5"
    titles = {event["type"]: event["title"] for event in events}
    assert titles["appointment"] == "check-up"
    assert titles["prescription"] == "Paracetamol"
    details = {event["type"]: event["details"] for event in events}
    assert details["visit"]["summary"] == "suspected pneumonia"
    assert details["billing"]["balance"] == "120.00"
    assert all(event["doctor_name"] for event in events)


def test_a_timeline_shows_only_events_that_the_role_may_see(clinic: Clinic) -> None:
    patient = create_patient_with_events(clinic)
    path = f"/patients/{patient['id']}/timeline"

    receptionist = {event["type"]: event for event in clinic.receptionist.get(path).get_json()}
    technician = {event["type"]: event for event in clinic.technician.get(path).get_json()}
    foreign = {event["type"] for event in clinic.sign_in("doctor").get(path).get_json()}

    assert set(receptionist) == {"appointment", "visit", "treatment", "billing"}
    assert not {"summary", "chief_complaint"} & set(receptionist["visit"]["details"])
    assert "notes" not in receptionist["treatment"]["details"]
    assert set(technician) == {"appointment", "visit", "treatment", "prescription"}
    assert foreign == {"appointment", "visit", "treatment", "prescription"}
    assert "pneumonia" not in clinic.receptionist.get(path).get_data(as_text=True)


def test_a_timeline_is_paged_and_filtered_by_type(clinic: Clinic) -> None:
    patient = create_patient_with_events(clinic)
    path = f"/patients/{patient['id']}/timeline"

    whole = clinic.admin.get(path).get_json()
    second = clinic.admin.get(f"{path}?page=2&per_page=2")
    bills = clinic.admin.get(f"{path}?type=billing").get_json()

    assert second.get_json() == whole[2:4]
    assert second.headers["Content-Range"] == "timeline 2-3/5"
    assert [event["type"] for event in bills] == ["billing"]
    assert clinic.admin.get(f"{path}?page=9").get_json() == []
    assert clinic.admin.get(f"{path}?type=message").status_code == 422
    assert clinic.admin.get(f"{path}?color=red").status_code == 422
    assert clinic.admin.get("/patients/987654/timeline").status_code == 404
