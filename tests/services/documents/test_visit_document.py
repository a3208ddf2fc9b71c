"""The visit summary: its parts, those that a role may read, and the marks of its state."""

from __future__ import annotations

from typing import Any

from tests.support import pdf, queries
from tests.support.clinic import Caller, Clinic

# The texts of the visit, by the member that hides them from a role.
CLINICAL = {
    "chief_complaint": "Sore throat",
    "summary": "Bacterial infection",
    "procedure_details": "Swab taken",
    "notes": "Lives alone",
    "diagnoses": "Acute pharyngitis, unspecified",
    "vitals": "121/79 mmHg",
    "prescriptions": "Amoxicillin 500 mg",
    "addenda": "The left ear",
}
OF_TREATMENT = "Patient was anxious"


def new_visit(clinic: Clinic) -> dict[str, Any]:
    return clinic.visit(
        chief_complaint=CLINICAL["chief_complaint"],
        summary=CLINICAL["summary"],
        procedure_details=CLINICAL["procedure_details"],
        notes=CLINICAL["notes"],
        diagnoses=[{"icd10": "J02.9"}],
        vitals={"systolic": 121, "diastolic": 79, "temperature_c": 38.6},
        treatments=[{"name": "Ear rinse", "cost": "10", "notes": OF_TREATMENT}],
        prescriptions=[
            {"medications": [{"name": "Amoxicillin", "dosage": "500 mg"}], "override_reason": "asked"}
        ],
        follow_up_date="2199-01-05",
    )


def document(caller: Caller, visit: dict[str, Any], query: str = "") -> str:
    response = caller.get(f"/visits/{visit['id']}/document?{query}")
    assert response.status_code == 200, response.get_data(as_text=True)
    return pdf.text_of(response.get_data())


def test_each_role_sees_the_members_that_it_reads_in_json(clinic: Clinic) -> None:
    visit = new_visit(clinic)
    clinic.doctor.post(f"/visits/{visit['id']}/sign")
    clinic.doctor.post(f"/visits/{visit['id']}/addenda", {"text": CLINICAL["addenda"]})

    for role in ("admin", "doctor", "technician", "receptionist"):
        row = clinic.caller(role).get(f"/visits/{visit['id']}").get_json()
        text = document(clinic.caller(role), visit)
        assert {name for name, part in CLINICAL.items() if part in text} == CLINICAL.keys() & row.keys()
        assert (OF_TREATMENT in text) == ("notes" in row["treatments"][0])
        assert "Ear rinse" in text
        assert "January 5, 2199" in text
        assert ("DRAFT" in text, "Signed on" in text) == (False, True)


def test_emergency_access_shows_the_clinical_members(clinic: Clinic) -> None:
    visit = new_visit(clinic)
    path = f"/patients/{visit['patient_id']}/emergency-access"
    granted = clinic.receptionist.post(path, {"reason": "The patient fell in the waiting room"})
    assert granted.status_code == 201, granted.get_data(as_text=True)

    text = document(clinic.receptionist, visit)

    assert CLINICAL["diagnoses"] in text
    assert CLINICAL["prescriptions"] in text


def test_an_unsigned_visit_prints_draft_and_a_voided_one_void(clinic: Clinic) -> None:
    visit = new_visit(clinic)
    draft = document(clinic.doctor, visit)
    clinic.admin.delete(f"/visits/{visit['id']}", {"reason": "wrong patient"})

    void = document(clinic.doctor, visit)

    assert ("DRAFT" in draft, "VOID" in draft, "may still change" in draft) == (True, False, True)
    assert ("DRAFT" in void, "VOID" in void, "recorded by mistake" in void) == (False, True, True)
    assert "Amoxicillin 500 mg – cancelled" in void
    assert "Ear rinse – cancelled" in void


def test_more_rows_of_a_visit_need_no_more_statements(clinic: Clinic) -> None:
    treatment = {"name": "Ear rinse", "cost": "10"}
    prescription = {"medications": [{"name": "Amoxicillin"}], "override_reason": "asked"}
    visits = [
        clinic.visit(treatments=[treatment] * number, prescriptions=[prescription] * number)
        for number in (1, 4)
    ]

    few, many = (queries.count(clinic, clinic.admin, f"/visits/{row['id']}/document") for row in visits)

    assert few == many


def test_a_visit_without_members_and_one_of_many_pages_are_printed(clinic: Clinic) -> None:
    empty = clinic.visit()
    long = clinic.visit(notes="A line of the notes.\n" * 150, vitals={"systolic": 120})

    assert "Diagnoses" not in document(clinic.admin, empty)
    text = document(clinic.admin, long, "paper=a5")
    assert text.count("A line of the notes.") == 150
    assert "120/– mmHg" in text
    name = clinic.admin.get(f"/patients/{long['patient_id']}").get_json()["name"]
    assert f"Visit summary · {name} Page 3 of" in text
