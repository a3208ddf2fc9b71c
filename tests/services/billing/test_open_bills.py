"""Open bills: a trigger keeps `settled_at`, so that reports do not sum settled bills."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import select, update

from commands.demo import CLERK
from models import BillingStanding
from services import clock
from services.billing import bills
from tests.support.clinic import Clinic


def is_settled(clinic: Clinic, bill: int) -> bool:
    with clinic.inside() as session:
        row = session.execute(select(BillingStanding).where(BillingStanding.billing_id == bill)).scalar_one()
        return row.settled_at is not None


def pay(clinic: Clinic, bill: int, amount: str) -> None:
    clinic.admin.make(f"/billings/{bill}/payments", amount=amount, method="cash")


def test_a_completely_paid_bill_is_settled(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")["id"]

    pay(clinic, bill, "60.00")
    after_first = is_settled(clinic, bill)
    pay(clinic, bill, "40.00")

    assert not after_first
    assert is_settled(clinic, bill)


def test_a_refund_reopens_a_bill_and_a_write_off_settles_it(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")["id"]
    pay(clinic, bill, "100.00")

    clinic.admin.make(f"/billings/{bill}/refunds", amount="30.00", reason="billed twice")
    reopened = not is_settled(clinic, bill)
    answer = clinic.admin.post(f"/billings/{bill}/write-off", {"amount": "30.00", "reason": "goodwill"})

    assert reopened
    assert answer.status_code < 300, answer.get_data(as_text=True)
    assert is_settled(clinic, bill)


def test_a_void_bill_is_settled(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")["id"]

    clinic.admin.post(f"/billings/{bill}/void", {"reason": "wrong patient"})

    assert is_settled(clinic, bill)


def test_bills_are_listed_by_status(clinic: Clinic) -> None:
    paid, partly, unpaid = (clinic.bill("100.00")["id"] for _ in range(3))
    pay(clinic, paid, "100.00")
    pay(clinic, partly, "1.00")

    ids_by_status = {
        status: [row["id"] for row in clinic.admin.get(f"/billings?status={status}").get_json()]
        for status in ("paid", "partial", "unpaid")
    }

    assert ids_by_status == {"paid": [paid], "partial": [partly], "unpaid": [unpaid]}


def test_a_report_of_a_past_year_shows_the_balances_of_that_time(clinic: Clinic) -> None:
    patient = clinic.patient()["id"]
    items = [{"description": "Consultation", "quantity": 1, "unit_price": Decimal("100.00")}]
    with clinic.inside() as session:
        billed_at = datetime(2020, 6, 1, tzinfo=UTC)
        bill = bills.create(CLERK, patient_id=patient, items=items, billed_at=billed_at).id
        session.commit()
    pay(clinic, bill, "100.00")

    reports = {
        year: clinic.admin.get(
            f"/analytics/revenue?start_date={year}-01-01&end_date={year}-12-31&group_by=year"
        )
        for year in (2019, 2020, clock.today().year)
    }

    outstanding = [answer.get_json()["totals"]["outstanding"] for answer in reports.values()]
    assert outstanding == ["0.00", "100.00", "0.00"]


def test_the_integrity_checks_find_a_wrong_settled_at(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")["id"]
    pay(clinic, bill, "100.00")
    with clinic.inside() as session:
        session.execute(update(BillingStanding).values(settled_at=None))

    result = clinic.app.test_cli_runner().invoke(args=["verify"])

    assert result.exit_code == 1
    assert "A bill is marked as settled exactly if it has no balance" in result.output
    assert str(bill) in result.output
