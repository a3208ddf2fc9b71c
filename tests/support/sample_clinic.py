"""An invented clinic whose documents are looked at as pictures and read by other programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from tests.support.clinic import Clinic

TODAY = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
MONTH = "2026-11"
SETTINGS: dict[str, Any] = {
    "clinic_locale": "en_KE",
    "clinic_timezone": "Africa/Nairobi",
    "currency": "KES",
    "public_url": "https://lakeside.example",
}
CLINIC = {
    "name": "Lakeside Clinic",
    "legal_name": "Lakeside Clinic Ltd",
    "address": "12 Harbour Road\n40100 Kisumu",
    "phones": ["+254 20 555 0100"],
    "email": "desk@lakeside.example",
    "website": "https://lakeside.example",
    "tax_number": "P051234567X",
    "bank_details": "Lake Bank Kisumu, account 0123 456 789\nMobile money: till 555 010",
    "invoice_footer": "Thank you for your visit. Please quote the number of the invoice.",
}
PATIENT = "Njeri Wanjiku"
LONG_NAME = "Maria-Theresia Wilhelmina Achieng’ Oluoch-Montgomery van der Westhuizen"
MEDICATIONS = [
    {
        "name": "Amoxicillin",
        "dosage": "500 mg",
        "frequency": "three times a day",
        "route": "by mouth",
        "duration_days": 7,
        "quantity": 21,
        "unit": "capsule",
        "instructions": "Take with food. Finish all capsules.",
    },
    {
        "name": "Paracetamol",
        "dosage": "1 g",
        "frequency": "every 8 hours if needed",
        "route": "by mouth",
        "duration_days": 5,
        "quantity": 15,
        "unit": "tablet",
        "refills": 1,
    },
]
ITEMS = [
    {"description": "Consultation", "quantity": 1, "unit_price": "1500.00"},
    {"description": "Throat swab, rapid antigen test", "quantity": 1, "unit_price": "850.00"},
    {"description": "Dressing, small", "quantity": 3, "unit_price": "120.00"},
]
REFERRAL = """Dear colleague,

Thank you for seeing this patient, who has had palpitations for two weeks, mostly at night. There is no \
chest pain. Blood pressure 128/82, pulse 96 and irregular.

I would be grateful for an ECG, an echocardiogram and your advice on treatment. No regular medication, no \
known allergies.

