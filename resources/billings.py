"""Bills, payments, refunds and claims over HTTP."""

from __future__ import annotations

from typing import Any

from flask import request
from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Answer, Serializer
from models import Billing, Claim, Refund
from schemas.billing import (
    BillingIn,
    BillingOut,
    BillingPatch,
    ClaimIn,
    ClaimOut,
    ClaimPatch,
    PaymentIn,
    RefundIn,
    RefundOut,
    RefundPatch,
    VoidIn,
    WriteOffIn,
)
from security.permissions import Actor, Permission
from services.billing import adjustments, bills, claims, payments, refunds
from services.listing.spec import ListQuery, Page

BILLING = Serializer(BillingOut, computed_fields=bills.add_computed_fields, entity="billing")
CLAIM = Serializer(ClaimOut, computed_fields=claims.add_computed_fields, entity="claim")
REFUND = Serializer(RefundOut)
PAYING = ("overpayment", "insufficient_credit", "read_only")


def _claim(actor: Actor, billing_id: int, claim_id: int, *, lock: bool = False) -> Claim:
    return claims.of_bill(bills.get(actor, billing_id, lock=lock), claim_id, lock=lock)


def _at_bill(bill: Billing) -> Answer:
    """Payments and refunds are shown by their bill: that is where the new one is found."""
    return Answer(bill, headers={"Location": f"/billings/{bill.id}"})


class BillingList(ApiResource):
    """/billings"""

    @endpoint(Permission.BILLINGS_READ, lists=bills.LIST, returns=BILLING)
    def get(self, listed: ListQuery) -> Page[Billing]:
        """List bills; `refund_status=requested` finds the refunds to decide."""
        return bills.find(current_actor(), listed)

    @endpoint(
        Permission.BILLINGS_WRITE,
        body=BillingIn,
        returns=BILLING,
        status=201,
        errors=("nothing_to_bill", *PAYING),
    )
    def post(self, data: BillingIn) -> Billing:
        """Bill a visit's completed treatments, one treatment, or items for a patient."""
        return bills.create(current_actor(), **data.model_dump())


class BillingDetail(ApiResource):
    """/billings/<billing_id>"""

    @endpoint(Permission.BILLINGS_READ, loads=bills.get, returns=BILLING)
    def get(self, row: Billing) -> Billing:
        """Show a bill with its items, payments, refunds and claims."""
        return row

    @endpoint(
        Permission.BILLINGS_WRITE,
        loads=bills.get,
        body=BillingPatch,
        returns=BILLING,
        errors=("if_match_required", *PAYING),
    )
    def patch(self, row: Billing, data: BaseModel) -> Billing:
        """Change due date, notes or discount, or raise amount_paid by a payment."""
        values: dict[str, Any] = data.model_dump(exclude_unset=True)
        return bills.update(current_actor(), row, if_match="If-Match" in request.headers, **values)


class BillingPayments(ApiResource):
    """/billings/<billing_id>/payments"""

    @endpoint(
        Permission.BILLINGS_WRITE,
        loads=bills.get,
        body=PaymentIn,
        returns=BILLING,
        status=201,
        errors=PAYING,
    )
    def post(self, row: Billing, data: PaymentIn) -> Answer:
        """Take a payment on a bill; answers the bill."""
        return _at_bill(payments.pay(current_actor(), row, **data.model_dump()))


class BillingRefunds(ApiResource):
    """/billings/<billing_id>/refunds"""

    @endpoint(
        Permission.REFUNDS_ASK,
        loads=bills.get,
        body=RefundIn,
        returns=BILLING,
        status=201,
        errors=("excessive_refund", "read_only"),
    )
    def post(self, row: Billing, data: RefundIn) -> Answer:
        """Ask for a refund, or give it at once with the right to decide; answers the bill."""
        return _at_bill(refunds.request(current_actor(), row, **data.model_dump()))


class BillingRefund(ApiResource):
    """/billings/<billing_id>/refunds/<refund_id>"""

    @endpoint(
        Permission.BILLINGS_SETTLE,
        loads=bills.get_refund,
        body=RefundPatch,
        returns=REFUND,
        errors=("excessive_refund", "invalid_transition", "read_only"),
    )
    def patch(self, row: Refund, data: BaseModel) -> Refund:
        """Approve or reject a refund that somebody else asked for."""
        return refunds.decide(current_actor(), row, **data.model_dump(exclude_unset=True))


class BillingWriteOff(ApiResource):
    """/billings/<billing_id>/write-off"""

    @endpoint(
        Permission.BILLINGS_SETTLE,
        loads=bills.get,
        body=WriteOffIn,
        returns=BILLING,
        errors=("overpayment", "read_only"),
    )
    def post(self, row: Billing, data: WriteOffIn) -> Billing:
        """Give up what a bill is still owed, or part of it."""
        return adjustments.write_off(current_actor(), row, **data.model_dump())


class BillingVoid(ApiResource):
    """/billings/<billing_id>/void"""

    @endpoint(
        Permission.BILLINGS_SETTLE,
        loads=bills.get,
        body=VoidIn,
        returns=BILLING,
        errors=("in_use", "read_only"),
    )
    def post(self, row: Billing, data: VoidIn) -> Billing:
        """Make a bill void: its postings are reversed, what was paid becomes the patient's credit."""
        return adjustments.void(current_actor(), row, **data.model_dump())


class ClaimList(ApiResource):
    """/billings/<billing_id>/claims"""

    @endpoint(Permission.BILLINGS_READ, lists=claims.LIST, returns=CLAIM)
    def get(self, billing_id: int, listed: ListQuery) -> Page[Claim]:
        """List a bill's claims."""
        actor = current_actor()
        return claims.find(bills.get(actor, billing_id), actor, listed)

    @endpoint(
        Permission.BILLINGS_WRITE,
        loads=bills.get,
        body=ClaimIn,
        returns=CLAIM,
        status=201,
        errors=("read_only",),
    )
    def post(self, row: Billing, data: ClaimIn) -> Claim:
        """Draft a claim to an insurer."""
        return claims.create(row, **data.model_dump())


class ClaimItem(ApiResource):
    """/billings/<billing_id>/claims/<claim_id>"""

    @endpoint(Permission.BILLINGS_READ, loads=_claim, returns=CLAIM)
    def get(self, row: Claim) -> Claim:
        """Show a claim."""
        return row

    @endpoint(
        Permission.BILLINGS_WRITE,
        loads=_claim,
        body=ClaimPatch,
        returns=CLAIM,
        errors=("conflict", "invalid_transition", "overpayment", "read_only"),
    )
    def patch(self, row: Claim, data: BaseModel) -> Claim:
        """Move a claim on: submit, decide, pay, submit again."""
        return claims.update(current_actor(), row, **data.model_dump(exclude_unset=True))
