"""Payments: balances, overpayments, credit, and concurrent payments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event, select
from werkzeug.test import TestResponse

from enums import PaymentMethod, Role
from extensions import db
from models import AuditLog
from schemas.billing import BillingOut
from security.permissions import Actor
from services import clock
from services.billing import bills, payments
from tests.support.clinic import Clinic


def error_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def pay(clinic: Clinic, bill: dict[str, Any], amount: str, **members: Any) -> TestResponse:
    body = {"amount": amount, "method": "cash"} | members
    return clinic.receptionist.post(f"/billings/{bill['id']}/payments", body)


def get_bill(clinic: Clinic, bill: dict[str, Any]) -> dict[str, Any]:
    """Return the bill as the API shows it now."""
    row: dict[str, Any] = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    return row


def test_payments_reduce_the_balance_until_the_bill_is_paid(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    first = pay(clinic, bill, "40.00", reference="till 2")
    second = pay(clinic, bill, "60.00", method="mobile_money")

    assert first.status_code == 201
    assert first.headers["Location"] == f"/billings/{bill['id']}"
    assert (first.get_json()["status"], first.get_json()["balance"]) == ("partial", "60.00")
    row = second.get_json()
    assert (row["status"], row["is_paid"], row["amount_paid"], row["balance"]) == (
        "paid",
        True,
        "100.00",
        "0.00",
    )
    assert [(p["amount"], p["method"], p["reference"]) for p in row["payments"]] == [
        ("40.00", "cash", "till 2"),
        ("60.00", "mobile_money", None),
    ]
    assert row["payments"][0]["created_by"]["id"] == clinic.receptionist.user_id


def test_a_payment_above_the_balance_is_refused(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    answer = pay(clinic, bill, "100.01")

    assert error_of(answer) == (409, "overpayment")
    assert answer.get_json()["balance"] == "100.00"
    assert get_bill(clinic, bill)["payments"] == []


def test_an_overpayment_with_allow_credit_becomes_credit(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    row = pay(clinic, bill, "130.00", allow_credit=True).get_json()

    assert (row["amount_paid"], row["balance"], row["account_balance"]) == ("100.00", "0.00", "-30.00")


def test_credit_is_spent_only_by_a_payment_with_the_method_credit(clinic: Clinic) -> None:
    first = clinic.bill("100.00")
    pay(clinic, first, "130.00", allow_credit=True)
    second = clinic.bill("50.00", patient_id=first["patient_id"])

    assert (second["status"], second["account_balance"]) == ("unpaid", "20.00")
    too_much = pay(clinic, second, "30.01", method="credit")
    row = pay(clinic, second, "30.00", method="credit").get_json()

    assert error_of(too_much) == (409, "insufficient_credit")
    assert (row["amount_paid"], row["balance"], row["account_balance"]) == ("30.00", "20.00", "20.00")
    assert [(p["amount"], p["method"]) for p in row["payments"]] == [("30.00", "credit")]
    assert error_of(pay(clinic, second, "0.01", method="credit")) == (409, "insufficient_credit")
    assert error_of(pay(clinic, second, "20.01", method="credit", allow_credit=True)) == (409, "overpayment")


def test_the_credit_of_another_patient_cannot_be_spent(clinic: Clinic) -> None:
    pay(clinic, clinic.bill("10.00"), "50.00", allow_credit=True)
    other = clinic.bill("10.00")

    assert error_of(pay(clinic, other, "10.00", method="credit")) == (409, "insufficient_credit")


def test_received_at_can_be_in_the_past_but_not_in_the_future(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=100)
    answer = pay(clinic, bill, "10.00", received_at=past.isoformat())
    refused = pay(clinic, bill, "10.00", received_at=future)

    received = answer.get_json()["payments"][0]["received_at"]
    assert datetime.fromisoformat(received) == past
    assert refused.status_code == 422
    assert list(refused.get_json()["errors"]) == ["received_at"]


def test_a_payment_by_credit_has_its_date_too(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    pay(clinic, clinic.bill("10.00", patient_id=bill["patient_id"]), "50.00", allow_credit=True)
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=100)

    row = pay(clinic, bill, "40.00", method="credit", received_at=past.isoformat()).get_json()

    assert datetime.fromisoformat(row["payments"][0]["received_at"]) == past
    account = clinic.admin.get(f"/patients/{bill['patient_id']}/account").get_json()
    moved = [entry["occurred_at"] for entry in account["entries"] if entry["kind"] == "credit"]
    assert [datetime.fromisoformat(instant) for instant in moved] == [past, past]


def test_a_payment_is_received_at_most_366_days_ago(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    with clinic.inside():
        today = clock.today()
    oldest = today - timedelta(days=366)

    for day in (date(1900, 1, 1), oldest - timedelta(days=1)):
        refused = pay(clinic, bill, "10.00", received_at=day.isoformat())
        assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["received_at"])
    assert pay(clinic, bill, "10.00", received_at=oldest.isoformat()).status_code == 201


@pytest.mark.parametrize("amount", ["0", "0.00", "-5", "1.001", "NaN", "1e99", True, None])
def test_an_amount_that_is_not_positive_money_is_refused(clinic: Clinic, amount: Any) -> None:
    answer = pay(clinic, clinic.bill(), amount)

    assert answer.status_code == 422
    assert "amount" in answer.get_json()["errors"]


def test_of_16_concurrent_payments_of_40_a_bill_of_100_accepts_two(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    caller = clinic.receptionist
    body = {"amount": "40.00", "method": "cash"}

    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _n: caller.post(f"/billings/{bill['id']}/payments", body).status_code, range(16))
        )

    assert sorted(answers) == [201] * 2 + [409] * 14
    assert get_bill(clinic, bill)["balance"] == "20.00"


def test_concurrent_payments_of_several_bills_spend_credit_once(clinic: Clinic) -> None:
    first = clinic.bill("10.00")
    pay(clinic, first, "60.00", allow_credit=True)
    open_bills = [clinic.bill("50.00", patient_id=first["patient_id"]) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda bill: pay(clinic, bill, "50.00", method="credit").status_code, open_bills)
        )

    assert sorted(answers) == [201] + [409] * 7
    assert get_bill(clinic, first)["account_balance"] == "350.00"


def test_a_payment_changes_the_version_of_the_bill(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    etag = clinic.admin.get(f"/billings/{bill['id']}").headers["ETag"]

    answer = pay(clinic, bill, "10.00")
    stale = clinic.admin.patch(f"/billings/{bill['id']}", {"notes": "x"}, headers={"If-Match": etag})

    assert answer.headers["ETag"] != etag
    assert error_of(stale) == (412, "stale_version")


def test_a_payment_writes_one_audit_entry(clinic: Clinic) -> None:
    bill = clinic.bill("10.00")

    pay(clinic, bill, "5.00")

    with clinic.inside() as session:
        where = (AuditLog.user_id == clinic.receptionist.user_id, AuditLog.entity == "billing")
        entry = session.execute(select(AuditLog).where(*where)).scalar_one()
        assert (entry.action, entry.entity_id) == ("pay", bill["id"])
        assert entry.patient_ids == [bill["patient_id"]]


def test_a_payment_and_its_response_take_eight_statements(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", doctor_id=clinic.doctor.doctor_id)
    actor = Actor(clinic.receptionist.user_id, "Receptionist", Role.RECEPTIONIST)
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    with clinic.inside():
        event.listen(db.engine, "before_cursor_execute", record)
        row = bills.get(actor, bill["id"], lock=True)
        payments.pay(actor, row, amount=Decimal("40.00"), method=PaymentMethod.CASH)
        bills.add_computed_fields(actor, [row])
        BillingOut.model_validate(row)
        event.remove(db.engine, "before_cursor_execute", record)

    # locked patient and bill; sums; version and entry; payments, credit notes, claims and refunds
    assert len(statements) == 8, statements
