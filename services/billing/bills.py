"""Bills: queries, creation and changes.

A bill stores no sums. Each of its items is a charge in the ledger, its discount and its tax are one entry
each. Amount, payments and balance are sums of its entries (`services.billing.ledger`). See also `payments`,
`refunds`, `adjustments` (write-offs and voids) and `claims` in this folder.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import TypedDict, Unpack

from sqlalchemy import ColumnElement, Select, and_, bindparam, false, or_, select
from sqlalchemy import update as update_row
from sqlalchemy.orm import contains_eager, joinedload, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from column_types import MONEY_LIMIT
from database.functions import contains_text
from enums import LedgerKind, PaymentMethod, RefundStatus, Role
from errors import ClinicError, invalid, not_found
from extensions import db
from models import (
    Billing,
    BillingItem,
    LedgerEntry,
    Patient,
    Refund,
    Treatment,
)
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import bill_columns, claims, credit_notes, ledger, payments
from services.billing.bill_items import (
    BillLine,
    items_of_lines,
    items_of_treatments,
    lock_unbilled_treatments,
)
from services.billing.bill_state import STATUSES, require_not_void, set_sums, touch
from services.billing.dates import check_due_date, check_issued_on
from services.clinic import versions
from services.document_numbers import INVOICE, next_number
from services.listing import paging
from services.listing.related_rows import doctor_filter, in_related, of_patient, patient_filter
from services.listing.spec import Filter, Kind, ListQuery, ListSpec, Page
from services.rows import (
    assign,
    changed_members,
    get_or_404,
)

HUNDRED = Decimal(100)


class BillChanges(TypedDict, total=False):
    """The members of a bill that can change; an absent member keeps its value."""

    due_date: date | None
    notes: str | None
    discount: Decimal
    discount_reason: str | None
    payment_method: PaymentMethod | None
    amount_paid: Decimal


# --- Queries -------------------------------------------------------------------------------------------


def get(actor: Actor, billing_id: int, *, lock: bool = False) -> Billing:
    """Return a bill with patient, doctor and items, or raise 404. Doctors: bills of their own visits only.

    `lock` locks the patient's row, then the bill's. The patient's comes first because credit belongs to the
    patient: concurrent payments on two bills could otherwise spend the same credit.
    """
    result = db.session.execute(_by_id(lock), {"billing_id": billing_id})
    bill = result.unique().scalar_one_or_none()
    if bill is None:
        raise not_found("billing")
    if actor.role is Role.DOCTOR and (actor.doctor_id is None or bill.doctor_id != actor.doctor_id):
        raise not_found("billing").about("billing", bill.id, bill.patient_id)
    return bill


@cache
def _by_id(lock: bool) -> Select[tuple[Billing]]:
    statement = (
        select(Billing)
        .join(Billing.patient)
        .where(Billing.id == bindparam("billing_id"))
        .options(contains_eager(Billing.patient), joinedload(Billing.doctor), joinedload(Billing.items))
        .execution_options(prepare=True)
    )
    if not lock:
        return statement
    # PostgreSQL locks in this order. It cannot lock the nullable side of an outer join.
    statement = statement.with_for_update(key_share=True, of=(Patient, Billing))
    return statement.execution_options(populate_existing=True)


def get_refund(actor: Actor, billing_id: int, refund_id: int, *, lock: bool = False) -> Refund:
    """Return a refund of the bill, or raise 404. `lock` locks patient, bill and refund, in this order."""
    bill = get(actor, billing_id, lock=lock)
    refund = get_or_404(Refund, refund_id, lock=lock, what="refund")
    if refund.billing is not bill:  # compared as an object: this keeps the loaded bill on the refund
        raise not_found("refund")
    return refund


def visible_bills(actor: Actor) -> ColumnElement[bool] | None:
    """Return the condition for the bills that a doctor may see; None for all other roles."""
    if actor.role is not Role.DOCTOR:
        return None
    return false() if actor.doctor_id is None else Billing.doctor_id == actor.doctor_id


def _text_condition(text: str) -> ColumnElement[bool]:
    """Return the condition of `q`: invoice number, insurer's reference, or words of the patient's name."""
    return or_(
        contains_text(Billing.invoice_number, text),
        contains_text(Billing.insurer_reference, text),
        of_patient(Billing.patient_id, text),
    )


def _refund_status(status: str) -> ColumnElement[bool]:
    requested = and_(Refund.status == RefundStatus(status), Refund.billing_id.is_not(None))
    return in_related(Billing.id, Refund.billing_id, requested)


def _of_treatment(treatment_id: int) -> ColumnElement[bool]:
    return Billing.items.any(BillingItem.treatment_id == treatment_id)


LIST: ListSpec[Billing] = ListSpec(
    name="billings",
    kept_since="created_at",
    model=Billing,
    area="billing",
    main_date="date",
    text=_text_condition,
    scope=visible_bills,
    options=(
        joinedload(Billing.patient),
        joinedload(Billing.doctor),
        selectinload(Billing.items),
        selectinload(Billing.refunds),
        selectinload(Billing.claims),
    ),
    filters={
        "patient_name": patient_filter(Billing.patient_id),
        "doctor_name": doctor_filter(Billing.doctor_id),
        "status": Filter(Kind.ENUM, bill_columns.has_status, "Payment status.", values=STATUSES),
        "is_paid": Filter(Kind.BOOLEAN, bill_columns.is_paid, "True: bills with the status `paid`."),
        "refund_status": Filter(
            Kind.ENUM,
            _refund_status,
            "Bills with a refund of this status. `requested` finds those to decide.",
            values=tuple(RefundStatus),
        ),
        "treatment_id": Filter(Kind.ID, _of_treatment, "Bills with an item for this treatment."),
    },
    omit=frozenset({"version", "clinic_version_id"}),
    computed=bill_columns.COLUMNS,
    newest_first=True,
)


def find(actor: Actor, query: ListQuery) -> Page[Billing]:
    """Return one page of the bills that the actor may see."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Billing]) -> None:
    """Set the computed fields of bills. Takes at most three queries for any number of bills.

    A payment has already set the sums of its bill.
    """
    if unknown := [bill for bill in rows if bill.status is None]:
        sums, balances = ledger.of_bills(unknown)
        for bill in unknown:
            set_sums(bill, sums[bill.id], balances[bill.patient_id])
    payments_by_bill, notes_by_bill = _payments_of([bill.id for bill in rows]), credit_notes.of_bills(rows)
    for bill in rows:
        bill.payments = payments_by_bill.get(bill.id, [])
        bill.credit_notes = notes_by_bill.get(bill.id, [])
    claims.add_computed_fields(actor, [claim for bill in rows for claim in bill.claims])


