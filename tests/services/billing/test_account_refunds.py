"""Credit of a patient: the account, payments by credit, and refunds of credit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from werkzeug.test import TestResponse

from enums import Role
from models import AuditLog, User
from tests.support.clinic import Caller, Clinic
from tests.support.concurrency import run_concurrently


def error_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def patient_with_credit(clinic: Clinic, credit: str) -> int:
    """Return a patient whose bill of 10.00 was overpaid by this amount."""
    bill = clinic.bill("10.00")
    paid = {"amount": str(10 + int(credit)), "method": "cash", "allow_credit": True}
    clinic.admin.make(f"/billings/{bill['id']}/payments", **paid)
    return int(bill["patient_id"])


def account_of(clinic: Clinic, patient_id: int) -> dict[str, Any]:
    account: dict[str, Any] = clinic.admin.get(f"/patients/{patient_id}/account").get_json()
    return account


def request_refund(caller: Caller, patient_id: int, amount: str, method: str = "cash") -> TestResponse:
    body = {"amount": amount, "method": method, "reason": "moved away"}
    return caller.post(f"/patients/{patient_id}/account/refunds", body)


def decide(caller: Caller, refund: dict[str, Any], status: str) -> TestResponse:
    url = f"/patients/{refund['patient_id']}/account/refunds/{refund['id']}"
    return caller.patch(url, {"status": status})


def test_the_account_shows_credit_apart_from_the_balance(clinic: Clinic) -> None:
    patient_id = patient_with_credit(clinic, "30")
    clinic.bill("100.00", patient_id=patient_id)

    account = account_of(clinic, patient_id)

    assert (account["account_balance"], account["credit"]) == ("70.00", "30.00")
    assert (account["owed_to_insurers"], account["refunds"], account["currency"]) == ("0.00", [], "USD")


def test_an_admin_refunds_credit_immediately(clinic: Clinic) -> None:
    patient_id = patient_with_credit(clinic, "30")

    answer = request_refund(clinic.admin, patient_id, "20.00", "mobile_money")
    above = request_refund(clinic.admin, patient_id, "10.01")

    refund = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/patients/{patient_id}/account")
    assert (refund["status"], refund["billing_id"], refund["method"]) == ("approved", None, "mobile_money")
    assert error_of(above) == (409, "excessive_refund")
    assert above.get_json()["refundable"] == "10.00"
    account = account_of(clinic, patient_id)
    assert (account["credit"], account["account_balance"]) == ("10.00", "-10.00")
    assert [row["id"] for row in account["refunds"]] == [refund["id"]]
    entry = account["entries"][0]
    assert (entry["kind"], entry["amount"], entry["method"]) == ("refund", "20.00", "mobile_money")
    totals = clinic.admin.get("/analytics/revenue").get_json()["totals"]
    assert (totals["collected"], totals["refunded"], totals["net"]) == ("40.00", "20.00", "20.00")


def test_a_receptionist_requests_and_another_user_decides(clinic: Clinic) -> None:
    patient_id = patient_with_credit(clinic, "30")
    refund = request_refund(clinic.receptionist, patient_id, "30.00").get_json()
    waiting = clinic.admin.get("/patients?refund_status=requested").get_json()
    with clinic.inside() as session:
        session.get(User, clinic.receptionist.user_id).role = Role.ADMIN
    own = decide(clinic.receptionist, refund, "approved")
    with clinic.inside() as session:
        session.get(User, clinic.receptionist.user_id).role = Role.RECEPTIONIST

    assert refund["status"] == "requested"
    assert [row["id"] for row in waiting] == [patient_id]
    assert account_of(clinic, patient_id)["credit"] == "30.00"
    assert error_of(request_refund(clinic.admin, patient_id, "0.01")) == (409, "excessive_refund")
    assert error_of(own) == (403, "forbidden")
    assert error_of(decide(clinic.sign_in("receptionist"), refund, "approved")) == (403, "forbidden")
    approved = decide(clinic.admin, refund, "approved")
    again = decide(clinic.admin, refund, "rejected")
    assert (approved.status_code, approved.get_json()["decided_by_id"]) == (200, clinic.admin.user_id)
    assert error_of(again) == (409, "invalid_transition")
    assert account_of(clinic, patient_id)["credit"] == "0.00"
    assert clinic.admin.get("/patients?refund_status=requested").get_json() == []
    with clinic.inside() as session:
        entries = session.execute(
            select(AuditLog.action, AuditLog.patient_ids).where(
                AuditLog.entity == "patient", AuditLog.action.contains("refund")
            )
        ).all()
    assert [tuple(entry) for entry in entries] == [("request_refund", [patient_id]), ("refund", [patient_id])]


def test_credit_that_was_spent_since_the_request_is_not_paid_out(clinic: Clinic) -> None:
    patient_id = patient_with_credit(clinic, "30")
    refund = request_refund(clinic.receptionist, patient_id, "30.00").get_json()
    bill = clinic.bill("50.00", patient_id=patient_id)
    clinic.admin.make(f"/billings/{bill['id']}/payments", amount="0.01", method="credit")

    refused = decide(clinic.admin, refund, "approved")
    rejected = decide(clinic.admin, refund, "rejected")

    assert error_of(refused) == (409, "excessive_refund")
    assert rejected.get_json()["status"] == "rejected"
    assert account_of(clinic, patient_id)["credit"] == "29.99"


def test_invalid_refunds_of_credit_are_refused(clinic: Clinic) -> None:
    patient_id, other = patient_with_credit(clinic, "30"), patient_with_credit(clinic, "30")
    refund = request_refund(clinic.receptionist, patient_id, "1.00").get_json()
    url = f"/patients/{patient_id}/account/refunds"

    for method in ("credit", "insurance", "gold"):
        answer = request_refund(clinic.admin, patient_id, "1.00", method)
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["method"])
    incomplete = clinic.admin.post(url, {})
    assert set(incomplete.get_json()["errors"]) == {"amount", "method", "reason"}
    assert request_refund(clinic.admin, 999, "1.00").status_code == 404
    assert decide(clinic.admin, refund | {"patient_id": other}, "approved").status_code == 404
    for role in ("doctor", "technician"):
        assert request_refund(clinic.caller(role), patient_id, "1.00").status_code == 403
        assert clinic.caller(role).get("/patients?refund_status=requested").status_code == 403


def test_concurrent_refunds_and_payments_spend_credit_once(clinic: Clinic) -> None:
    patient_id = patient_with_credit(clinic, "50")
    bill = clinic.bill("1000.00", patient_id=patient_id)
    payment = {"amount": "20.00", "method": "credit"}
    actions = [
        lambda: request_refund(clinic.admin, patient_id, "20.00").status_code,
        lambda: clinic.receptionist.post(f"/billings/{bill['id']}/payments", payment).status_code,
    ]

    codes = run_concurrently(actions * 4)

    assert sorted(codes) == [201] * 2 + [409] * 6
    assert account_of(clinic, patient_id)["credit"] == "10.00"
