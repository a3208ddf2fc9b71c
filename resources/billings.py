"""Endpoints of bills, payments, refunds and claims."""

from __future__ import annotations

from typing import Any

from flask import request
from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import Billing, Claim, Refund
from schemas.billing import (
    BillingIn,
    BillingOut,
    BillingPatch,
    ClaimIn,
    ClaimOut,
    ClaimPatch,
    PaymentIn,
    PaymentOut,
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
PAYMENT_ERRORS = ("overpayment", "insufficient_credit", "read_only")


def _load_claim(actor: Actor, billing_id: int, claim_id: int, *, lock: bool = False) -> Claim:
    return claims.of_bill(bills.get(actor, billing_id, lock=lock), claim_id, lock=lock)


def _bill_result(bill: Billing) -> EndpointResult:
    """Return a bill with its own URL as `Location`: it contains the new payment or refund."""
    return EndpointResult(bill, headers={"Location": f"/billings/{bill.id}"})


class BillingList(ApiResource):
    """Route `/billings`."""

    @endpoint(Permission.BILLINGS_READ, list_spec=bills.LIST, returns=BILLING)
    def get(self, query: ListQuery) -> Page[Billing]:
        """List bills.

        `refund_status=requested` selects the bills with refunds to decide.
        """
        return bills.find(current_actor(), query)

    @endpoint(
        Permission.BILLINGS_WRITE,
        body=BillingIn,
        returns=BILLING,
        status=201,
        errors=("nothing_to_bill", "patient_inactive", *PAYMENT_ERRORS),
    )
    def post(self, data: BillingIn) -> Billing:
        """Create a bill for the completed treatments of a visit, one treatment, or items of a patient."""
        return bills.create(current_actor(), **data.model_dump())


class BillingItem(ApiResource):
    """Route `/billings/<billing_id>`."""

    @endpoint(Permission.BILLINGS_READ, load=bills.get, returns=BILLING)
    def get(self, row: Billing) -> Billing:
        """Show a bill with its items, payments, refunds and claims."""
        return row

    @endpoint(
        Permission.BILLINGS_WRITE,
        load=bills.get,
        body=BillingPatch,
        returns=BILLING,
        errors=("if_match_required", *PAYMENT_ERRORS),
    )
    def patch(self, row: Billing, data: BaseModel) -> Billing:
        """Change due date, notes or discount of a bill, or record a payment.

        A higher `amount_paid` records a payment of the difference.
        """
        values: dict[str, Any] = data.model_dump(exclude_unset=True)
        return bills.update(current_actor(), row, if_match="If-Match" in request.headers, **values)


class BillingPaymentList(ApiResource):
    """Route `/billings/<billing_id>/payments`."""

    @endpoint(
        Permission.BILLINGS_WRITE,
        load=bills.get,
        body=PaymentIn,
        returns=BILLING,
        resource=PaymentOut,
        status=201,
        errors=PAYMENT_ERRORS,
    )
    def post(self, row: Billing, data: PaymentIn) -> EndpointResult:
        """Record a payment of a bill. The response is the bill."""
        return _bill_result(payments.pay(current_actor(), row, **data.model_dump()))


class BillingRefundList(ApiResource):
    """Route `/billings/<billing_id>/refunds`."""

    @endpoint(
        Permission.REFUNDS_ASK,
        load=bills.get,
        body=RefundIn,
        returns=BILLING,
        resource=RefundOut,
        status=201,
        errors=("excessive_refund", "read_only"),
    )
    def post(self, row: Billing, data: RefundIn) -> EndpointResult:
        """Request a refund. The response is the bill.

        A caller who may decide refunds pays it out at once. On a void bill, only the money of an insurer
        (`owed_to_insurers`) can be refunded.
        """
        return _bill_result(refunds.request(current_actor(), row, **data.model_dump()))


class BillingRefundItem(ApiResource):
    """Route `/billings/<billing_id>/refunds/<refund_id>`."""

    @endpoint(
        Permission.BILLINGS_SETTLE,
        load=bills.get_refund,
        body=RefundPatch,
        returns=REFUND,
        errors=("excessive_refund", "invalid_transition", "read_only"),
    )
    def patch(self, row: Refund, data: BaseModel) -> Refund:
        """Approve or reject a refund that another user requested."""
        return refunds.decide(current_actor(), row, **data.model_dump(exclude_unset=True))


class BillingWriteOff(ApiResource):
    """Route `/billings/<billing_id>/write-off`."""

    @endpoint(
        Permission.BILLINGS_SETTLE,
        load=bills.get,
        body=WriteOffIn,
        returns=BILLING,
        errors=("overpayment", "read_only"),
    )
    def post(self, row: Billing, data: WriteOffIn) -> Billing:
        """Write off the balance of a bill, or a part of it."""
        return adjustments.write_off(current_actor(), row, **data.model_dump())


class BillingVoid(ApiResource):
    """Route `/billings/<billing_id>/void`."""

    @endpoint(
        Permission.BILLINGS_SETTLE,
        load=bills.get,
        body=VoidIn,
        returns=BILLING,
        errors=("in_use", "read_only"),
    )
    def post(self, row: Billing, data: VoidIn) -> Billing:
        """Void a bill.

        Its ledger entries are reversed. Its payments become credit of the patient. The money of an insurer
        becomes a debt to the insurer (`owed_to_insurers`). A bill with open claims is refused.
        """
        return adjustments.void(current_actor(), row, **data.model_dump())


class ClaimList(ApiResource):
    """Route `/billings/<billing_id>/claims`."""

    @endpoint(Permission.BILLINGS_READ, list_spec=claims.LIST, returns=CLAIM)
    def get(self, billing_id: int, query: ListQuery) -> Page[Claim]:
        """List the claims of a bill."""
        actor = current_actor()
        return claims.find(bills.get(actor, billing_id), actor, query)

    @endpoint(
        Permission.BILLINGS_WRITE,
        load=bills.get,
        body=ClaimIn,
        returns=CLAIM,
        status=201,
        errors=("read_only",),
    )
    def post(self, row: Billing, data: ClaimIn) -> Claim:
        """Create a draft of an insurance claim."""
        return claims.create(row, **data.model_dump())


class ClaimItem(ApiResource):
    """Route `/billings/<billing_id>/claims/<claim_id>`."""

    @endpoint(Permission.BILLINGS_READ, load=_load_claim, returns=CLAIM)
    def get(self, row: Claim) -> Claim:
        """Show an insurance claim."""
        return row

    @endpoint(
        Permission.BILLINGS_WRITE,
        load=_load_claim,
        body=ClaimPatch,
        returns=CLAIM,
        errors=("conflict", "invalid_transition", "overpayment", "read_only"),
    )
    def patch(self, row: Claim, data: BaseModel) -> Claim:
        """Change a claim: submit, approve, deny, record a payment, submit again, or withdraw."""
        return claims.update(current_actor(), row, **data.model_dump(exclude_unset=True))
