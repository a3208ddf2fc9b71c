"""Receipts, and refunds on invoices: their sums agree with the ledger."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from tests.support import pdf
from tests.support.clinic import Clinic


def text_of(clinic: Clinic, path: str) -> str:
    response = clinic.receptionist.get(path)
    assert response.status_code == 200, response.get_data(as_text=True)
    return pdf.text_of(response.get_data())


def pay(clinic: Clinic, bill: dict[str, Any], amount: str, **members: object) -> dict[str, Any]:
    """Pay a bill, and return the payment."""
    response = clinic.admin.post(f"/billings/{bill['id']}/payments", {"amount": amount, **members})
    assert response.status_code == 201, response.get_data(as_text=True)
    payment: dict[str, Any] = response.get_json()["payments"][-1]
    return payment


def refund(clinic: Clinic, bill: dict[str, Any], amount: str, **members: object) -> None:
    body = {"amount": amount, "reason": "Billed twice", **members}
    response = clinic.admin.post(f"/billings/{bill['id']}/refunds", body)
    assert response.status_code == 201, response.get_data(as_text=True)


def listed_sum(text: str) -> Decimal:
    """Return the sum of the lines that begin with a date and end with an amount."""
    amounts = re.findall(r"^\w+ \d+, \d{4} \D.*?(-?[\d,]+\.\d\d)$", text, re.MULTILINE)
    return sum((Decimal(amount.replace(",", "")) for amount in amounts), Decimal(0))


def test_the_payments_of_an_invoice_and_its_receipt_add_up_to_the_paid_amount(clinic: Clinic) -> None:
    patient_id = clinic.patient()["id"]
    prepaid = clinic.bill("10.00", patient_id=patient_id)
    pay(clinic, prepaid, "60.00", method="card", allow_credit=True)
    bill = clinic.bill("500.00", patient_id=patient_id)
    pay(clinic, bill, "200.00", method="cash", reference="till 4")
    pay(clinic, bill, "50.00", method="credit")
    refund(clinic, bill, "30.25", method="cash")
    refund(clinic, bill, "20.00", method="credit")

    for step in ("paid", "void"):
        if step == "void":
            clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "wrong patient"})
        paid = Decimal(clinic.admin.get(f"/billings/{bill['id']}").get_json()["amount_paid"])
        invoice = text_of(clinic, f"/billings/{bill['id']}/document")
        receipt = text_of(clinic, f"/billings/{bill['id']}/document?type=receipt")
        # a void gives no money back: it becomes credit of the patient
        assert (listed_sum(invoice), listed_sum(receipt)) == (paid, Decimal("199.75"))
        assert "Refund · Cash -30.25" in invoice
        assert "Amount received $199.75" in receipt
        assert ("Kept as credit $199.75" in receipt) == (step == "void")
        assert ("VOID" in receipt) == (step == "void")
    assert paid == 0


def test_a_receipt_of_a_void_bill_names_the_debt_to_the_insurer_until_it_is_paid_back(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    pay(clinic, bill, "30.00", method="cash")
    pay(clinic, bill, "70.00", method="insurance")
    path = f"/billings/{bill['id']}/document?type=receipt"

    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "wrong patient"})
    void = text_of(clinic, path)
    refund(clinic, bill, "70.00", method="insurance")
    paid_back = text_of(clinic, path)

    assert "Amount received $100.00" in void
    assert ("Kept as credit $30.00" in void, "Owed to insurer $70.00" in void) == (True, True)
    assert "Amount received $30.00" in paid_back
    assert ("Kept as credit $30.00" in paid_back, "Owed to insurer" in paid_back) == (True, False)


def test_a_receipt_of_one_payment_shows_it_and_its_refunds_only(clinic: Clinic) -> None:
    bill = clinic.bill("500.00")
    first = pay(clinic, bill, "100.00", method="cash", reference="till 4")
    second = pay(clinic, bill, "150.00", method="mobile_money")
    refund(clinic, bill, "40.00", payment_id=first["id"])

    of_first = text_of(clinic, f"/billings/{bill['id']}/payments/{first['id']}/receipt")
    of_second = text_of(clinic, f"/billings/{bill['id']}/payments/{second['id']}/receipt")

    assert f"Receipt {bill['invoice_number']}/{first['id']}" in of_first
    assert "Cash till 4 100.00" in of_first
    assert "Refund · Cash -40.00" in of_first
    assert "Amount received $60.00" in of_first
    assert "Amount received $150.00" in of_second
    assert "Balance due $290.00" in of_second


def test_a_receipt_contains_the_part_that_became_credit(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    day = "2026-01-15"
    first = pay(clinic, bill, "40.00", method="cash", received_at=day)
    second = pay(clinic, bill, "75.00", method="cash", received_at=day, allow_credit=True)
    pay(clinic, bill, "5.00", method="cash", received_at=day, allow_credit=True)

    texts = [
        text_of(clinic, f"/billings/{bill['id']}/payments/{payment['id']}/receipt")
        for payment in (first, second)
    ]
    of_all = text_of(clinic, f"/billings/{bill['id']}/document?type=receipt")

    assert "Amount received $40.00" in texts[0]
    assert "Kept as credit · Cash 15.00" in texts[1]
    assert "Amount received $75.00" in texts[1]
    assert "Amount received $120.00" in of_all


def test_there_is_no_receipt_without_a_payment_or_for_another_bill(clinic: Clinic) -> None:
    bill, other = clinic.bill(), clinic.bill()
    payment = pay(clinic, other, "10.00", method="cash")

    unpaid = clinic.admin.get(f"/billings/{bill['id']}/document?type=receipt")

    assert (unpaid.status_code, unpaid.get_json()["error"]) == (409, "conflict")
    assert clinic.admin.get(f"/billings/{bill['id']}/payments/{payment['id']}/receipt").status_code == 404


def test_doctors_print_own_bills_without_the_members_of_the_clinic_that_they_may_not_read(
    clinic: Clinic,
) -> None:
    clinic.admin.patch("/clinic", {"tax_number": "P0512", "bank_details": "Account 0123"})
    own = clinic.bill(doctor_id=clinic.doctor.doctor_id)
    other = clinic.bill(doctor_id=clinic.doctor_row()["id"])

    shown = pdf.text_of(clinic.doctor.get(f"/billings/{own['id']}/document").get_data())
    complete = text_of(clinic, f"/billings/{own['id']}/document")

    assert clinic.doctor.get(f"/billings/{other['id']}/document").status_code == 404
    assert ("P0512" in shown, "Account 0123" in shown) == (False, False)
    assert ("P0512" in complete, "Account 0123" in complete) == (True, True)
