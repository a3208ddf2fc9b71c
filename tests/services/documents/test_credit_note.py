"""The credit note on paper: its figures, the choice among several, and the clinic of its issue."""

from __future__ import annotations

from typing import Any

import pytest

from services.documents.language import LANGUAGES
from tests.support import pdf
from tests.support.clinic import Clinic

Row = dict[str, Any]


def send(clinic: Clinic, bill: Row, action: str, **members: Any) -> Row:
    response = clinic.admin.post(f"/billings/{bill['id']}/{action}", {"reason": "Not done"} | members)
    assert response.status_code in (200, 201), response.get_data(as_text=True)
    row: Row = response.get_json()
    return row


def refunded_bill(clinic: Clinic, **patient: Any) -> Row:
    """Return a bill of 990.00 with 90.00 tax and a refund of 99.00."""
    patient_id = clinic.patient(**({"name": "Njeri Wanjiku"} | patient))["id"]
    discount = {"discount": "100", "discount_reason": "staff", "tax_rate": "10"}
    paid = {"amount_paid": "500", "payment_method": "cash"}
    bill = clinic.bill("1000.00", patient_id=patient_id, **discount, **paid)
    return send(clinic, bill, "refunds", amount="99")


def path(bill: Row, note_id: int | None = None, query: str = "") -> str:
    chosen = "" if note_id is None else f"&credit_note_id={note_id}"
    return f"/billings/{bill['id']}/document?type=credit_note{chosen}{query}"


def text_of(clinic: Clinic, *arguments: Any) -> str:
    response = clinic.receptionist.get(path(*arguments))
    assert response.status_code == 200, response.get_data(as_text=True)
    return pdf.text_of(response.get_data())


def test_the_credit_notes_of_a_refund_and_of_the_rest_show_their_figures(clinic: Clinic) -> None:
    bill = refunded_bill(clinic)
    first = text_of(clinic, bill)
    bill = send(clinic, bill, "void")
    notes = bill["credit_notes"]
    second = text_of(clinic, bill, notes[1]["id"])

    in_order = [
        "Credit note CRN-",
        "Njeri Wanjiku",
        bill["invoice_number"],
        "Not done",
        "90.00",
        "9.00",
        "$99.00",
    ]
    positions = [first.index(part) for part in in_order]
    assert positions == sorted(positions)
    assert text_of(clinic, bill, notes[0]["id"]) == first
    in_order = [notes[1]["number"], "1,000.00", "-100.00", "990.00", "-99.00", "810.00", "81.00", "$891.00"]
    positions = [second.index(part) for part in in_order]
    assert positions == sorted(positions)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_credit_note_has_each_language(clinic: Clinic, language: str) -> None:
    bill = send(clinic, clinic.bill("1234.00"), "void")

    response = clinic.admin.get(path(bill, None, f"&locale={language}&paper=a5"))
    again = clinic.admin.get(
        path(bill, None, f"&locale={language}&paper=a5"), headers={"If-None-Match": response.headers["ETag"]}
    )

    assert (response.status_code, again.status_code) == (200, 304)
    number = bill["credit_notes"][0]["number"]
    assert number.removeprefix("CRN-") in pdf.text_of(response.get_data())
    assert response.headers["Content-Disposition"] == f'attachment; filename="{number}.pdf"'


def test_the_credit_note_is_chosen(clinic: Clinic) -> None:
    unpaid, other = clinic.bill("10.00"), send(clinic, clinic.bill("10.00"), "void")
    several = send(clinic, refunded_bill(clinic), "void")
    ids = [note["id"] for note in several["credit_notes"]]

    none, choose = clinic.admin.get(path(unpaid)), clinic.admin.get(path(several))
    foreign = clinic.admin.get(path(several, other["credit_notes"][0]["id"]))
    without_type = clinic.admin.get(f"/billings/{several['id']}/document?credit_note_id={ids[0]}")

    assert (none.status_code, none.get_json()["error"]) == (409, "conflict")
    assert choose.status_code == 422
    assert all(f"{number} (CRN-" in choose.get_json()["errors"]["credit_note_id"] for number in ids)
    assert foreign.status_code == 404
    assert without_type.status_code == 422
    assert clinic.technician.get(path(several, ids[0])).status_code == 403


def test_a_credit_note_is_audited_as_a_read_of_its_bill_and_a_doctor_prints_own_ones(clinic: Clinic) -> None:
    own = send(clinic, clinic.bill("10.00", doctor_id=clinic.doctor.doctor_id), "void")
    other = send(clinic, clinic.bill("10.00", doctor_id=clinic.doctor_row()["id"]), "void")

    statuses = [clinic.doctor.get(path(bill)).status_code for bill in (own, other)]

    assert statuses == [200, 404]
    (entry,) = clinic.admin.get("/audit-logs?entity=billing&action=read&outcome=success").get_json()
    assert (entry["entity_id"], entry["patient_ids"]) == (own["id"], [own["patient_id"]])
    assert entry["operation"] == "GET /billings/<int:billing_id>/document"


def test_a_credit_note_has_the_clinic_of_its_own_issue(clinic: Clinic) -> None:
    names = ["First Clinic", "Second Clinic", "Third Clinic"]
    clinic.admin.patch("/clinic", {"name": names[0]})
    bill = clinic.bill("10.00")
    clinic.admin.patch("/clinic", {"name": names[1]})
    bill = send(clinic, bill, "void")
    clinic.admin.patch("/clinic", {"name": names[2]})

    text = text_of(clinic, bill)

    assert [name for name in names if name in text] == ["Second Clinic"]
