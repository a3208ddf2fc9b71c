"""Money of an insurer on a void bill: a debt to the insurer, never credit of the patient."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from services import integrity_checks
from tests.support.clinic import Clinic

Row = dict[str, Any]


def pay_claim(clinic: Clinic, bill: Row, amount: str) -> None:
    """Let an insurer pay this amount for a claim, also above the balance of the bill."""
    url = f"/billings/{bill['id']}/claims"
    claim = clinic.admin.make(url, insurer="Acme Health", policy_number="P-1", amount=amount)
    for members in (
        {"status": "submitted"},
        {"status": "approved"},
        {"status": "paid", "allow_credit": True},
    ):
        assert clinic.admin.patch(f"{url}/{claim['id']}", members).status_code == 200


def pay(clinic: Clinic, bill: Row, amount: str, method: str) -> None:
    clinic.admin.make(f"/billings/{bill['id']}/payments", amount=amount, method=method)


def void(clinic: Clinic, bill: Row) -> Row:
    answer = clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "wrong patient"})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    row: Row = answer.get_json()
    return row


def account_of(clinic: Clinic, bill: Row) -> Row:
    account: Row = clinic.admin.get(f"/patients/{bill['patient_id']}/account").get_json()
    return account


# cash, payment by insurance, claim, write-off -> credit of the patient, debt to the insurer
VOIDS = [
    ("0", "0", "0", "0", "0.00", "0.00"),
    ("100", "0", "0", "0", "100.00", "0.00"),
    ("0", "100", "0", "0", "0.00", "100.00"),
    ("30", "0", "70", "0", "30.00", "70.00"),
    ("20", "30", "50", "0", "20.00", "80.00"),
    ("50", "0", "80", "0", "50.00", "80.00"),  # 30 of the claim were credit of the patient
    ("0", "0", "80", "50", "0.00", "80.00"),
]


@pytest.mark.parametrize(("cash", "insurance", "claim", "write_off", "credit", "owed"), VOIDS)
def test_a_void_owes_an_insurer_what_it_paid(
    clinic: Clinic, cash: str, insurance: str, claim: str, write_off: str, credit: str, owed: str
) -> None:
    bill = clinic.bill("100.00")
    for amount, method in ((cash, "cash"), (insurance, "insurance")):
        if amount != "0":
            pay(clinic, bill, amount, method)
    if write_off != "0":
        clinic.admin.post(f"/billings/{bill['id']}/write-off", {"amount": write_off, "reason": "hardship"})
    if claim != "0":
        pay_claim(clinic, bill, claim)

    row = void(clinic, bill)

    assert (row["owed_to_insurers"], row["balance"], row["amount_paid"]) == (owed, "0.00", "0.00")
    account = account_of(clinic, bill)
    assert (account["credit"], account["owed_to_insurers"]) == (credit, owed)
    assert Decimal(account["account_balance"]) == -Decimal(credit)
    debts = [entry["amount"] for entry in account["entries"] if entry["kind"] == "insurer_debt"]
    assert debts == ([owed] if owed != "0.00" else [])
    with clinic.inside():
        assert list(integrity_checks.violations()) == []


def test_credit_from_an_insurer_that_was_spent_stays_spent(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    clinic.admin.post(f"/billings/{bill['id']}/write-off", {"amount": "50.00", "reason": "hardship"})
    pay_claim(clinic, bill, "80")
    pay(clinic, clinic.bill("20.00", patient_id=bill["patient_id"]), "20", "credit")

    row = void(clinic, bill)

    account = account_of(clinic, bill)
    assert (row["owed_to_insurers"], account["credit"]) == ("60.00", "0.00")


def test_a_refund_by_insurance_pays_the_debt_of_a_void_bill(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    pay(clinic, bill, "30", "cash")
    pay(clinic, bill, "70", "insurance")
    void(clinic, bill)
    url = f"/billings/{bill['id']}/refunds"

    request = clinic.receptionist.make(url, amount="50.00", reason="void")["refunds"][0]
    above = clinic.admin.post(url, {"amount": "20.01", "reason": "void"})
    to_patient = clinic.admin.post(url, {"amount": "10.00", "method": "cash", "reason": "void"})
    decided = clinic.admin.patch(f"{url}/{request['id']}", {"status": "approved"}).get_json()
    row = clinic.admin.make(url, amount="20.00", method="insurance", reason="void")
    settled = clinic.admin.post(url, {"amount": "0.01", "reason": "void"})

    assert (decided["method"], row["owed_to_insurers"], row["balance"]) == ("insurance", "0.00", "0.00")
    assert [answer.get_json()["error"] for answer in (above, to_patient)] == ["excessive_refund"] * 2
    assert settled.get_json()["error"] == "read_only"
    account = account_of(clinic, bill)
    assert (account["credit"], account["owed_to_insurers"]) == ("30.00", "0.00")
    totals = clinic.admin.get("/analytics/revenue").get_json()["totals"]
    assert (totals["collected"], totals["refunded"], totals["net"]) == ("100.00", "70.00", "30.00")
    with clinic.inside():
        assert list(integrity_checks.violations()) == []


@pytest.mark.parametrize("path", ["payment", "creation", "claim"])
def test_an_insurer_gets_back_what_it_paid_above_the_balance(clinic: Clinic, path: str) -> None:
    by_insurance = {"payment_method": "insurance", "amount_paid": "130.00", "allow_credit": True}
    bill = clinic.bill("100.00", **(by_insurance if path == "creation" else {}))
    if path == "payment":
        payment = {"amount": "130.00", "method": "insurance", "allow_credit": True}
        clinic.admin.make(f"/billings/{bill['id']}/payments", **payment)
    if path == "claim":
        pay(clinic, bill, "20", "insurance")
        pay_claim(clinic, bill, "80")
        pay_claim(clinic, bill, "30")
    other = clinic.bill("40.00", patient_id=bill["patient_id"])
    pay(clinic, other, "10", "credit")

    row = void(clinic, bill)
    before = account_of(clinic, bill)
    refund = clinic.admin.make(f"/billings/{bill['id']}/refunds", amount="120.00", reason="void")
    after = account_of(clinic, bill)

    assert (row["owed_to_insurers"], row["balance"]) == ("120.00", "0.00")  # 10 were spent
    assert (before["credit"], before["owed_to_insurers"]) == ("0.00", "120.00")
    assert refund["refunds"][0]["method"] == "insurance"
    assert (after["credit"], after["owed_to_insurers"]) == ("0.00", "0.00")
    with clinic.inside():
        assert list(integrity_checks.violations()) == []


def test_money_that_was_paid_back_to_an_insurer_is_not_owed_after_a_void(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    pay(clinic, bill, "70", "insurance")
    refund = {"amount": "50.00", "method": "insurance", "reason": "not covered"}
    clinic.admin.make(f"/billings/{bill['id']}/refunds", **refund)

    assert void(clinic, bill)["owed_to_insurers"] == "20.00"


def test_a_bill_at_the_limit_of_money_can_be_paid_and_voided(clinic: Clinic) -> None:
    limit = "9999999999.99"
    bill = clinic.bill(limit)
    pay_claim(clinic, bill, limit)
    pay_claim(clinic, bill, limit)  # becomes credit
    other = clinic.bill(limit, patient_id=bill["patient_id"])
    pay(clinic, other, limit, "cash")

    void(clinic, other)
    row = void(clinic, bill)

    account = account_of(clinic, bill)
    assert (row["owed_to_insurers"], account["credit"]) == ("19999999999.98", limit)
    assert clinic.admin.get("/analytics/revenue").get_json()["totals"]["collected"] == "29999999999.97"
    assert clinic.admin.get(f"/patients/{bill['patient_id']}").get_json()["account_balance"] == f"-{limit}"