def _payments_of(ids: Sequence[int]) -> dict[int | None, list[LedgerEntry]]:
    options = {"prepare": len(ids) == 1}  # each number of bills is another statement
    entries: dict[int | None, list[LedgerEntry]] = {}
    for entry in db.session.execute(_PAYMENTS, {"ids": ids}, execution_options=options).scalars():
        entries.setdefault(entry.billing_id, []).append(entry)
    return entries


_PAYMENTS = (
    select(LedgerEntry)
    .where(
        LedgerEntry.billing_id.in_(bindparam("ids", expanding=True)),
        LedgerEntry.kind.in_(ledger.PAYMENTS),
        LedgerEntry.amount < ledger.ZERO,  # a positive credit entry is the credit returned by a void
    )
    .options(joinedload(LedgerEntry.created_by))
    .order_by(LedgerEntry.id)
)


# --- Creation ------------------------------------------------------------------------------------------


def create(
    actor: Actor,
    *,
    visit_id: int | None = None,
    treatment_id: int | None = None,
    patient_id: int | None = None,
    doctor_id: int | None = None,
    items: Sequence[BillLine] | None = None,
    discount: Decimal = ledger.ZERO,
    discount_reason: str | None = None,
    tax_rate: Decimal = ledger.ZERO,
    payment_method: PaymentMethod | None = None,
    amount_paid: Decimal = ledger.ZERO,
    allow_credit: bool = False,
    insurer_reference: str | None = None,
    date: date | None = None,
    due_date: date | None = None,
    notes: str | None = None,
    billed_at: datetime | None = None,
) -> Billing:
    """Create a bill for the completed treatments of a visit, for one treatment, or for items.

    `tax_rate` is in percent. `date` is the date of issue, by default today; the invoice number has its year.
    `billed_at` is for imports of older bills. Raises 409 `nothing_to_bill` without a completed, unbilled
    treatment, 409 `patient_inactive`, and 409 `overpayment` and `insufficient_credit` for `amount_paid`.
    Raises 422 for members that do not fit together, and for an amount above the limit of money.
    """
    _check_one_source(visit_id=visit_id, treatment_id=treatment_id, items=items)
    check_due_date(due_date)
    created_at = billed_at or clock.now()
    bill = Billing(
        invoice_number=f"draft-{secrets.token_hex(8)}",
        tax_rate=tax_rate,
        discount_reason=discount_reason,
        payment_method=payment_method,
        insurer_reference=insurer_reference,
        due_date=due_date,
        notes=notes,
        created_by_id=actor.user_id,
        date=check_issued_on(date) if date else clock.local(created_at).date(),
        created_at=created_at,
        clinic_version_id=versions.current_version_id(),
        refunds=[],  # a new bill has neither: this saves the lookups
        claims=[],
    )
    if items is not None:
        bill.items = items_of_lines(bill, patient_id, doctor_id, items, billed_at)
        treatments = []
    else:
        treatments = lock_unbilled_treatments(bill, visit_id, treatment_id, billed_at)
        bill.items = items_of_treatments(treatments, bill, patient_id, doctor_id)
    _insert(bill, treatments)
    _post_charges(actor, bill, discount, discount_reason)
    if amount_paid:
        method = payment_method or PaymentMethod.OTHER
        payments.pay(actor, bill, amount=amount_paid, method=method, allow_credit=allow_credit)
    audit_log.set_action(bill, "create")
    set_invoice_number(bill)
    return bill


