"""Refunds: requests, decisions, and the limits of the refundable amount."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from sqlalchemy import select, update
from werkzeug.test import TestResponse

from enums import LedgerKind, Role
from models import AuditLog, LedgerEntry, Refund, User
from tests.support.clinic import Caller, Clinic


def error_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def create_paid_bill(clinic: Clinic, *payments: str) -> dict[str, Any]:
    """Return a new bill of 100.00 with these payments in cash."""
    bill = clinic.bill("100.00")
    for amount in payments:
        pay(clinic, bill, amount)
    row: dict[str, Any] = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    return row


def pay(clinic: Clinic, bill: dict[str, Any], amount: str, method: str = "cash") -> None:
    body = {"amount": amount, "method": method, "allow_credit": method != "credit"}
    answer = clinic.receptionist.post(f"/billings/{bill['id']}/payments", body)
    assert answer.status_code == 201


def request_refund(caller: Caller, bill: dict[str, Any], amount: str, **members: Any) -> TestResponse:
    body = {"amount": amount, "reason": "came too early"} | members
    return caller.post(f"/billings/{bill['id']}/refunds", body)


def decide(caller: Caller, bill: dict[str, Any], refund_id: int, status: str) -> TestResponse:
    return caller.patch(f"/billings/{bill['id']}/refunds/{refund_id}", {"status": status})


def requested_refund_id(clinic: Clinic, bill: dict[str, Any], amount: str, **members: Any) -> int:
    """Request a refund as the receptionist and return its id."""
    answer = request_refund(clinic.receptionist, bill, amount, **members)
    assert answer.status_code == 201, answer.get_data(as_text=True)
    return int(answer.get_json()["refunds"][-1]["id"])


def amount_paid(clinic: Clinic, bill: dict[str, Any]) -> str:
    return str(clinic.admin.get(f"/billings/{bill['id']}").get_json()["amount_paid"])


def test_a_refund_by_a_receptionist_is_a_request_without_a_posting(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")

    answer = request_refund(clinic.receptionist, bill, "20.00")

    row = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/billings/{bill['id']}")
    assert (row["refunds"][0]["status"], row["amount_paid"]) == ("requested", "60.00")
    assert row["refunds"][0]["requested_by_id"] == clinic.receptionist.user_id


def test_an_approved_refund_raises_the_balance(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "100.00")
    refund_id = requested_refund_id(clinic, bill, "30.00")

    refund = decide(clinic.admin, bill, refund_id, "approved").get_json()

    assert (refund["status"], refund["decided_by_id"]) == ("approved", clinic.admin.user_id)
    row = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    assert (row["amount_paid"], row["balance"], row["status"]) == ("70.00", "30.00", "partial")
    assert row["account_balance"] == "30.00"


def test_a_rejected_refund_posts_nothing_and_its_amount_can_be_requested_again(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")
    refund_id = requested_refund_id(clinic, bill, "60.00")

    refund = decide(clinic.admin, bill, refund_id, "rejected").get_json()

    assert refund["status"] == "rejected"
    assert amount_paid(clinic, bill) == "60.00"
    assert request_refund(clinic.receptionist, bill, "60.00").status_code == 201


def test_a_refund_by_an_admin_is_paid_out_immediately(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")

    row = request_refund(clinic.admin, bill, "60.00").get_json()

    assert (row["refunds"][0]["status"], row["amount_paid"], row["status"]) == ("approved", "0.00", "unpaid")


def test_the_requester_cannot_decide_a_refund(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")
    refund_id = requested_refund_id(clinic, bill, "20.00")
    with clinic.inside() as session:
        session.get(User, clinic.receptionist.user_id).role = Role.ADMIN

    answer = decide(clinic.receptionist, bill, refund_id, "approved")

    assert error_of(answer) == (403, "forbidden")
    assert amount_paid(clinic, bill) == "60.00"


def test_a_receptionist_cannot_decide_a_refund(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")
    refund_id = requested_refund_id(clinic, bill, "20.00")

    answer = decide(clinic.sign_in("receptionist"), bill, refund_id, "approved")

    assert error_of(answer) == (403, "forbidden")


def test_a_decision_is_final_and_a_repeated_one_posts_nothing(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")
    refund_id = requested_refund_id(clinic, bill, "20.00")
    decide(clinic.admin, bill, refund_id, "approved")

    again = decide(clinic.admin, bill, refund_id, "approved")
    undone = decide(clinic.admin, bill, refund_id, "rejected")

    assert again.status_code == 200
    assert error_of(undone) == (409, "invalid_transition")
    assert undone.get_json()["allowed"] == []
    assert decide(clinic.admin, bill, refund_id, "requested").status_code == 422
    assert amount_paid(clinic, bill) == "40.00"


def test_open_requests_reduce_the_refundable_amount(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")
    requested_refund_id(clinic, bill, "40.00")

    answer = request_refund(clinic.admin, bill, "20.01")

    assert error_of(answer) == (409, "excessive_refund")
    assert answer.get_json()["refundable"] == "20.00"
    assert request_refund(clinic.admin, bill, "20.00").status_code == 201


def test_refunds_of_one_payment_are_at_most_its_amount(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "30.00", "50.00")
    first, second = (payment["id"] for payment in bill["payments"])
    requested_refund_id(clinic, bill, "20.00", payment_id=first)

    beyond = request_refund(clinic.admin, bill, "10.01", payment_id=first)
    rest = request_refund(clinic.admin, bill, "10.00", payment_id=first)
    other = request_refund(clinic.admin, bill, "50.00", payment_id=second)

    assert error_of(beyond) == (409, "excessive_refund")
    assert (rest.status_code, other.status_code) == (201, 201)


def test_only_a_payment_of_the_same_bill_can_be_refunded(clinic: Clinic) -> None:
    bill, other = create_paid_bill(clinic, "30.00"), create_paid_bill(clinic, "30.00")
    refund_id = requested_refund_id(clinic, bill, "10.00", payment_id=bill["payments"][0]["id"])
    decide(clinic.admin, bill, refund_id, "approved")
    clinic.admin.post(f"/billings/{bill['id']}/write-off", {"amount": "5.00", "reason": "x"})
    with clinic.inside() as session:
        kinds = (LedgerKind.CHARGE, LedgerKind.REFUND, LedgerKind.WRITE_OFF)
        entries = select(LedgerEntry.id).where(
            LedgerEntry.billing_id == bill["id"], LedgerEntry.kind.in_(kinds)
        )
        others = list(session.execute(entries).scalars())
    assert len(others) == 3

    for payment_id in (other["payments"][0]["id"], *others, 999):
        answer = request_refund(clinic.admin, bill, "1.00", payment_id=payment_id)
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["payment_id"])


def test_a_refund_has_the_method_of_the_payment_or_the_given_one(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "30.00")
    pay(clinic, bill, "50.00", "card")
    first = bill["payments"][0]["id"]

    request_refund(clinic.admin, bill, "10.00", payment_id=first)
    request_refund(clinic.admin, bill, "10.00", method="card")

    with clinic.inside() as session:
        refunds = session.execute(
            select(LedgerEntry.method)
            .where(LedgerEntry.billing_id == bill["id"], LedgerEntry.kind == LedgerKind.REFUND)
            .order_by(LedgerEntry.id)
        )
        assert list(refunds.scalars()) == ["cash", "card"]


def test_a_refund_by_a_method_is_at_most_the_payments_by_it(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "30.00")
    pay(clinic, bill, "50.00", "card")
    first = bill["payments"][0]["id"]

    unclear = request_refund(clinic.admin, bill, "10.00")
    contradictory = request_refund(clinic.admin, bill, "10.00", payment_id=first, method="card")
    above = request_refund(clinic.admin, bill, "30.01", method="cash")
    unused = request_refund(clinic.admin, bill, "1.00", method="mobile_money")
    requested = request_refund(clinic.receptionist, bill, "20.00", method="cash")
    beside = request_refund(clinic.admin, bill, "10.01", method="cash")
    card = request_refund(clinic.admin, bill, "50.00", method="card")
    rest = request_refund(clinic.admin, bill, "10.00")  # only cash is left
    decided = decide(clinic.admin, bill, requested.get_json()["refunds"][0]["id"], "approved")

    for answer in (unclear, contradictory):
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["method"])
    assert [error_of(answer) for answer in (above, unused, beside)] == [(409, "excessive_refund")] * 3
    assert beside.get_json()["refundable"] == "10.00"
    assert [answer.status_code for answer in (requested, card, rest, decided)] == [201, 201, 201, 200]
    assert decided.get_json()["method"] == "cash"
    assert amount_paid(clinic, bill) == "0.00"


def test_a_refund_without_method_from_an_older_version_gets_one_with_the_approval(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "30.00")
    refund_id = requested_refund_id(clinic, bill, "10.00")
    with clinic.inside() as session:
        session.execute(update(Refund).values(method=None))

    approved = decide(clinic.admin, bill, refund_id, "approved").get_json()

    assert (approved["status"], approved["method"]) == ("approved", "cash")


def test_an_approval_checks_the_method_again(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "30.00")
    pay(clinic, bill, "50.00", "card")
    refund_id = requested_refund_id(clinic, bill, "30.00", method="cash")
    with clinic.inside() as session:  # as if another refund had been paid out before
        session.execute(update(Refund).values(amount=Decimal("30.01")))

    assert error_of(decide(clinic.admin, bill, refund_id, "approved")) == (409, "excessive_refund")


def test_concurrent_refunds_by_a_method_are_at_most_its_payments(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "30.00")
    pay(clinic, bill, "60.00", "card")

    with ThreadPoolExecutor(8) as pool:
        codes = pool.map(
            lambda _n: request_refund(clinic.admin, bill, "10.00", method="cash").status_code, range(8)
        )

    assert sorted(codes) == [201] * 3 + [409] * 5


def test_a_refund_of_spent_credit_returns_it_to_the_credit(clinic: Clinic) -> None:
    first = create_paid_bill(clinic, "150.00")
    second = clinic.bill("50.00", patient_id=first["patient_id"])
    pay(clinic, second, "50.00", "credit")

    row = request_refund(clinic.admin, second, "50.00").get_json()

    assert (row["refunds"][0]["method"], row["balance"], row["account_balance"]) == (
        "credit",
        "50.00",
        "0.00",
    )
    account = clinic.admin.get(f"/patients/{first['patient_id']}/account").get_json()
    assert account["credit"] == "50.00"
    totals = clinic.admin.get("/analytics/revenue").get_json()["totals"]
    assert totals["refunded"] == "0.00"  # no money left the clinic


def test_a_single_cent_can_be_refunded(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")

    row = request_refund(clinic.admin, bill, "0.01").get_json()

    assert row["amount_paid"] == "59.99"


def test_a_refund_needs_a_reason_and_is_found_only_under_its_bill(clinic: Clinic) -> None:
    bill, other = create_paid_bill(clinic, "60.00"), create_paid_bill(clinic, "60.00")
    refund_id = requested_refund_id(clinic, bill, "10.00")

    assert request_refund(clinic.receptionist, bill, "1.00", reason=" ").status_code == 422
    assert decide(clinic.admin, other, refund_id, "approved").status_code == 404
    assert decide(clinic.admin, bill, 999, "approved").status_code == 404


def test_bills_can_be_filtered_by_refund_status(clinic: Clinic) -> None:
    waiting, settled = create_paid_bill(clinic, "60.00"), create_paid_bill(clinic, "60.00")
    requested_refund_id(clinic, waiting, "10.00")
    decide(clinic.admin, settled, requested_refund_id(clinic, settled, "10.00"), "rejected")

    listed = clinic.admin.get("/billings?refund_status=requested").get_json()

    assert [row["id"] for row in listed] == [waiting["id"]]


def test_a_bill_with_an_open_refund_request_cannot_be_voided(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")
    refund_id = requested_refund_id(clinic, bill, "10.00")
    void_request = (f"/billings/{bill['id']}/void", {"reason": "mistake"})

    refused = clinic.admin.post(*void_request)
    decide(clinic.admin, bill, refund_id, "approved")
    row = clinic.admin.post(*void_request).get_json()

    assert error_of(refused) == (409, "in_use")
    assert (row["status"], row["balance"], row["account_balance"]) == ("void", "0.00", "-50.00")


def test_concurrent_refunds_are_at_most_the_paid_amount(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "100.00")
    callers = [clinic.receptionist, clinic.admin] * 4

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(lambda caller: request_refund(caller, bill, "40.00").status_code, callers))

    assert codes == [201] * 2 + [409] * 6


def test_concurrent_decisions_pay_out_a_refund_at_most_once(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "100.00")
    refund_id = requested_refund_id(clinic, bill, "40.00")
    statuses = ["approved", "rejected"] * 4

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda status: decide(clinic.admin, bill, refund_id, status), statuses))

    row = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    expected = {"approved": "60.00", "rejected": "100.00"}
    assert row["amount_paid"] == expected[row["refunds"][0]["status"]]


def test_the_audit_log_names_the_request_and_the_decision(clinic: Clinic) -> None:
    bill = create_paid_bill(clinic, "60.00")
    decide(clinic.admin, bill, requested_refund_id(clinic, bill, "10.00"), "approved")

    with clinic.inside() as session:
        entries = session.execute(
            select(AuditLog.action, AuditLog.user_id)
            .where(AuditLog.entity_id == bill["id"], AuditLog.action.contains("refund"))
            .order_by(AuditLog.id)
        ).all()
    assert [tuple(entry) for entry in entries] == [
        ("request_refund", clinic.receptionist.user_id),
        ("refund", clinic.admin.user_id),
    ]
