"""The public page about a document: its state, its amounts, its tokens. It names no person."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from models import AuditLog, Event
from security import link_tokens
from security.link_tokens import Purpose
from services.documents.qr_code import verification_url
from tests.support import pdf
from tests.support.clinic import Clinic

PUBLIC = "https://clinic.example"
Row = dict[str, Any]


@pytest.fixture
def clinic(make_clinic: Any) -> Clinic:
    clinic: Clinic = make_clinic(public_url=PUBLIC, currency="KES", clinic_locale="en_KE")
    clinic.admin.patch("/clinic", {"name": "Lakeside Clinic"})
    return clinic


def new_bill(clinic: Clinic, **members: Any) -> Row:
    patient_id = clinic.patient(name="Zawadi Njeri", phone="0712345678", email="z@njeri.example")["id"]
    return clinic.bill("1000.00", patient_id=patient_id, doctor_id=clinic.doctor.doctor_id, **members)


def send(clinic: Clinic, bill: Row, action: str, **members: Any) -> Row:
    response = clinic.admin.post(f"/billings/{bill['id']}/{action}", {"reason": "Not done"} | members)
    assert response.status_code in (200, 201), response.get_data(as_text=True)
    row: Row = response.get_json()
    return row


def page(clinic: Clinic, purpose: Purpose, row_id: int, language: str = "en") -> str:
    with clinic.inside():
        path = str(verification_url(purpose, row_id)).removeprefix(PUBLIC)
    response = clinic.nobody.get(path, headers={"Accept-Language": language})
    assert (response.status_code, response.mimetype) == (200, "text/html"), response.get_data(as_text=True)
    return response.get_data(as_text=True)


def test_the_code_of_each_document_opens_a_page_about_it_that_names_no_person(clinic: Clinic) -> None:
    bill = new_bill(clinic, amount_paid="600.00", payment_method="cash", tax_rate="16")
    bill = send(clinic, bill, "refunds", amount="100", payment_id=bill["payments"][0]["id"])
    url = f"/billings/{bill['id']}"
    expected = {
        f"{url}/document": ["Invoice", bill["invoice_number"], "Ksh1,160.00", "-Ksh100.00"],
        f"{url}/document?type=receipt": ["Receipt", bill["invoice_number"], "Ksh600.00", "Ksh500.00"],
        f"{url}/payments/{bill['payments'][0]['id']}/receipt": [
            "Receipt",
            f"{bill['invoice_number']}/",
            "-Ksh100.00",
            "Ksh500.00",
        ],
        f"{url}/document?type=credit_note": ["Credit note", bill["credit_notes"][0]["number"], "Ksh100.00"],
    }

    for path, texts in expected.items():
        (address,) = pdf.codes_of(clinic.admin.get(path).get_data())
        response = clinic.nobody.get(address.removeprefix(PUBLIC))
        text = response.get_data(as_text=True)
        assert all(each in text for each in ["Lakeside Clinic", *texts]), (path, text)
        names = ("Zawadi", "Njeri", "0712345678", "njeri.example", "P-0000", "Doctor 1", "Not done")
        assert not any(name in text for name in names), path
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Robots-Tag"] == "noindex"


def test_the_page_shows_the_state_of_today(clinic: Clinic) -> None:
    bill = new_bill(clinic)
    states = [page(clinic, Purpose.VERIFY_INVOICE, bill["id"])]
    discount = {"discount": "100", "discount_reason": "staff"}
    clinic.admin.patch(f"/billings/{bill['id']}", discount)
    states.append(page(clinic, Purpose.VERIFY_INVOICE, bill["id"]))
    bill = clinic.admin.make(f"/billings/{bill['id']}/payments", amount="900", method="cash")
    payment_id = bill["payments"][0]["id"]
    receipts = [page(clinic, Purpose.VERIFY_PAYMENT, payment_id)]
    send(clinic, bill, "refunds", amount="50")
    receipts.append(page(clinic, Purpose.VERIFY_PAYMENT, payment_id))
    send(clinic, bill, "void")
    states.append(page(clinic, Purpose.VERIFY_INVOICE, bill["id"]))
    receipts += [
        page(clinic, purpose, row)
        for purpose, row in ((Purpose.VERIFY_PAYMENT, payment_id), (Purpose.VERIFY_RECEIPT, bill["id"]))
    ]

    assert_shown(states, [("Genuine", "1,000.00"), ("Genuine", "900.00"), ("VOID", "900.00")])
    expected = [("Genuine", "900.00"), ("Refunded", "900.00"), ("VOID", "900.00"), ("VOID", "850.00")]
    assert_shown(receipts, expected)


def test_the_page_about_a_letter_shows_number_date_and_state_and_nothing_medical(clinic: Clinic) -> None:
    patient = clinic.patient(name="Zawadi Njeri")["id"]
    path = f"/visits/{clinic.visit(patient_id=patient)['id']}/letters"
    day = clinic.doctor.get(path.removesuffix("/letters")).get_json()["date"][:10]
    letter = clinic.doctor.make(path, type="sick_note", from_date=day, to_date=day, recipient="Harbour Ltd")
    document = clinic.doctor.get(f"/letters/{letter['id']}/document").get_data()

    (address,) = pdf.codes_of(document)
    genuine = clinic.nobody.get(address.removeprefix(PUBLIC)).get_data(as_text=True)
    clinic.doctor.post(f"/letters/{letter['id']}/void", {"reason": "Wrong period"})
    void = page(clinic, Purpose.VERIFY_LETTER, letter["id"])

    for text, status in ((genuine, "Genuine"), (void, "VOID")):
        assert all(part in text for part in ("Letter", letter["number"], status, "Lakeside Clinic"))
        hidden = ("Zawadi", "Njeri", "Harbour", "ick", "Doctor", "medic", "Wrong period")
        assert not any(part in text for part in hidden)


def assert_shown(pages: list[str], expected: list[tuple[str, str]]) -> None:
    missing = [
        (number, text) for number, texts in enumerate(expected) for text in texts if text not in pages[number]
    ]
    assert (len(pages), missing) == (len(expected), [])


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("sw-KE", ['lang="sw-KE" dir="ltr"', "Halali", "Ankara"]),
        ("ar", ['lang="ar" dir="rtl"', "صحيح"]),
        ("fr-FR,fr;q=0.9", ['lang="fr" dir="ltr"', "Authentique"]),
        ("de", ['lang="en-KE"', "Genuine"]),
    ],
)
def test_the_page_is_in_the_language_of_the_browser(clinic: Clinic, language: str, texts: list[str]) -> None:
    text = page(clinic, Purpose.VERIFY_INVOICE, new_bill(clinic)["id"], language)

    assert [each for each in texts if each not in text] == []


def test_foreign_altered_and_missing_rows_are_the_same_404(clinic: Clinic) -> None:
    bill = new_bill(clinic)
    with clinic.inside():
        token = link_tokens.create(Purpose.VERIFY_INVOICE, bill["id"])
        others = [
            link_tokens.create(Purpose.VERIFY_INVOICE, 999),
            link_tokens.create(Purpose.VERIFY_RECEIPT, bill["id"]),  # it has no payment
            link_tokens.create(Purpose.VERIFY_PAYMENT, 1),  # the charge
            link_tokens.create(Purpose.VERIFY_CREDIT_NOTE, 1),
            link_tokens.create(Purpose.ANSWER, bill["id"], bill["patient_id"]),
            link_tokens.create(Purpose.UNSUBSCRIBE, bill["patient_id"], "email"),
        ]
    altered = [
        token[:-1] + "g",
        "A" + token[1:],
        token + "A",
        token + "=",
        token[:21],
        "x",
        "%00",
        "é",
        "A" * 900,
    ]

    pages = [clinic.nobody.get(f"/v/{text}") for text in (*others, *altered)]
    pages += [clinic.nobody.get(f"/{path}/{token}") for path in ("a", "u")]

    assert {(response.status_code, response.mimetype) for response in pages} == {(404, "text/html")}
    assert len({response.get_data() for response in pages}) == 1
    assert clinic.nobody.get(f"/calendar/{token}.ics").status_code == 404
    assert clinic.nobody.get(f"/v/{token}").status_code == 200


def test_a_read_changes_nothing_and_the_token_is_in_no_log(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    bill = new_bill(clinic)

    def rows() -> list[int | None]:
        with clinic.inside() as session:
            return [session.scalar(select(func.count()).select_from(table)) for table in (AuditLog, Event)]

    before = rows()
    capsys.readouterr()
    with clinic.inside():
        token = link_tokens.create(Purpose.VERIFY_INVOICE, bill["id"])
    statuses = [clinic.nobody.send(method, f"/v/{token}").status_code for method in ("GET", "HEAD", "POST")]

    assert statuses == [200, 200, 405]
    assert rows() == before
    written = capsys.readouterr().err
    assert "route=/v/<token>" in written
    assert token not in written


def test_the_page_is_limited_by_network(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="2 per minute")

    pages = [clinic.nobody.get(f"/v/nothing{number}") for number in range(3)]

    assert [response.status_code for response in pages] == [404, 404, 429]
    assert pages[2].mimetype == "text/html"
