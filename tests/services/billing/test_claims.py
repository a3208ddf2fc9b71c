"""Claims: status transitions and insurance payments."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from models import AuditLog, LedgerEntry
from services.billing.claims import TRANSITIONS
from tests.support.clinic import Clinic

Row = dict[str, Any]


def error_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def create_claim(clinic: Clinic, bill: Row, amount: str = "80.00", **members: Any) -> Row:
    body = {"insurer": "Acme Health", "policy_number": "P-77", "amount": amount} | members
    return clinic.receptionist.make(f"/billings/{bill['id']}/claims", **body)


def patch_claim(clinic: Clinic, claim: Row, **members: Any) -> TestResponse:
    return clinic.receptionist.patch(f"/billings/{claim['billing_id']}/claims/{claim['id']}", members)


def advance(clinic: Clinic, claim: Row, *statuses: str) -> Row:
    """Send these status transitions with the members that they need, and return the claim."""
    required = {"denied": {"reason": "not covered"}, "partially_approved": {"approved_amount": "50.00"}}
    for status in statuses:
        answer = patch_claim(clinic, claim, status=status, **required.get(status, {}))
        assert answer.status_code == 200, answer.get_data(as_text=True)
        claim = answer.get_json()
    return claim


def get_bill(clinic: Clinic, bill: Row) -> Row:
    row: Row = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    return row


def test_a_new_claim_is_a_draft_and_is_part_of_its_bill(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    claim = create_claim(clinic, bill, claim_number="C-1")

    assert (claim["status"], claim["amount"], claim["paid_amount"]) == ("draft", "80.00", "0.00")
    assert claim["allowed_transitions"] == ["submitted", "withdrawn"]
    assert get_bill(clinic, bill)["claims"] == [claim]
    assert clinic.receptionist.get(f"/billings/{bill['id']}/claims").get_json() == [claim]
    assert clinic.receptionist.get(f"/billings/{bill['id']}/claims/{claim['id']}").get_json() == claim


def test_a_paid_claim_is_an_insurance_payment_on_the_bill(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    claim = advance(clinic, create_claim(clinic, bill, claim_number="C-1"), "submitted", "approved")

    paid = patch_claim(clinic, claim, status="paid").get_json()

    row = get_bill(clinic, bill)
    assert (claim["approved_amount"], paid["paid_amount"], paid["allowed_transitions"]) == (
        "80.00",
        "80.00",
        [],
    )
    assert (row["amount_paid"], row["balance"], row["status"]) == ("80.00", "20.00", "partial")
    payment = row["payments"][0]
    assert (payment["amount"], payment["method"], payment["reference"], payment["claim_id"]) == (
        "80.00",
        "insurance",
        "C-1",
        claim["id"],
    )


def test_a_denied_claim_can_be_resubmitted_with_the_same_number(clinic: Clinic) -> None:
    draft = create_claim(clinic, clinic.bill("100.00"), claim_number="C-1")
    claim = advance(clinic, draft, "submitted", "denied")

    again = advance(clinic, claim, "resubmitted", "partially_approved", "paid")

    assert claim["reason"] == "not covered"
    assert (again["claim_number"], again["approved_amount"], again["paid_amount"]) == (
        "C-1",
        "50.00",
        "50.00",
    )


PATHS = {
    "draft": (),
    "submitted": ("submitted",),
    "approved": ("submitted", "approved"),
    "partially_approved": ("submitted", "partially_approved"),
    "denied": ("submitted", "denied"),
    "resubmitted": ("submitted", "denied", "resubmitted"),
    "paid": ("submitted", "approved", "paid"),
    "withdrawn": ("submitted", "withdrawn"),
}


@pytest.mark.parametrize("status", list(PATHS))
def test_an_invalid_transition_is_refused_with_the_allowed_ones(clinic: Clinic, status: str) -> None:
    claim = advance(clinic, create_claim(clinic, clinic.bill("100.00")), *PATHS[status])
    allowed = [target for state, targets in TRANSITIONS.items() if state == status for target in targets]

    for other in (state for state in TRANSITIONS if state not in (*allowed, status)):
        answer = patch_claim(clinic, claim, status=other, reason="x", approved_amount="10.00")
        assert error_of(answer) == (409, "invalid_transition")
        assert answer.get_json()["allowed"] == allowed
    assert claim["allowed_transitions"] == allowed


def test_amounts_above_the_claimed_or_the_approved_amount_are_refused(
    clinic: Clinic,
) -> None:
    bill = clinic.bill("100.00")
    claim = advance(clinic, create_claim(clinic, bill), "submitted")

    above = patch_claim(clinic, claim, status="approved", approved_amount="80.01")
    claim = patch_claim(clinic, claim, status="partially_approved", approved_amount="60.00").get_json()
    overpaid = patch_claim(clinic, claim, status="paid", paid_amount="60.01")

    assert error_of(above) == (409, "conflict")
    assert list(above.get_json()["errors"]) == ["approved_amount"]
    assert error_of(overpaid) == (409, "conflict")
    assert get_bill(clinic, bill)["payments"] == []


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        (("submitted",), "denied", "approved_amount"),
        (("submitted",), "denied", "paid_amount"),
        (("submitted",), "withdrawn", "paid_amount"),
        (("submitted", "approved"), "paid", "approved_amount"),
    ],
)
def test_an_amount_that_contradicts_the_new_status_is_422(
    clinic: Clinic, path: tuple[str, ...], status: str, field: str
) -> None:
    claim = advance(clinic, create_claim(clinic, clinic.bill("100.00")), *path)

    answer = patch_claim(clinic, claim, status=status, reason="x", **{field: "30.00"})

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])
    assert get_bill(clinic, {"id": claim["billing_id"]})["claims"][0]["status"] == path[-1]


def test_an_insurer_can_pay_in_parts(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    claim = advance(clinic, create_claim(clinic, bill), "submitted", "approved")

    first = patch_claim(clinic, claim, paid_amount="30.00").get_json()
    lower = patch_claim(clinic, claim, paid_amount="29.99")
    last = patch_claim(clinic, claim, status="paid", paid_amount="80.00").get_json()

    assert (first["status"], last["status"], last["paid_amount"]) == ("approved", "paid", "80.00")
    assert lower.status_code == 422
    assert [payment["amount"] for payment in get_bill(clinic, bill)["payments"]] == ["30.00", "50.00"]


def test_an_insurer_pays_above_the_balance_only_with_allow_credit(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="50.00")
    claim = advance(clinic, create_claim(clinic, bill), "submitted", "approved")

    refused = patch_claim(clinic, claim, status="paid")
    paid = patch_claim(clinic, claim, status="paid", allow_credit=True)

    assert error_of(refused) == (409, "overpayment")
    assert paid.get_json()["paid_amount"] == "80.00"
    row = get_bill(clinic, bill)
    assert (row["balance"], row["account_balance"]) == ("0.00", "-30.00")
    with clinic.inside() as session:
        entries = session.execute(select(LedgerEntry.amount).where(LedgerEntry.claim_id == claim["id"]))
        assert sum(entries.scalars()) == -80


def test_a_denial_needs_a_reason_and_a_partial_approval_needs_an_amount(clinic: Clinic) -> None:
    claim = advance(clinic, create_claim(clinic, clinic.bill("100.00")), "submitted")

    denied = patch_claim(clinic, claim, status="denied")
    partial = patch_claim(clinic, claim, status="partially_approved")

    assert list(denied.get_json()["errors"]) == ["reason"]
    assert list(partial.get_json()["errors"]) == ["approved_amount"]


def test_amounts_are_refused_before_the_approval(clinic: Clinic) -> None:
    claim = advance(clinic, create_claim(clinic, clinic.bill("100.00")), "submitted")

    assert error_of(patch_claim(clinic, claim, paid_amount="10.00")) == (409, "invalid_transition")
    assert error_of(patch_claim(clinic, claim, approved_amount="10.00")) == (409, "invalid_transition")


def test_a_claim_needs_insurer_and_policy_and_is_at_most_the_bill(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    url = f"/billings/{bill['id']}/claims"

    above = clinic.admin.post(url, {"insurer": "A", "policy_number": "1", "amount": "100.01"})
    incomplete = clinic.admin.post(url, {})

    assert list(above.get_json()["errors"]) == ["amount"]
    assert set(incomplete.get_json()["errors"]) == {"insurer", "policy_number", "amount"}


def test_a_single_cent_can_be_claimed(clinic: Clinic) -> None:
    bill = clinic.bill("0.01")

    advance(clinic, create_claim(clinic, bill, "0.01"), "submitted", "approved", "paid")

    assert get_bill(clinic, bill)["status"] == "paid"


def test_a_claim_is_not_found_under_another_bill_or_by_another_doctor(clinic: Clinic) -> None:
    claim, other = create_claim(clinic, clinic.bill("100.00")), clinic.bill("100.00")

    answers = [
        clinic.admin.get(f"/billings/{other['id']}/claims/{claim['id']}"),
        clinic.admin.patch(f"/billings/{other['id']}/claims/{claim['id']}", {"status": "submitted"}),
        clinic.doctor.get(f"/billings/{claim['billing_id']}/claims"),
        clinic.doctor.get(f"/billings/{claim['billing_id']}/claims/{claim['id']}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 4


def test_a_claim_of_a_void_bill_cannot_change(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    claim = advance(clinic, create_claim(clinic, bill), "submitted", "denied")
    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "x"})

    assert error_of(patch_claim(clinic, claim, status="resubmitted")) == (409, "read_only")
    assert get_bill(clinic, bill)["claims"][0]["allowed_transitions"] == []


@pytest.mark.parametrize("status", ["draft", "submitted", "approved", "partially_approved", "resubmitted"])
def test_a_bill_with_an_open_claim_cannot_be_voided(clinic: Clinic, status: str) -> None:
    bill = clinic.bill("100.00")
    claim = advance(clinic, create_claim(clinic, bill), *PATHS[status])
    url = f"/billings/{bill['id']}/void"

    refused = clinic.admin.post(url, {"reason": "mistake"})
    advance(clinic, claim, "withdrawn")
    void = clinic.admin.post(url, {"reason": "mistake"})

    assert error_of(refused) == (409, "in_use")
    assert refused.get_json()["claims"] == [{"id": claim["id"], "insurer": "Acme Health", "status": status}]
    assert (void.status_code, void.get_json()["claims"][0]["status"]) == (200, "withdrawn")


def test_a_claim_with_a_payment_cannot_be_withdrawn(clinic: Clinic) -> None:
    claim = advance(clinic, create_claim(clinic, clinic.bill("100.00")), "submitted", "approved")
    claim = patch_claim(clinic, claim, paid_amount="30.00").get_json()

    refused = patch_claim(clinic, claim, status="withdrawn")
    closed = patch_claim(clinic, claim, status="paid", paid_amount="30.00")

    assert claim["allowed_transitions"] == ["paid"]
    assert error_of(refused) == (409, "invalid_transition")
    assert (closed.status_code, closed.get_json()["paid_amount"]) == (200, "30.00")


def test_concurrent_payments_of_a_claim_post_one_payment(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    claim = advance(clinic, create_claim(clinic, bill, "40.00"), "submitted", "approved")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _n: patch_claim(clinic, claim, status="paid"), range(8)))

    assert get_bill(clinic, bill)["amount_paid"] == "40.00"


def test_a_claim_has_a_version_of_its_own(clinic: Clinic) -> None:
    claim = create_claim(clinic, clinic.bill("100.00"))
    url = f"/billings/{claim['billing_id']}/claims/{claim['id']}"
    etag = clinic.admin.get(url).headers["ETag"]

    done = clinic.admin.patch(url, {"status": "submitted"}, headers={"If-Match": etag})
    stale = clinic.admin.patch(url, {"claim_number": "C-2"}, headers={"If-Match": etag})

    assert done.status_code == 200
    assert error_of(stale) == (412, "stale_version")


def test_a_transition_writes_one_audit_entry_for_the_claim(clinic: Clinic) -> None:
    claim = create_claim(clinic, clinic.bill("100.00"))

    patch_claim(clinic, claim, status="submitted")

    with clinic.inside() as session:
        where = (AuditLog.entity == "claim", AuditLog.action == "update")
        entry = session.execute(select(AuditLog).where(*where)).scalar_one()
        assert (entry.entity_id, entry.patient_ids) == (claim["id"], [claim["patient_id"]])
        assert entry.fields == ["status", "submitted_at"]
