"""Claims to insurers: their status transitions and payments."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from enums import ClaimStatus, PaymentMethod
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Billing, Claim
from security.permissions import Actor
from services import clock
from services.billing import ledger, payments
from services.billing.bill_state import require_not_void, touch
from services.listing import paging
from services.listing.related_rows import patient_column, patient_filter
from services.listing.spec import Condition, ListQuery, ListSpec, Page
from services.rows import get_or_404

S = ClaimStatus
TRANSITIONS: dict[ClaimStatus, tuple[ClaimStatus, ...]] = {
    S.DRAFT: (S.SUBMITTED, S.WITHDRAWN),
    S.SUBMITTED: (S.APPROVED, S.PARTIALLY_APPROVED, S.DENIED, S.WITHDRAWN),
    S.APPROVED: (S.PAID, S.WITHDRAWN),
    S.PARTIALLY_APPROVED: (S.PAID, S.WITHDRAWN),
    S.DENIED: (S.RESUBMITTED, S.WITHDRAWN),
    S.RESUBMITTED: (S.APPROVED, S.PARTIALLY_APPROVED, S.DENIED, S.WITHDRAWN),
    S.PAID: (),
    S.WITHDRAWN: (),
}
AGREED = (S.APPROVED, S.PARTIALLY_APPROVED)
OPEN = (S.DRAFT, S.SUBMITTED, S.RESUBMITTED, *AGREED)  # the insurer may still decide or pay

LIST: ListSpec[Claim] = ListSpec(
    name="claims",
    model=Claim,
    area="claim",
    main_date="created_at",
    omit=frozenset({"version"}),
    computed={"patient_name": patient_column(Claim.patient_id)},
    filters={"patient_name": patient_filter(Claim.patient_id)},
)


def find(bill: Billing, actor: Actor, query: ListQuery) -> Page[Claim]:
    """Return one page of the claims of a bill."""
    query.conditions.append(Condition("billing_id", "eq", bill.id))
    return paging.page(actor, LIST, query)


def of_bill(bill: Billing, claim_id: int, *, lock: bool = False) -> Claim:
    """Return a claim of the bill, or raise 404. With `lock`, the caller has locked the bill."""
    claim = get_or_404(Claim, claim_id, lock=lock)
    if claim.billing is not bill:  # compared as an object: this keeps the loaded bill on the claim
        raise not_found("claim")
    return claim


def add_computed_fields(_actor: Actor, rows: Sequence[Claim]) -> None:
    """Set the allowed transitions of claims. A claim of a void bill has none."""
    for claim in rows:
        claim.allowed_transitions = [] if claim.billing.voided_at else _allowed_transitions(claim)


def _allowed_transitions(claim: Claim) -> list[str]:
    """Return the next statuses of a claim. A claim with a payment cannot be withdrawn."""
    return [
        str(status)
        for status in TRANSITIONS[claim.status]
        if not (status is S.WITHDRAWN and claim.paid_amount)
    ]


def require_none_open(bill: Billing) -> None:
    """Raise 409 `in_use` with the open claims of a bill."""
    open_claims = [
        {"id": claim.id, "insurer": claim.insurer, "status": str(claim.status)}
        for claim in bill.claims
        if claim.status in OPEN
    ]
    if open_claims:
        message = "Withdraw the open claims of this bill first. One with a payment can be set to paid."
        raise ClinicError("in_use", message, claims=open_claims)


def create(
    bill: Billing,
    *,
    insurer: str,
    policy_number: str,
    amount: Decimal,
    claim_number: str | None = None,
) -> Claim:
    """Create a draft claim.

    Raises 409 `read_only` for a void bill, and 422 for an amount above the bill's.
    """
    require_not_void(bill)
    if amount > ledger.of_bill(bill.id).amount:
        raise invalid("amount", "must be at most the bill's amount")
    claim = Claim(
        patient_id=bill.patient_id,
        insurer=insurer,
        policy_number=policy_number,
        amount=amount,
        claim_number=claim_number,
        status=S.DRAFT,
    )
    bill.claims.append(claim)
    touch(bill)
    db.session.flush()
    return claim


def update(
    actor: Actor,
    claim: Claim,
    *,
    status: ClaimStatus | None = None,
    approved_amount: Decimal | None = None,
    paid_amount: Decimal | None = None,
    reason: str | None = None,
    claim_number: str | None = None,
    allow_credit: bool = False,
) -> Claim:
    """Change the status of a claim, and post payments of the insurer. The claim and its bill are locked.

    `approved_amount` defaults to the claimed amount. `paid_amount` defaults to the approved amount if nothing
    was paid before. A higher `paid_amount` posts a payment of the difference. Errors:

    - 409 `invalid_transition`, with the allowed transitions.
    - 409 `conflict` above the claimed or approved amount.
    - 409 `overpayment` above the balance of the bill, without `allow_credit`.
    - 422 for a missing reason or amount, and for an amount that does not go with the new status.
    """
    if all(member is None for member in (status, approved_amount, paid_amount, reason, claim_number)):
        return claim
    bill = claim.billing
    require_not_void(bill)
    if claim_number is not None:
        claim.claim_number = claim_number
    if reason is not None:
        claim.reason = reason
    if status is not None:
        _change_status(claim, status, reason)
    if approved_amount is not None or status in AGREED:
        _require_status(claim, AGREED, "approved_amount", requested=status)
        _approve(claim, status, approved_amount)
    if status is S.PAID and paid_amount is None and not claim.paid_amount:
        paid_amount = claim.approved_amount
    if paid_amount is not None:
        _require_status(claim, (*AGREED, S.PAID), "paid_amount", requested=status)
        _pay(actor, bill, claim, paid_amount, allow_credit=allow_credit)
    touch(bill)
    db.session.flush()
    return claim


def _change_status(claim: Claim, status: ClaimStatus, reason: str | None) -> None:
    if status not in _allowed_transitions(claim):
        raise _invalid_transition(claim)
    if status is S.DENIED:
        if not reason:
            raise invalid("reason", "is required for a denial")
        claim.approved_amount = None
    if status in (S.SUBMITTED, S.RESUBMITTED):
        claim.submitted_at = clock.now()
    claim.status = status


def _require_status(
    claim: Claim, statuses: Sequence[ClaimStatus], field: str, *, requested: ClaimStatus | None
) -> None:
    """Raise an error if an amount does not go with the status.

    This is 422 for a status in the request, and 409 `invalid_transition` for the stored one.
    """
    if claim.status in statuses:
        return
    if requested is not None:
        raise invalid(field, f"does not go with the status {requested}; leave it out")
    raise _invalid_transition(claim)


def _invalid_transition(claim: Claim) -> ClinicError:
    allowed = _allowed_transitions(claim)
    targets = ", ".join(allowed)
    advice = f"It can become: {targets}." if allowed else "This status is final."
    return ClinicError(
        "invalid_transition", f"The status of this claim is {claim.status}. {advice}", allowed=allowed
    )


def _approve(claim: Claim, status: ClaimStatus | None, approved_amount: Decimal | None) -> None:
    if approved_amount is None:
        if status is S.PARTIALLY_APPROVED:
            raise invalid("approved_amount", "is required for a partial approval")
        approved_amount = claim.amount
    if approved_amount > claim.amount:
        raise _amount_conflict("approved_amount", "must be at most the claimed amount")
    if approved_amount < claim.paid_amount:
        raise _amount_conflict("approved_amount", "must be at least the paid amount")
    claim.approved_amount = approved_amount


def _pay(actor: Actor, bill: Billing, claim: Claim, paid_amount: Decimal, *, allow_credit: bool) -> None:
    """Post a payment of the insurer: the increase of the paid amount."""
    if paid_amount > (claim.approved_amount or ledger.ZERO):
        raise _amount_conflict("paid_amount", "must be at most the approved amount")
    increase = paid_amount - claim.paid_amount
    if increase < 0:
        raise invalid("paid_amount", "cannot be reduced; request a refund to pay money back")
    if increase:
        payments.pay(
            actor,
            bill,
            amount=increase,
            method=PaymentMethod.INSURANCE,
            reference=claim.claim_number,
            allow_credit=allow_credit,
            claim_id=claim.id,
        )
    claim.paid_amount = paid_amount


def _amount_conflict(field: str, message: str) -> ClinicError:
    return ClinicError("conflict", f"{field}: {message}.", errors={field: message})
