"""Prescriptions: prescribe, change, stop and cancel; permissions and refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import time_machine
from werkzeug.test import TestResponse

from tests.support import queries
from tests.support.clinic import Clinic
from tests.support.prescriptions import dispense, error, invalid_fields, prescribe, tablets, today

# --- Prescribing ---


def test_a_prescription_has_the_patient_and_doctor_of_its_visit(clinic: Clinic) -> None:
    visit = clinic.visit()

    answer = clinic.doctor.post("/prescriptions", {"visit_id": visit["id"], "medications": ["Amoxicillin"]})

    row = answer.get_json()
    assert answer.headers["Location"] == f"/prescriptions/{row['id']}"
    assert (row["patient_id"], row["patient_name"]) == (visit["patient_id"], visit["patient_name"])
    assert row["patient"] == {"id": visit["patient_id"], "name": visit["patient_name"]}
    assert row["doctor"]["id"] == row["doctor_id"] == clinic.doctor.doctor_id
    assert row["doctor_name"] == row["doctor"]["name"]
    assert (row["status"], row["expires_on"], row["override_reason"]) == ("active", None, None)
    assert datetime.fromisoformat(row["issued_at"]).date() == today()


def test_a_medication_is_stored_unchanged(clinic: Clinic) -> None:
    medication = {
        "name": "Amoxicillin 500 mg",
        "dosage": "500 mg",
        "frequency": "q8h, if temp >38.5",
        "route": "oral",
        "duration_days": 7,
        "quantity": 21,
        "refills": 2,
        "instructions": "1 <b>with</b> food & water",
    }

    (stored,) = prescribe(clinic, medication)["medications"]

    assert {name: stored[name] for name in medication if name != "instructions"} == {
        name: value for name, value in medication.items() if name != "instructions"
    }
    assert (stored["dispensed"], stored["remaining"]) == (0, 63)


def test_a_string_is_accepted_as_a_medication(clinic: Clinic) -> None:
    row = clinic.doctor.make("/prescriptions", visit_id=clinic.visit()["id"], medications="Ibuprofen 400")

    assert [medication["name"] for medication in row["medications"]] == ["Ibuprofen 400"]
    assert row["medications"][0]["remaining"] is None


def test_details_without_medications_are_accepted(clinic: Clinic) -> None:
    row = prescribe(clinic, details="Salt water gargle <3 times a day")

    assert row["details"] == "Salt water gargle <3 times a day"
    assert row["medications"] == []


INVALID_BODIES: list[tuple[dict[str, Any], str]] = [
    ({}, "medications"),
    ({"details": "  ", "medications": []}, "medications"),
    ({"medications": [{"dosage": "5 mg"}]}, "medications.0.name"),
    ({"medications": [{"name": "A", "quantity": 0}]}, "medications.0.quantity"),
    ({"medications": [{"name": "A", "refills": 100}]}, "medications.0.refills"),
    ({"medications": [{"name": "A", "strength": "5"}]}, "medications.0.strength"),
    ({"medications": ["A"] * 101}, "medications"),
    ({"details": "x", "issued_at": "2199-01-01T00:00:00Z"}, "issued_at"),
    ({"details": "x", "issued_at": "2025-05-02T10:00:00Z", "expires_on": "2025-05-01"}, "expires_on"),
    ({"details": "x", "status": "completed"}, "status"),
    ({"details": "x", "visit_id": 987654}, "visit_id"),
    ({"details": "x", "patient_id": 987654}, "patient_id"),
    ({"details": "x", "doctor_id": 987654}, "doctor_id"),
]


def test_an_invalid_body_reports_the_field(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]

    answers = [
        clinic.doctor.post("/prescriptions", {"visit_id": visit_id} | body) for body, _ in INVALID_BODIES
    ]

    assert [invalid_fields(answer) for answer in answers] == [[field] for _, field in INVALID_BODIES]


def test_the_patient_and_doctor_of_the_visit_are_accepted(clinic: Clinic) -> None:
    visit = clinic.visit()

    row = prescribe(
        clinic, "Aspirin", visit_id=visit["id"], patient_id=visit["patient_id"], doctor_id=visit["doctor_id"]
    )

    assert row["patient_id"] == visit["patient_id"]


def test_a_doctor_prescribes_at_own_visits_only(clinic: Clinic) -> None:
    visit_id = clinic.visit(doctor_id=clinic.sign_in("doctor").doctor_id)["id"]

    answer = clinic.doctor.post("/prescriptions", {"visit_id": visit_id, "details": "rest"})

    assert error(answer) == (403, "forbidden")


def test_a_signed_visit_refuses_new_prescriptions_but_not_changes(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    row = prescribe(clinic, "Lisinopril", visit_id=visit_id)
    clinic.doctor.post(f"/visits/{visit_id}/sign")

    answer = clinic.doctor.post("/prescriptions", {"visit_id": visit_id, "details": "rest"})
    changed = clinic.doctor.patch(f"/prescriptions/{row['id']}", {"details": "with food"})

    assert error(answer) == (409, "read_only")
    assert changed.status_code == 200


def test_a_voided_visit_refuses_prescriptions(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    clinic.admin.delete(f"/visits/{visit_id}", {"reason": "wrong patient"})

    answer = clinic.admin.post("/prescriptions", {"visit_id": visit_id, "details": "rest"})

    assert error(answer) == (409, "read_only")


def test_receptionists_cannot_read_or_dispense_prescriptions(clinic: Clinic) -> None:
    row = prescribe(clinic, "Lisinopril")

    assert error(clinic.receptionist.get("/prescriptions")) == (403, "forbidden")
    assert error(clinic.receptionist.get(f"/prescriptions/{row['id']}")) == (403, "forbidden")
    assert error(dispense(clinic.receptionist, row, ("Lisinopril", 1))) == (403, "forbidden")


# --- Lists ---


def ids(answer: TestResponse) -> list[int]:
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [row["id"] for row in answer.get_json()]


def test_an_active_prescription_expires_after_its_last_day(clinic: Clinic) -> None:
    until = today() + timedelta(days=3)
    short = prescribe(clinic, "Lisinopril", expires_on=until.isoformat())
    long = prescribe(clinic, "Lisinopril")
    get = clinic.technician.get

    with time_machine.travel(datetime(until.year, until.month, until.day, 23, 59, tzinfo=UTC)):
        caller = clinic.sign_in("technician")
        on_the_last_day = caller.get(f"/prescriptions/{short['id']}").get_json()["status"]
    with time_machine.travel(datetime(until.year, until.month, until.day, 23, 59, tzinfo=UTC) + timedelta(1)):
        get = clinic.sign_in("technician").get
        assert get(f"/prescriptions/{short['id']}").get_json()["status"] == "expired"
        assert ids(get("/prescriptions?status=expired")) == [short["id"]]
        assert ids(get("/prescriptions?status=active")) == [long["id"]]
        assert ids(get("/prescriptions?status_ne=active")) == [short["id"]]
        assert ids(get("/prescriptions?status=active&status=expired")) == [long["id"], short["id"]]
        assert ids(get("/prescriptions?sort_by=status&sort_order=desc")) == [short["id"], long["id"]]
        assert ids(get("/prescriptions?sort_by=status")) == [long["id"], short["id"]]

    assert on_the_last_day == "active"


def test_prescriptions_are_found_by_medication_text_and_patient(clinic: Clinic) -> None:
    zoe = clinic.visit(patient_id=clinic.patient(name="Zoë Brontë")["id"])["id"]
    first = prescribe(clinic, "Lisinopril", "Metformin 500 mg", visit_id=zoe)["id"]
    second = prescribe(clinic, details="Physiotherapy, 100% of it")["id"]
    get = clinic.doctor.get

    assert ids(get("/prescriptions?q=metFORMIN")) == [first]
    assert ids(get("/prescriptions?q=bronte zoe")) == [first]
    assert ids(get("/prescriptions?q=100%25")) == [second]
    assert ids(get("/prescriptions?patient_name=zoe")) == [first]
    assert ids(get("/prescriptions?medication=lisin")) == [first]
    assert ids(get("/prescriptions?doctor_name=nobody")) == []
    assert ids(get(f"/prescriptions?visit_id={zoe}")) == [first]
    assert ids(get(f"/prescriptions?doctor_id={clinic.doctor.doctor_id}")) == [second, first]


def test_the_list_filters_by_day_of_issue(clinic: Clinic) -> None:
    prescribe(clinic, details="old", issued_at="2024-02-29T12:00:00Z")
    recent = prescribe(clinic, details="new", issued_at="2024-03-01T00:00:00Z")["id"]

    assert ids(clinic.admin.get("/prescriptions?start_date=2024-03-01&end_date=2024-03-01")) == [recent]


def test_the_list_needs_the_same_number_of_queries_for_any_length(clinic: Clinic) -> None:
    for _ in range(2):
        dispense(clinic.technician, prescribe(clinic, tablets()), ("Lisinopril", 1))
    few = queries.count(clinic, clinic.technician, "/prescriptions")
    for _ in range(4):
        dispense(clinic.technician, prescribe(clinic, tablets(), "Metformin"), ("Lisinopril", 1))

    many = queries.count(clinic, clinic.technician, "/prescriptions")
    shown = ids(clinic.technician.get("/prescriptions"))

    assert len(shown) == 6
    assert many == few


# --- Changes ---


def test_changed_medications_increase_the_version(clinic: Clinic) -> None:
    row = prescribe(clinic, "Lisinopril 5 mg")
    path = f"/prescriptions/{row['id']}"

    answer = clinic.doctor.patch(path, {"medications": [tablets("Lisinopril 10 mg")]})
    stale = clinic.doctor.patch(path, {"details": "x"}, headers={"If-Match": '"1"'})

    assert [medication["name"] for medication in answer.get_json()["medications"]] == ["Lisinopril 10 mg"]
    assert answer.headers["ETag"] == '"2"'
    assert error(stale) == (412, "stale_version")


def test_sending_back_the_whole_row_changes_only_the_edited_members(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(), details="with food", expires_on=today().isoformat())
    edited = [{**row["medications"][0], "dosage": "10 mg"}]

    same = clinic.doctor.put(f"/prescriptions/{row['id']}", row)
    changed = clinic.doctor.put(f"/prescriptions/{row['id']}", row | {"medications": edited})

    assert same.get_json() == row
    assert same.headers["ETag"] == '"1"'
    assert changed.get_json()["medications"][0]["dosage"] == "10 mg"


def test_an_invalid_change_reports_the_field(clinic: Clinic) -> None:
    path = f"/prescriptions/{prescribe(clinic, 'Lisinopril')['id']}"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"medications": []}, "medications"),
        ({"issued_at": None}, "issued_at"),
        ({"expires_on": "2001-01-01"}, "expires_on"),
        ({"cancellation_reason": "why"}, "cancellation_reason"),
        ({"colour": "red"}, "colour"),
    ]

    answers = [clinic.doctor.patch(path, change) for change, _ in changes]

    assert [invalid_fields(answer) for answer in answers] == [[field] for _, field in changes]


def test_the_reason_of_an_override_cannot_be_removed(clinic: Clinic) -> None:
    row = prescribe(clinic, "Lisinopril", "Zestril", override_reason="two strengths")
    path = f"/prescriptions/{row['id']}"

    cleared = clinic.doctor.patch(path, {"override_reason": None})

    assert invalid_fields(cleared) == ["override_reason"]


def test_a_dispensed_prescription_can_only_be_cancelled(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets())
    dispense(clinic.technician, row, ("Lisinopril", 1))

    answer = clinic.doctor.patch(f"/prescriptions/{row['id']}", {"details": "x"})
    cancelled = clinic.doctor.patch(
        f"/prescriptions/{row['id']}", {"status": "cancelled", "cancellation_reason": "cough"}
    )

    assert error(answer) == (409, "read_only")
    assert (cancelled.get_json()["status"], cancelled.get_json()["cancellation_reason"]) == (
        "cancelled",
        "cough",
    )


def test_a_doctor_cannot_change_or_dispense_the_prescription_of_another(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets())
    other = clinic.sign_in("doctor")
    path = f"/prescriptions/{row['id']}"

    assert other.get(path).status_code == 200
    assert error(other.patch(path, {"details": "x"})) == (403, "forbidden")
    assert error(other.delete(path)) == (403, "forbidden")
    assert error(dispense(other, row, ("Lisinopril", 1))) == (403, "forbidden")


def test_an_invalid_status_transition_is_refused(clinic: Clinic) -> None:
    transitions: list[tuple[str | None, str, list[str]]] = [
        ("completed", "cancelled", []),
        ("completed", "active", []),
        ("cancelled", "active", []),
        ("cancelled", "completed", []),
        (None, "expired", ["completed", "cancelled"]),
    ]
    for first, second, allowed in transitions:
        path = f"/prescriptions/{prescribe(clinic, 'Lisinopril')['id']}"
        if first is not None:
            assert clinic.doctor.patch(path, {"status": first}).get_json()["status"] == first

        answer = clinic.doctor.patch(path, {"status": second})

        assert error(answer) == (409, "invalid_transition")
        assert answer.get_json()["allowed"] == allowed


def test_an_expired_prescription_can_only_be_cancelled(clinic: Clinic) -> None:
    row = prescribe(clinic, "Lisinopril", issued_at="2020-01-01T09:00:00Z", expires_on="2020-06-30")
    path = f"/prescriptions/{row['id']}"

    extended = clinic.doctor.patch(path, {"expires_on": "2199-01-01"})
    cancelled = clinic.doctor.patch(path, {"status": "cancelled"})

    assert error(extended) == (409, "read_only")
    assert cancelled.get_json()["status"] == "cancelled"


def test_delete_cancels_with_a_reason_and_the_row_stays_visible(clinic: Clinic) -> None:
    first, second = (
        f"/prescriptions/{prescribe(clinic, name)['id']}" for name in ("Lisinopril", "Metformin")
    )

    by_query = clinic.doctor.delete(f"{first}?cancellation_reason=written twice")
    by_body = clinic.doctor.delete(second, {"cancellation_reason": "written twice"})

    for path, answer in ((first, by_query), (second, by_body)):
        assert (answer.status_code, answer.get_json()["status"]) == (200, "cancelled")
        assert clinic.doctor.get(path).get_json()["cancellation_reason"] == "written twice"
        assert clinic.doctor.delete(path).get_json()["cancellation_reason"] == "written twice"


def test_a_completed_prescription_cannot_be_cancelled(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(quantity=1))
    dispense(clinic.technician, row, ("Lisinopril", 1))

    assert error(clinic.admin.delete(f"/prescriptions/{row['id']}")) == (409, "invalid_transition")