def set_invoice_number(bill: Billing) -> None:
    """Set the next invoice number on a new bill."""
    number = next_number(INVOICE, bill.date.year)
    # not through the session: the number must not raise the version of the new bill
    db.session.connection().execute(
        update_row(Billing).where(Billing.id == bill.id).values(invoice_number=number)
    )
    set_committed_value(bill, "invoice_number", number)


def _insert(bill: Billing, treatments: Sequence[Treatment]) -> None:
    """Insert a bill, and mark its treatments as billed."""
    db.session.add(bill)
    db.session.flush()
    for treatment in treatments:
        treatment.billing_id = bill.id


def _check_one_source(**sources: object) -> None:
    names = [name for name, value in sources.items() if value is not None]
    if len(names) != 1:
        field = names[1] if names else "visit_id"
        raise invalid(field, "send exactly one of visit_id, treatment_id, and patient_id with items")


def _post_charges(actor: Actor, bill: Billing, discount: Decimal, discount_reason: str | None) -> None:
    """Post a charge for each item, then the discount and the tax."""
    amounts = [item.quantity * item.unit_price for item in bill.items]
    subtotal = sum(amounts, ledger.ZERO)
    if subtotal > MONEY_LIMIT:
        raise invalid("items", f"their sum must be at most {MONEY_LIMIT}")
    is_backdated = bill.date != clock.local(bill.created_at).date()
    issued_at = clock.day_start(bill.date) if is_backdated else bill.created_at
    for item, amount in zip(bill.items, amounts, strict=True):
        ledger.post(actor, bill, LedgerKind.CHARGE, amount, occurred_at=issued_at, item_id=item.id)
    _post_discount_and_tax(actor, bill, subtotal, discount, discount_reason, issued_at, limited="tax_rate")


