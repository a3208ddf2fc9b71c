"""The monthly report: its figures are those of the reports, and its charts are pictures."""

from __future__ import annotations

import pypdfium2
from pypdfium2 import raw

from services import clock
from tests.support import pdf
from tests.support.clinic import Clinic


def test_the_figures_of_a_month_are_those_of_the_reports(clinic: Clinic) -> None:
    visit = clinic.visit(diagnoses=[{"icd10": "J02.9"}])
    bill = clinic.bill("1200.00", patient_id=visit["patient_id"], doctor_id=clinic.doctor.doctor_id)
    clinic.admin.post(f"/billings/{bill['id']}/payments", {"amount": "200.00", "method": "card"})
    month = f"{clock.today():%Y-%m}"

    response = clinic.admin.get(f"/analytics/report?month={month}")
    text = pdf.text_of(response.get_data())
    quiet = pdf.text_of(clinic.admin.get("/analytics/report?month=2025-02").get_data())

    assert response.headers["Content-Disposition"] == f'attachment; filename="report-{month}.pdf"'
    for part in (
        "Billed $1,200.00",
        "Net revenue $200.00",
        "Outstanding $1,000.00",
        "Visits 1",
        "New patients 1",
        "Card 200.00 0.00 200.00",
        "Not due 1,000.00",
        "Acute pharyngitis, unspecified J02.9 1",
    ):
        assert part in text
    assert "Billed $0.00" in quiet
    assert "February 28, 2025" in quiet


def test_the_report_is_for_administrators_and_has_the_language_of_the_request(clinic: Clinic) -> None:
    clinic.doctor_row(name="Grace {amount} Wambui")

    response = clinic.admin.get("/analytics/report?locale=pt")
    text = pdf.text_of(response.get_data())

    assert clinic.doctor.get("/analytics/report").status_code == 403
    assert "Relatório mensal" in text
    assert "Grace {amount} Wambui" in text
    assert any(
        item.type in (raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_FORM)
        for page in pypdfium2.PdfDocument(response.get_data())
        for item in page.get_objects(max_depth=1)
    )
