"""Rules of all documents: bytes, ETag, language, paper, audit, and characters without glyph."""

from __future__ import annotations

import json

import pytest

from services.documents.language import FOLDER, LANGUAGES
from tests.support import pdf
from tests.support.clinic import Caller, Clinic

MONTH = "2026-03"
ROUTES = {
    "invoice": "/billings/<int:billing_id>/document",
    "receipt": "/billings/<int:billing_id>/payments/<int:payment_id>/receipt",
    "statement": "/patients/<int:patient_id>/account/statement",
    "prescription": "/prescriptions/<int:prescription_id>/document",
    "visit_summary": "/visits/<int:visit_id>/document",
    "letter_certificate": "/letters/<int:letter_id>/document",
    "monthly_report": "/analytics/report",
}


def documents_of(clinic: Clinic, **patient: object) -> dict[str, str]:
    """Return the paths of all documents of a new patient, by the key of their title."""
    patient_id = clinic.patient(**({"name": "Njeri Wanjiku"} | patient))["id"]
    medication = {"name": "Metformin", "dosage": "500 mg", "frequency": "twice a day", "quantity": 20}
    visit = clinic.visit(
        patient_id=patient_id,
        chief_complaint="Thirst",
        prescriptions=[{"medications": [medication], "override_reason": "asked"}],
    )
    bill = clinic.bill("100.00", patient_id=patient_id, amount_paid="60.00", payment_method="cash")
    payment_id = clinic.admin.get(f"/billings/{bill['id']}").get_json()["payments"][0]["id"]
    return {
        "invoice": f"/billings/{bill['id']}/document?type=invoice",
        "receipt": f"/billings/{bill['id']}/payments/{payment_id}/receipt?",
        "statement": f"/patients/{patient_id}/account/statement?",
        "prescription": f"/prescriptions/{visit['prescriptions'][0]['id']}/document?",
        "visit_summary": f"/visits/{visit['id']}/document?",
        "monthly_report": f"/analytics/report?month={MONTH}",
    }


def with_letter(clinic: Clinic, **patient: object) -> dict[str, str]:
    """Return the paths of `documents_of`, and that of a letter. A name without glyphs has no letter."""
    paths = documents_of(clinic, **patient)
    visit_id = paths["visit_summary"].split("/")[2]
    letter = clinic.doctor.make(f"/visits/{visit_id}/letters", type="certificate", text="Fit to travel.")
    return paths | {"letter_certificate": f"/letters/{letter['id']}/document?"}


def content(caller: Caller, path: str) -> bytes:
    response = caller.get(path)
    assert (response.status_code, response.mimetype) == (200, "application/pdf"), response.get_data()
    return response.get_data()


def test_each_document_has_the_same_bytes_and_an_etag(clinic: Clinic) -> None:
    for path in with_letter(clinic).values():
        first = clinic.admin.get(path)
        again = clinic.admin.get(path, headers={"If-None-Match": first.headers["ETag"]})

        assert (again.status_code, again.get_data()) == (304, b""), path
        assert content(clinic.admin, path) == first.get_data()
        assert first.headers["Cache-Control"] == "private, no-cache"
        assert first.headers["Content-Disposition"].endswith('.pdf"')


def test_each_document_follows_the_language_and_the_paper_of_the_request(clinic: Clinic) -> None:
    swahili = json.loads((FOLDER / "sw.json").read_text())

    for title, path in with_letter(clinic, language="fr").items():
        document = content(clinic.admin, f"{path}&locale=sw_KE&paper=a5")
        assert pdf.text_of(document).find(swahili[title]) >= 0, path
        assert pdf.page_size(document) == (148, 210)


def test_each_document_has_number_name_and_total_in_order(clinic: Clinic) -> None:
    problems = []
    for title, path in with_letter(clinic).items():
        # pdfium reverses Latin words on Arabic pages: the robustness tests read these with pdftotext
        for locale in (language for language in LANGUAGES if language != "ar"):
            text = pdf.text_of(content(clinic.admin, f"{path}&locale={locale}"))
            if missing := pdf.missing_part(text, pdf.parts_of(clinic.admin, path, locale)):
                problems.append((title, locale, missing))

    assert problems == []


