"""The invoice as PDF: figures, languages, papers, void bills and characters without glyph."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from services.documents.language import FOLDER, LANGUAGES
from tests.support import pdf
from tests.support.clinic import Clinic

MakeClinic = Callable[..., Clinic]


def bill_of(clinic: Clinic, **patient: object) -> dict[str, object]:
    patient_id = clinic.patient(**({"name": "Njeri Wanjiku"} | patient))["id"]
    return clinic.bill("1234.50", patient_id=patient_id, amount_paid="200.00", tax_rate="10")


def document(clinic: Clinic, bill: dict[str, object], query: str = "") -> bytes:
    response = clinic.receptionist.get(f"/billings/{bill['id']}/document?{query}")
    assert (response.status_code, response.mimetype) == (200, "application/pdf"), response.get_data()
    return response.get_data()


def test_an_invoice_shows_the_figures_of_the_ledger(clinic: Clinic) -> None:
    bill = bill_of(clinic)

    text = pdf.text_of(document(clinic, bill))

    in_order = [str(bill["invoice_number"]), "Njeri Wanjiku", "1,234.50", "123.45", "$1,357.95", "-200.00"]
    positions = [text.index(part) for part in [*in_order, "$1,157.95"]]
    assert positions == sorted(positions)


def test_the_same_bill_gives_the_same_bytes_and_304(clinic: Clinic) -> None:
    bill = bill_of(clinic)
    path = f"/billings/{bill['id']}/document"
    first = clinic.receptionist.get(path)
    confirmed = clinic.receptionist.get(path, headers={"If-None-Match": first.headers["ETag"]})

    assert first.get_data() == document(clinic, bill)
    assert confirmed.status_code == 304
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert first.headers["Content-Disposition"] == f'attachment; filename="{bill["invoice_number"]}.pdf"'


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_invoice_has_each_language_and_every_text_of_it(clinic: Clinic, language: str) -> None:
    texts = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in ("en", language)}
    bill = bill_of(clinic, language=language)

    text = pdf.text_of(document(clinic, bill))

    assert texts[language].keys() == texts["en"].keys()
    assert all(texts[language].values())
    assert str(bill["invoice_number"]).removeprefix("INV-") in text
    if language != "ar":  # the reader changes the order of Arabic words
        assert texts[language]["balance_due"] in text


def test_a_void_bill_prints_void(clinic: Clinic) -> None:
    bill = bill_of(clinic)
    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "wrong patient"})

    text = pdf.text_of(document(clinic, bill))

    assert "VOID" in text
    assert "must not be paid" in text


def test_a_void_bill_prints_the_amounts_of_its_issue(clinic: Clinic) -> None:
    """They are those of the public page, which asks the reader to compare them."""
    discount = {"discount": "20.00", "discount_reason": "staff"}
    bill = clinic.bill("100.00", tax_rate="10", amount_paid="50.00", payment_method="cash", **discount)
    clinic.admin.post(f"/billings/{bill['id']}/refunds", {"amount": "30", "reason": "late"})
    issued = ["Subtotal 100.00", "Discount -20.00", "Tax 10% 8.00", "Total $88.00"]
    assert pdf.missing_part(pdf.text_of(document(clinic, bill)), issued) is None
    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "wrong patient"})

    text = pdf.text_of(document(clinic, bill))
    receipt = pdf.text_of(clinic.admin.get(f"/billings/{bill['id']}/document?type=receipt").get_data())

    assert pdf.missing_part(text, [*issued, "Balance due $0.00"]) is None
    assert pdf.missing_part(receipt, ["Invoice total $88.00", "Balance due $0.00"]) is None


def test_a_name_without_glyphs_is_refused_with_its_characters(clinic: Clinic) -> None:
    bill = bill_of(clinic, name="陳大文 Chan")

    response = clinic.receptionist.get(f"/billings/{bill['id']}/document")

    assert response.status_code == 422
    assert response.get_json()["error"] == "unprintable_characters"
    assert all(character in response.get_json()["message"] for character in "陳大文")


def test_a_control_character_is_named_once_by_its_code_point(clinic: Clinic) -> None:
    bill = bill_of(clinic, name="Amina \x07\x1b Chan")

    response = clinic.receptionist.get(f"/billings/{bill['id']}/document")

    assert response.status_code == 422
    assert "No font has these characters: U+0007 U+001B. " in response.get_json()["message"]


def test_a_byte_order_mark_of_a_file_does_not_prevent_the_document(clinic: Clinic) -> None:
    text = pdf.text_of(document(clinic, bill_of(clinic, name="\ufeffAmina \ufeffChan")))

    assert "Amina" in text
    assert "Chan" in text


def test_text_is_never_markup(clinic: Clinic) -> None:
    name = "#panic() *bold* $x$ \\ @ref <label> // [x]"

    text = pdf.text_of(document(clinic, bill_of(clinic, name=name)))

    assert name.split(" <")[0] in text


@pytest.mark.parametrize(
    ("query", "message"),
    [("locale=de", "sw"), ("locale=xx_zz_qq", "sw"), ("paper=a3", "a5"), ("x=1", "locale")],
)
def test_a_wrong_parameter_lists_the_accepted_values(clinic: Clinic, query: str, message: str) -> None:
    response = clinic.receptionist.get(f"/billings/{bill_of(clinic)['id']}/document?{query}")

    assert response.status_code == 422
    assert message in json.dumps(response.get_json())


def test_technicians_get_no_invoice_and_a_read_is_audited(clinic: Clinic) -> None:
    bill = bill_of(clinic)

    assert clinic.technician.get(f"/billings/{bill['id']}/document").status_code == 403
    document(clinic, bill, "locale=en_KE&paper=a5")
    entries = clinic.admin.get("/audit-logs?entity=billing&action=read").get_json()
    assert [entry["operation"] for entry in entries] == ["GET /billings/<int:billing_id>/document"]


@pytest.mark.parametrize("currency", ["HUF", "IDR", "SOS", "KES"])
def test_a_total_has_the_places_of_its_currency(make_clinic: MakeClinic, currency: str) -> None:
    """CLDR writes some currencies without places: the total on paper would differ from the ledger."""
    clinic = make_clinic(currency=currency, public_url="https://clinic.example")
    file = document(clinic, clinic.bill("1234.50"))

    (address,) = pdf.codes_of(file)
    page = clinic.nobody.get(address.removeprefix("https://clinic.example")).get_data(as_text=True)

    for text in (pdf.text_of(file), page):
        assert f"{currency}1,234.50" in text.replace("\xa0", "").replace(f"{currency} ", currency)
