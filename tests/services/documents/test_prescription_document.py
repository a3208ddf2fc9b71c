"""The prescription on paper: its members, and the states in which it must not be dispensed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import update

from models import Prescription
from services import clock
from tests.support import pdf
from tests.support.clinic import Caller, Clinic

MEDICATION = {
    "name": "Amoxicillin",
    "dosage": "500 mg",
    "frequency": "every 8 hours",
    "route": "by mouth",
    "duration_days": 7,
    "quantity": 21,
    "unit": "capsule",
    "refills": 2,
    "instructions": "Take with food.",
}


def prescribe(clinic: Clinic, **members: Any) -> dict[str, Any]:
    doctor = clinic.doctor_row(name="Grace Wambui", license_number=f"KMPDC-{next(clinic.numbers)}")
    patient = clinic.patient(name="Njeri Wanjiku", date_of_birth="1990-11", allow_duplicate=True)
    visit = clinic.visit(patient_id=patient["id"], doctor_id=doctor["id"])
    values = {"visit_id": visit["id"], "medications": [MEDICATION], "override_reason": "asked"} | members
    return clinic.admin.make("/prescriptions", **values) | {"licence": doctor["license_number"]}


def document(caller: Caller, row: dict[str, Any], query: str = "") -> str:
    response = caller.get(f"/prescriptions/{row['id']}/document?{query}")
    assert response.status_code == 200, response.get_data(as_text=True)
    return pdf.text_of(response.get_data())


def test_a_prescription_shows_patient_medications_and_doctor(clinic: Clinic) -> None:
    row = prescribe(clinic, details="Drink a lot.")

    text = document(clinic.technician, row)

    for part in (
        "Njeri Wanjiku",
        "Date of birth November 1990",
        "Amoxicillin 500 mg",
        "every 8 hours · by mouth · 7 days",
        "Quantity: 21 capsule · Refills: 2",
        "Take with food.",
        "Drink a lot.",
        "Signature and stamp",
        "Grace Wambui",
        f"Licence number {row['licence']}",
    ):
        assert part in text
    assert "siku 7" in document(clinic.doctor, row, "locale=sw")
    assert clinic.receptionist.get(f"/prescriptions/{row['id']}/document").status_code == 403


def test_a_prescription_that_must_not_be_dispensed_says_so(clinic: Clinic) -> None:
    rows = {word: prescribe(clinic) for word in ("CANCELLED", "STOPPED", "COMPLETED", "EXPIRED")}
    valid = prescribe(clinic)
    for word, status in (("CANCELLED", "cancelled"), ("COMPLETED", "completed")):
        path = f"/prescriptions/{rows[word]['id']}"
        headers = {"If-Match": clinic.admin.get(path).headers["ETag"]}
        assert clinic.admin.patch(path, {"status": status}, headers=headers).status_code == 200
    stop = clinic.admin.post(f"/prescriptions/{rows['STOPPED']['id']}/stop", {"reason": "rash"})
    assert stop.status_code == 200
    with clinic.inside() as session:
        issued_at = clock.now() - timedelta(days=30)
        expired = {"expires_on": clock.today() - timedelta(days=1), "issued_at": issued_at}
        session.execute(
            update(Prescription).where(Prescription.id == rows["EXPIRED"]["id"]).values(**expired)
        )

    for word, row in rows.items():
        text = document(clinic.doctor, row)
        assert word in text
        assert "must" in text
        assert "dispensed" in text
    assert "dispensed" not in document(clinic.doctor, valid)