def _post_discount_and_tax(
    actor: Actor,
    bill: Billing,
    subtotal: Decimal,
    discount: Decimal,
    discount_reason: str | None,
    occurred_at: datetime,
    *,
    limited: str,
) -> None:
    """Post the discount and the tax. `limited` is the member to change if the amount is above the limit."""
    if discount > subtotal:
        raise invalid("discount", f"must be at most the subtotal of {ledger.to_text(subtotal)}")
    if discount and not discount_reason:
        raise invalid("discount_reason", "is required with a discount")
    tax = ledger.half_up((subtotal - discount) * bill.tax_rate / HUNDRED)
    if subtotal - discount + tax > MONEY_LIMIT:
        raise invalid(limited, f"the amount of the bill with tax must be at most {MONEY_LIMIT}")
    if discount:
        ledger.post(
            actor,
            bill,
            LedgerKind.DISCOUNT,
            -discount,
            reason=discount_reason,
            occurred_at=occurred_at,
        )
    if tax:
        ledger.post(actor, bill, LedgerKind.TAX, tax, occurred_at=occurred_at)


# --- Changes -------------------------------------------------------------------------------------------


def update(actor: Actor, bill: Billing, *, if_match: bool, **changes: Unpack[BillChanges]) -> Billing:
    """Change due date, notes or discount. A higher `amount_paid` posts a payment of the difference.

    The method of that payment is `payment_method`, or else the bill's. `if_match` is True if the request had
    an If-Match header. Raises 428 without it for a payment together with other changes. Raises 409
    `read_only` for a void bill, and for a discount on a bill with payments. Raises 422 for an `amount_paid`
    below the paid amount.
    """
    sums = ledger.of_bill(bill.id)
    amount_paid = changes.pop("amount_paid", sums.paid)
    discount = changes.pop("discount", sums.discount)
    values = changed_members(bill, changes)
    is_payment = amount_paid != sums.paid
    if not (values or is_payment or discount != sums.discount):
        return bill
    require_not_void(bill)
    if "due_date" in values:
        check_due_date(values["due_date"])
    other_values = values.keys() - {"payment_method"}  # the method belongs to the payment
    if is_payment and not if_match and (other_values or discount != sums.discount):
        raise ClinicError(
            "if_match_required",
            "Send If-Match for a payment together with other changes: an outdated bill must not move money.",
        )
    assign(bill, values)
    if discount != sums.discount or "discount_reason" in values:
        _change_discount(actor, bill, sums, discount)
    if amount_paid < sums.paid:
        raise invalid("amount_paid", "cannot be reduced; request a refund to pay money back")
    if is_payment:
        method = bill.payment_method or PaymentMethod.OTHER
        payments.pay(actor, bill, amount=amount_paid - sums.paid, method=method)
    touch(bill)
    return bill


def _change_discount(actor: Actor, bill: Billing, sums: ledger.Sums, discount: Decimal) -> None:
    if sums.paid or sums.written_off:
        raise ClinicError("read_only", "The discount cannot be changed after a payment or a write-off.")
    if credit_notes.credited(bill.id) != (ledger.ZERO, ledger.ZERO):
        raise ClinicError("read_only", "The discount cannot be changed after a credit note. Void the bill.")
    for entry in ledger.unreversed_entries(bill.id, LedgerKind.DISCOUNT, LedgerKind.TAX):
        ledger.reverse(actor, entry, "discount changed")
    reason, now = bill.discount_reason, clock.now()
    _post_discount_and_tax(actor, bill, sums.subtotal, discount, reason, now, limited="discount")
