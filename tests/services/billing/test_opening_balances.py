"""Opening balances: debts and credits from before the first entry of the ledger."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from enums import Role
from errors import ClinicError
from extensions import db
from models import LedgerEntry
from security.permissions import Actor
from services import clock
from services.billing import opening_balances
from services.jobs.transactions import transaction
from tests.support import pdf
from tests.support.clinic import Clinic
from tests.support.messages import Outbox, messages_of, outbox, run_worker

__all__ = ["outbox"]
IMPORTER = Actor(None, "import", Role.ADMIN)
LONG_AGO = date(2019, 6, 30)
SOON = datetime.now(UTC).date() + timedelta(days=2)


def bring(clinic: Clinic, amount: str, patient_id: int | None = None, **members: Any) -> dict[str, Any]:
    """Post an opening balance, and return patient, entry and bill."""
    patient_id = patient_id or clinic.patient()["id"]
    values = {"date": LONG_AGO, "reference": "K-17"} | members
    with clinic.app.app_context(), transaction("import 1"):
        entry = opening_balances.create(IMPORTER, patient_id=patient_id, amount=Decimal(amount), **values)
        return {"patient": patient_id, "entry": entry.id, "bill": entry.billing_id}


def undo(clinic: Clinic, entry_id: int) -> None:
    with clinic.app.app_context(), transaction("import 1 undo"):
        opening_balances.reverse(IMPORTER, db.session.get_one(LedgerEntry, entry_id), "import undone")


def account(clinic: Clinic, patient_id: int) -> dict[str, Any]:
    row: dict[str, Any] = clinic.admin.get(f"/patients/{patient_id}/account").get_json()
    return row


def revenue(clinic: Clinic) -> dict[str, Any]:
    query = f"start_date=2019-01-01&end_date={clock.today()}&group_by=year"
    report: dict[str, Any] = clinic.admin.get(f"/analytics/revenue?{query}").get_json()
    return report


def verify(clinic: Clinic) -> str:
    return clinic.app.test_cli_runner().invoke(args=["verify"]).output


def test_a_debt_is_a_bill_of_today_that_was_due_on_its_date(clinic: Clinic) -> None:
    before = clinic.bill("10.00")["invoice_number"]
    brought = bring(clinic, "120.50")
    after = clinic.bill("10.00")["invoice_number"]

    bill = clinic.admin.get(f"/billings/{brought['bill']}").get_json()
    assert [int(number[-6:]) for number in (before, bill["invoice_number"], after)] == [1, 2, 3]
    assert (bill["date"], bill["due_date"]) == (clock.today().isoformat(), "2019-06-30")
    names = ("subtotal", "amount", "balance", "account_balance")
    assert [bill[name] for name in names] == ["120.50"] * 4
    assert [item["description"] for item in bill["items"]] == ["Balance brought forward"]
    (entry,) = account(clinic, brought["patient"])["entries"]
    assert (entry["kind"], entry["amount"], entry["reference"]) == ("opening_balance", "120.50", "K-17")
    assert entry["occurred_at"].startswith("2019-06-30")
    listed = clinic.admin.get("/billings?subtotal=120.50&amount=120.50&status=unpaid").get_json()
    assert [row["id"] for row in listed] == [brought["bill"]]
    text = clinic.admin.get(f"/patients/{brought['patient']}/account/statement").get_data()
    assert "Balance brought forward · K-17" in pdf.text_of(text)
    invoice = clinic.admin.get(f"/billings/{brought['bill']}/document?locale=sw").get_data()
    assert "Salio lililoletwa mbele" in pdf.text_of(invoice)
    assert "Balance brought forward" not in pdf.text_of(invoice)
    assert verify(clinic) == ""


def test_a_balance_is_outstanding_and_no_revenue(clinic: Clinic) -> None:
    empty = revenue(clinic)
    day = f"/analytics/dashboard?start_date={LONG_AGO}&end_date={LONG_AGO}"
    figures = clinic.admin.get(day).get_json()["period"]
    bring(clinic, "120.50")
    bring(clinic, "-30.00")

    report = revenue(clinic)
    assert report["ageing"] == empty["ageing"] | {"90+": "120.50"}
    assert report["totals"] == empty["totals"] | {"outstanding": "120.50"}
    assert [report[name] for name in ("data", "by_method", "by_doctor")] == [
        empty[name] for name in ("data", "by_method", "by_doctor")
    ]
    dashboard = clinic.admin.get(day).get_json()
    assert (dashboard["outstanding"], dashboard["period"]) == ("120.50", figures)


def test_a_debt_is_paid_and_a_credit_is_spent(clinic: Clinic) -> None:
    debt, credit = bring(clinic, "100.00"), bring(clinic, "-30.00")
    payment = {"amount": "100.00", "method": "cash"}
    paid = clinic.receptionist.make(f"/billings/{debt['bill']}/payments", **payment)
    assert account(clinic, credit["patient"])["credit"] == "30.00"
    bill = clinic.bill("20.00", patient_id=credit["patient"])
    spent = clinic.receptionist.make(f"/billings/{bill['id']}/payments", amount="20.00", method="credit")

    assert [row["status"] for row in (paid, spent)] == ["paid", "paid"]
    assert account(clinic, credit["patient"])["credit"] == "10.00"
    assert revenue(clinic)["totals"]["collected"] == "100.00"
    for brought in (debt, credit):
        with pytest.raises(ClinicError) as error:
            undo(clinic, brought["entry"])
        assert error.value.code == "in_use"
    assert verify(clinic) == ""


def test_credits_of_a_patient_are_undone_together_or_not_at_all(clinic: Clinic) -> None:
    patient, other = clinic.patient()["id"], bring(clinic, "-20.00")["entry"]
    credits = [bring(clinic, amount, patient, reference=amount)["entry"] for amount in ("-100.00", "-50.00")]
    bill = clinic.bill("30.00", patient_id=patient)
    clinic.receptionist.make(f"/billings/{bill['id']}/payments", amount="30.00", method="credit")

    with clinic.inside():
        assert sorted(opening_balances.spent([*credits, other])) == credits
        assert opening_balances.spent([credits[0], other]) == []


@pytest.mark.parametrize("amount", ["120.50", "-30.00"])
def test_an_undo_reverses_the_entry_and_keeps_both(clinic: Clinic, amount: str) -> None:
    brought = bring(clinic, amount)
    before = revenue(clinic)["data"]

    undo(clinic, brought["entry"])

    row = account(clinic, brought["patient"])
    assert (row["account_balance"], row["credit"], row["open_bills"]) == ("0.00", "0.00", [])
    assert [entry["kind"] for entry in row["entries"]] == ["reversal", "opening_balance"]
    assert revenue(clinic)["data"] == before
    assert revenue(clinic)["totals"]["outstanding"] == "0.00"
    assert verify(clinic) == ""
    bring(clinic, amount, brought["patient"])
    assert account(clinic, brought["patient"])["account_balance"] == amount


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "10000000000.00"}, "amount"),
        ({"currency": "XAF"}, "currency"),
        ({"date": SOON}, "date"),
        ({"date": date(1926, 1, 1)}, "date"),
        ({"patient_id": 999}, "patient_id"),
    ],
)
def test_an_impossible_balance_reports_the_field(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    with pytest.raises(ClinicError) as error:
        bring(clinic, **{"amount": "5"} | members)

    assert (error.value.status, list(error.value.errors)) == (422, [field])


def test_the_same_balance_is_posted_once(clinic: Clinic) -> None:
    brought = bring(clinic, "120.50")
    for members in ({}, {"amount": "-7.00"}):
        with pytest.raises(ClinicError) as error:
            bring(clinic, **{"amount": "120.50"} | members, patient_id=brought["patient"])
        assert (error.value.code, list(error.value.errors)) == ("already_exists", ["reference"])

    for members in ({"reference": None}, {"date": date(2019, 7, 1)}):
        bring(clinic, "1.00", brought["patient"], **members)
    bring(clinic, "1.00")

    assert account(clinic, brought["patient"])["account_balance"] == "122.50"


def test_an_archived_patient_keeps_a_debt_from_before(clinic: Clinic) -> None:
    patient = clinic.patient()["id"]
    clinic.admin.delete(f"/patients/{patient}")

    bring(clinic, "5.00", patient)
    with pytest.raises(ClinicError) as error:
        bring(clinic, "5.00", clinic.patient(deceased_on="2018-01-01", date_of_birth="1950-01-01")["id"])

    assert account(clinic, patient)["account_balance"] == "5.00"
    assert error.value.code == "patient_inactive"


def test_the_patient_gets_no_message_about_it(clinic: Clinic, outbox: Outbox) -> None:
    bring(clinic, "120.50", clinic.patient(email="zawadi@example.com")["id"])

    run_worker(clinic)

    assert (messages_of(clinic), outbox.sent) == ([], [])