With kind regards"""


def logo() -> bytes:
    """Return the logo: a white cross."""
    picture = Image.new("RGB", (160, 160), "#0b6e6e")
    cross = ImageDraw.Draw(picture)
    cross.rectangle((66, 28, 94, 132), "white")
    cross.rectangle((28, 66, 132, 94), "white")
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def fill(clinic: Clinic) -> dict[str, str]:
    """Create the rows, and return the path of each document by its name. The clock should be at `TODAY`."""
    admin = clinic.admin
    admin.patch("/clinic", CLINIC)
    admin.put("/clinic/logo", data=logo(), content_type="image/png")
    admin.patch(
        f"/doctors/{clinic.doctor.doctor_id}",
        {"name": "Dr. Grace Wambui", "specialty": "family medicine", "license_number": "KMPDC 10432"},
    )
    admin.patch(f"/users/{clinic.receptionist.user_id}", {"name": "Ruth Achieng"})
    usual = _documents_of(clinic, PATIENT)
    special = _documents_of(clinic, LONG_NAME, many=True)
    _fill_month(clinic)
    empty = clinic.visit(patient_id=clinic.patient(name="Baraka Mutua")["id"])
    return {
        **usual,
        **{f"long_{name}": path for name, path in special.items()},
        "empty_visit": f"/visits/{empty['id']}/document?",
        "report": f"/analytics/report?month={MONTH}",
        "empty_report": "/analytics/report?month=2020-01",
    }


def _documents_of(clinic: Clinic, name: str, *, many: bool = False) -> dict[str, str]:
    patient = clinic.patient(
        name=name,
        date_of_birth="1990-11-05",
        gender="female",
        phone="+254 712 345 678",
        address="P.O. Box 1234\n40100 Kisumu",
        file_number=f"F-{next(clinic.numbers):05d}",
    )["id"]
    visit = _visit(clinic, patient, many=many)
    bill, payment = _bill(clinic, patient, many=many)
    letters = {kind: _letter(clinic, visit["id"], kind) for kind in ("sick_note", "referral", "certificate")}
    if many:
        clinic.admin.post(f"/letters/{letters['certificate']}/void", {"reason": "Wrong patient"})
    credit_note = {"credit_note": f"/billings/{bill}/document?type=credit_note"} if many else {}
    return {
        **credit_note,
        "invoice": f"/billings/{bill}/document?type=invoice",
        "receipt": f"/billings/{bill}/document?type=receipt",
        "payment_receipt": f"/billings/{bill}/payments/{payment}/receipt?",
        "statement": f"/patients/{patient}/account/statement?",
        "prescription": f"/prescriptions/{visit['prescriptions'][0]['id']}/document?",
        "visit": f"/visits/{visit['id']}/document?",
        **{kind: f"/letters/{letter}/document?" for kind, letter in letters.items()},
    }


def _visit(clinic: Clinic, patient: int, *, many: bool) -> dict[str, Any]:
    visit = clinic.visit(
        patient_id=patient,
        date=(TODAY - timedelta(days=1)).isoformat(),
        visit_type="First visit",
        chief_complaint="Sore throat and fever for three days",
        diagnoses=[{"icd10": "J02.0"}, {"description": "Mild dehydration"}],
        vitals={
            "systolic": 124,
            "diastolic": 78,
            "heart_rate": 92,
            "temperature_c": 38.4,
            "spo2": 98,
            "weight_kg": 64.5,
            "height_cm": 168,
        },
        summary="Red throat with exudate, tender lymph nodes. " * (30 if many else 1),
        notes="Rest and plenty of fluids. Return if the fever lasts more than three days.",
        treatments=[{"name": "Throat swab, rapid antigen test", "cost": "850.00", "status": "completed"}],
        prescriptions=[{"medications": MEDICATIONS * (4 if many else 1), "override_reason": "asked"}],
        follow_up_date=(TODAY + timedelta(days=10)).date().isoformat(),
    )
    if not many:
        clinic.doctor.post(f"/visits/{visit['id']}/sign")
    return visit


def _bill(clinic: Clinic, patient: int, *, many: bool) -> tuple[int, int]:
    """Create a bill with a payment; with `many` items, a void one. Return the ids of bill and payment."""
    bill = clinic.admin.make(
        "/billings",
        patient_id=patient,
        items=ITEMS * (16 if many else 1),
        discount="210.00",
        discount_reason="Staff family",
        tax_rate="16",
        due_date=(TODAY + timedelta(days=30)).date().isoformat(),
        notes="The insurer pays after 30 days.",
    )["id"]
    paid = clinic.receptionist.make(
        f"/billings/{bill}/payments", amount="1000.00", method="mobile_money", reference="SKJ4X7PQ12"
    )
    clinic.receptionist.make(f"/billings/{bill}/payments", amount="500.00", method="cash")
    if many:
        clinic.admin.post(f"/billings/{bill}/void", {"reason": "Wrong patient"})
    return bill, min(payment["id"] for payment in paid["payments"])


def _letter(clinic: Clinic, visit: int, kind: str) -> int:
    first = TODAY.date()
    body: dict[str, Any] = {
        "sick_note": {
            "from_date": first.isoformat(),
            "to_date": (first + timedelta(days=3)).isoformat(),
            "recipient": "Harbour Freight Ltd\nHuman resources",
        },
        "referral": {
            "recipient": "Dr. Peter Njoroge\nCardiology, County Hospital\n40100 Kisumu",
            "text": REFERRAL,
        },
        "certificate": {"text": "I have examined this patient, who is fit to travel by air."},
    }[kind]
    letter: int = clinic.doctor.make(f"/visits/{visit}/letters", type=kind, **body)["id"]
    return letter


def _fill_month(clinic: Clinic) -> None:
    """Create visits and bills on most days of the month, for the figures and the charts of the report."""
    doctors = [clinic.doctor.doctor_id]
    for name, specialty in (("Dr. Amina Yusuf", "paediatrics"), ("Dr. Samuel Kariuki", "surgery")):
        doctors.append(clinic.doctor_row(name=name, specialty=specialty)["id"])
    for number in range(1, 19):
        patient = clinic.patient(
            name=f"Patient Number{number}", date_of_birth=f"{1936 + number * 5}-04-02", allow_duplicate=True
        )["id"]
        visit = clinic.visit(
            patient_id=patient,
            doctor_id=doctors[number % 3],
            date=f"{MONTH}-{number:02d}T08:00:00+03:00",
            diagnoses=[{"icd10": ("J02.9", "I10", "E11.9", "J45.909")[number % 4]}],
            treatments=[
                {"name": "Consultation", "cost": f"{900 + 350 * (number % 5)}.00", "status": "completed"}
            ],
        )
        bill = clinic.admin.make("/billings", visit_id=visit["id"], date=f"{MONTH}-{number:02d}")
        if number % 4:
            path = f"/billings/{bill['id']}/payments"
            received_at = f"{MONTH}-{number:02d}T09:00:00+03:00"
            clinic.receptionist.make(path, amount="900.00", method="cash", received_at=received_at)