def test_each_document_is_audited_as_a_read(clinic: Clinic) -> None:
    entities = {"receipt": "billing", "statement": "account", "visit_summary": "visit"}
    entities |= {"letter_certificate": "letter"}
    entities |= {"invoice": "billing", "prescription": "prescription", "monthly_report": "report"}

    for title, path in with_letter(clinic).items():
        content(clinic.admin, path)
        newest = clinic.admin.get(f"/audit-logs?action=read&entity={entities[title]}").get_json()[0]
        assert newest["operation"] == f"GET {ROUTES[title]}"


def test_each_document_refuses_characters_without_glyph(clinic: Clinic) -> None:
    paths = documents_of(clinic, name="陳大文")
    clinic.doctor_row(name="王 Mei")

    for path in paths.values():
        response = clinic.admin.get(path)
        assert (response.status_code, response.get_json()["error"]) == (422, "unprintable_characters"), path
        name = "王" if "analytics" in path else "陳大文"
        assert all(character in response.get_json()["message"] for character in name)


@pytest.mark.parametrize("locale", ["en", "ar"])
def test_a_word_longer_than_a_line_stays_on_the_paper(clinic: Clinic, locale: str) -> None:
    paths = with_letter(clinic, name="W" * 120, address="z" * 120)
    bill = clinic.bill(
        items=[{"description": "D" * 120, "quantity": 1, "unit_price": "9999999999.99"}],
        notes=f"https://example.com/{'n' * 120}",
        insurer_reference="R" * 60,
    )
    paths["bill"] = f"/billings/{bill['id']}/document?"

    on_paper = {
        title: pdf.is_on_paper(content(clinic.admin, f"{path}&locale={locale}&paper=a5"))
        for title, path in paths.items()
    }

    assert [title for title, is_right in on_paper.items() if not is_right] == []


def test_notes_may_contain_tabs_line_breaks_and_marks_of_direction(clinic: Clinic) -> None:
    notes = "Dose:\t5 ml\r\nnext line\n\nafter\u00a0an empty one \u200fx\u200b y \u202ez\u202c"
    bill = clinic.bill("10.00", notes=notes)

    text = pdf.text_of(content(clinic.admin, f"/billings/{bill['id']}/document"))

    assert "next line\n" in text


@pytest.mark.parametrize(
    "path",
    [
        "/analytics/report?month=2026-13",
        "/analytics/report?month=2026-1",
        "/analytics/report?month=0000-01",
        "/patients/1/account/statement?start_date=2026-02-01&end_date=2026-01-31",
        "/patients/1/account/statement?start_date=x",
        "/prescriptions/1/document?locale=de",
        "/visits/1/document?paper=a3",
    ],
)
def test_a_wrong_parameter_is_422(clinic: Clinic, path: str) -> None:
    documents_of(clinic)

    response = clinic.admin.get(path)

    assert (response.status_code, response.get_json()["error"]) == (422, "validation_failed")


def test_a_month_at_either_end_of_the_calendar_is_no_server_error(clinic: Clinic) -> None:
    statuses = {
        month: clinic.admin.get(f"/analytics/report?month={month}").status_code
        for month in ("0001-01", "1900-01", "2199-12", "9999-12")
    }

    assert all(status in (200, 422) for status in statuses.values()), statuses


def test_a_document_of_a_row_that_does_not_exist_is_404(clinic: Clinic) -> None:
    bill = clinic.bill()
    paths = ("/visits/99/document", "/prescriptions/99/document", "/patients/99/account/statement")

    for path in (*paths, "/letters/99/document", f"/billings/{bill['id']}/payments/99/receipt"):
        assert clinic.admin.get(path).status_code == 404
