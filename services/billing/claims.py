"""Claims: what an insurer is asked to pay of a bill, the steps it takes, and the money that comes of it."""

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
from services.listing import paging
from services.listing.paging import (
    Condition,
    ListQuery,
    ListSpec,
    Page,
)
from services.rows import get_or_404

S = ClaimStatus
TRANSITIONS: dict[ClaimStatus, tuple[ClaimStatus, ...]] = {
    S.DRAFT: (S.SUBMITTED,),
    S.SUBMITTED: (S.APPROVED, S.PARTIALLY_APPROVED, S.DENIED),
    S.APPROVED: (S.PAID,),
    S.PARTIALLY_APPROVED: (S.PAID,),
    S.DENIED: (S.RESUBMITTED,),
    S.RESUBMITTED: (S.APPROVED, S.PARTIALLY_APPROVED, S.DENIED),
    S.PAID: (),
}
AGREED = (S.APPROVED, S.PARTIALLY_APPROVED)

LIST: ListSpec[Claim] = ListSpec(
    name="claims", model=Claim, area="claim", main_date="created_at", omit=frozenset({"version"})
)


def find(bill: Billing, actor: Actor, query: ListQuery) -> Page[Claim]:
    """One page of a bill's claims."""
    query.conditions.append(Condition("billing_id", "eq", bill.id))
    return paging.page(actor, LIST, query)


def of_bill(bill: Billing, claim_id: int, *, lock: bool = False) -> Claim:
    """A claim of the bill, or 404; the bill is locked where `lock` is asked for."""
    claim = get_or_404(Claim, claim_id, lock=lock)
    if claim.billing_id != bill.id:
        raise not_found("claim")
    return claim


def add_computed_fields(actor: Actor, rows: Sequence[Claim]) -> None:
    """The steps that each claim can take next; none on a void bill."""
    for claim in rows:
        claim.allowed_transitions = [] if claim.billing.voided_at else list(TRANSITIONS[claim.status])


def create(
    actor: Actor,
    bill: Billing,
    *,
    insurer: str,
    policy_number: str,
    amount: Decimal,
    claim_number: str | None = None,
) -> Claim:
    """A draft of a claim. Raises 409 `read_only` on a void bill, 422 above the bill's amount."""
    payments.require_open(bill)
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
    payments.touch(bill)
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
    """Move a claim on, and post what the insurer paid; `claim` and its bill are locked.

    Approving without `approved_amount` approves what was claimed, paying without `paid_amount` pays what
    was approved. Raises 409 `invalid_transition` naming the allowed steps; 409 `conflict` above what was
    claimed or approved; 409 `overpayment` above the bill's balance unless `allow_credit`; 422 where a
    reason or an amount is missing.
    """
    bill = claim.billing
    payments.require_open(bill)
    if claim_number is not None:
        claim.claim_number = claim_number
    if reason is not None:
        claim.reason = reason
    if status is not None:
        _step(claim, status, reason)
    if approved_amount is not None or status in AGREED:
        _approve(claim, status, approved_amount)
    if status is S.PAID and paid_amount is None:
        paid_amount = claim.approved_amount
    if paid_amount is not None:
        _pay(actor, bill, claim, paid_amount, allow_credit=allow_credit)
    payments.touch(bill)
    db.session.flush()
    return claim


def _step(claim: Claim, status: ClaimStatus, reason: str | None) -> None:
    allowed = TRANSITIONS[claim.status]
    if status not in allowed:
        raise _refused(claim)
    if status is S.DENIED:
        if not reason:
            raise invalid("reason", "is required for a denial")
        claim.approved_amount = None
    if status in (S.SUBMITTED, S.RESUBMITTED):
        claim.submitted_at = clock.now()
    claim.status = status


def _refused(claim: Claim) -> ClinicError:
    allowed = list(TRANSITIONS[claim.status])
    shown = ", ".join(allowed) or "nothing: it is final"
    return ClinicError(
        "invalid_transition", f"A claim that is {claim.status} can become {shown}.", allowed=allowed
    )


def _approve(claim: Claim, status: ClaimStatus | None, approved_amount: Decimal | None) -> None:
    if claim.status not in AGREED:
        raise _refused(claim)
    if approved_amount is None:
        if status is S.PARTIALLY_APPROVED:
            raise invalid("approved_amount", "is required: how much of it?")
        approved_amount = claim.amount
    if approved_amount > claim.amount:
        raise _beyond("approved_amount", "Not more than was claimed can be approved.")
    if approved_amount < claim.paid_amount:
        raise _beyond("approved_amount", "More than this is already paid.")
    claim.approved_amount = approved_amount


def _pay(actor: Actor, bill: Billing, claim: Claim, paid_amount: Decimal, *, allow_credit: bool) -> None:
    """Post the insurer's money: what `paid_amount` rises by."""
    if claim.status not in (*AGREED, S.PAID):
        raise _refused(claim)
    if paid_amount > (claim.approved_amount or ledger.ZERO):
        raise _beyond("paid_amount", "Not more than was approved can be paid.")
    more = paid_amount - claim.paid_amount
    if more < 0:
        raise invalid("paid_amount", "can only rise; money goes back as a refund")
    if more:
        payments.pay(
            actor,
            bill,
            amount=more,
            method=PaymentMethod.INSURANCE,
            reference=claim.claim_number,
            allow_credit=allow_credit,
            claim_id=claim.id,
        )
    claim.paid_amount = paid_amount


def _beyond(field: str, message: str) -> ClinicError:
    return ClinicError("conflict", message, errors={field: message})
