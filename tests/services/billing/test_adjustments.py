"""Write-offs and voids."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from werkzeug.test import TestResponse

from models import LedgerEntry
from tests.support.clinic import Clinic


def error_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def pay(clinic: Clinic, bill: dict[str, Any], amount: str, **members: Any) -> TestResponse:
    body = {"amount": amount, "method": "cash"} | members
    return clinic.receptionist.post(f"/billings/{bill['id']}/payments", body)


def test_a_write_off_above_the_balance_is_refused(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="60.00")
    url = f"/billings/{bill['id']}/write-off"

    above = clinic.admin.post(url, {"amount": "40.01", "reason": "hardship"})
    incomplete = clinic.admin.post(url, {"amount": "40.00"})
    row = clinic.admin.post(url, {"amount": "40.00", "reason": "hardship"}).get_json()

    assert error_of(above) == (409, "overpayment")
    assert incomplete.status_code == 422
    assert (row["written_off"], row["balance"], row["status"]) == ("40.00", "0.00", "paid")
    assert row["amount_paid"] == "60.00"


def test_a_void_reverses_the_bill_and_turns_its_payments_into_credit(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", discount="10.00", discount_reason="staff", tax_rate="10")
    pay(clinic, bill, "50.00")
    url = f"/billings/{bill['id']}"

    incomplete = clinic.admin.post(f"{url}/void", {})
    row = clinic.admin.post(f"{url}/void", {"reason": "wrong patient"}).get_json()

    assert incomplete.status_code == 422
    assert (row["status"], row["balance"], row["amount_paid"], row["is_paid"]) == (
        "void",
        "0.00",
        "0.00",
        False,
    )
    assert row["account_balance"] == "-50.00"
    with clinic.inside() as session:
        entries = session.execute(select(LedgerEntry).where(LedgerEntry.billing_id == bill["id"])).scalars()
        assert sum(entry.amount for entry in entries) == 0


def test_a_void_bill_is_read_only(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="10.00")
    url = f"/billings/{bill['id']}"
    clinic.admin.post(f"{url}/void", {"reason": "mistake"})

    answers = [
        clinic.admin.patch(url, {"notes": "x"}),
        pay(clinic, bill, "1.00"),
        clinic.admin.post(f"{url}/refunds", {"amount": "1.00", "reason": "x"}),
        clinic.admin.post(f"{url}/write-off", {"amount": "1.00", "reason": "x"}),
        clinic.admin.post(f"{url}/void", {"reason": "x"}),
        clinic.admin.post(f"{url}/claims", {"insurer": "A", "policy_number": "1", "amount": "1.00"}),
    ]

    assert [error_of(answer) for answer in answers] == [(409, "read_only")] * 6


def test_treatments_of_a_void_bill_can_be_billed_again(clinic: Clinic) -> None:
    treatment = clinic.treatment(cost="80.00")
    bill = clinic.admin.make("/billings", treatment_id=treatment["id"])

    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "mistake"})
    again = clinic.admin.make("/billings", treatment_id=treatment["id"])

    assert again["amount"] == "80.00"
    assert clinic.admin.get(f"/treatments/{treatment['id']}").get_json()["billing_id"] == again["id"]
