"""Bills: making them of treatments or items, finding them, changing what may change.

A bill stores no sums. Its lines are charged to the ledger one by one, its discount and tax are a row each;
amount, payments and balance are sums of its rows (`services.billing.ledger`). Settling a bill is in
 `services.billing.payments`, claims to insurers are in `services.billing.claims`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, false, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import joinedload, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from column_types import MONEY_LIMIT
from enums import LedgerKind, PaymentMethod, RefundStatus, Role, TreatmentStatus
from errors import ClinicError, invalid, not_found
from extensions import db
from models import (
    Billing,
    BillingItem,
    Doctor,
    InvoiceCounter,
    LedgerEntry,
    Patient,
    Refund,
    Treatment,
    Visit,
)
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import claims, ledger, payments
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
)
from services.listing.related_rows import of_patient
from services.rows import (
    assign,
    changed_members,
    for_update,
    get_or_404,
    get_referenced,
)

CONSULTATION = "consultation"  # the item that the doctor's fee is the default price of
STATUSES = ("unpaid", "partial", "paid", "void")
HUNDRED = Decimal(100)


# --- Finding -------------------------------------------------------------------------------------------


def get(actor: Actor, billing_id: int, *, lock: bool = False) -> Billing:
    """The bill, or 404; a doctor sees those of own visits only.

    `lock` holds the patient's row, then the bill's: credit belongs to the patient, whichever bill spends it.
    """
    bill = get_or_404(Billing, billing_id)
    if actor.role is Role.DOCTOR and (actor.doctor_id is None or bill.doctor_id != actor.doctor_id):
        raise not_found("billing").about("billing", bill.id, bill.patient_id)
    if lock:
        get_or_404(Patient, bill.patient_id, lock=True)
        bill = get_or_404(Billing, billing_id, lock=True)
    return bill


def get_refund(actor: Actor, billing_id: int, refund_id: int, *, lock: bool = False) -> Refund:
    """A refund of the bill, or 404. `lock` holds patient and bill as `get` does."""
    get(actor, billing_id, lock=lock)
    refund = get_or_404(Refund, refund_id, lock=lock, what="refund")
    if refund.billing_id != billing_id:
        raise not_found("refund")
    return refund


def _scope(actor: Actor) -> ColumnElement[bool] | None:
    if actor.role is not Role.DOCTOR:
        return None
    return false() if actor.doctor_id is None else Billing.doctor_id == actor.doctor_id


def _matches(text: str) -> ColumnElement[bool]:
    """What `q` finds: invoice number, insurer's reference, parts of the patient's name in any order."""
    return or_(
        Billing.invoice_number.icontains(text, autoescape=True),
        Billing.insurer_reference.icontains(text, autoescape=True),
        of_patient(Billing.patient_id, text),
    )


def _sum(*kinds: LedgerKind) -> Any:
    wheres = [LedgerEntry.billing_id == Billing.id]
    if kinds:
        wheres.append(LedgerEntry.kind.in_(kinds))
    total = func.coalesce(func.sum(LedgerEntry.amount), 0)
    return select(total).where(*wheres).correlate(Billing).scalar_subquery()


def _of_status(status: str) -> ColumnElement[bool]:
    if status == "void":
        return Billing.voided_at.is_not(None)
    owed = and_(Billing.id.in_(ledger.unsettled()), _sum() > ledger.ZERO)
    paid: ColumnElement[bool] = _sum(*ledger.PAID) < ledger.ZERO  # what is paid lies there negative
    wanted = {"paid": ~owed, "partial": and_(owed, paid), "unpaid": and_(owed, ~paid)}
    return and_(Billing.voided_at.is_(None), wanted[status])


def _is_paid(paid: bool) -> ColumnElement[bool]:
    return _of_status("paid") if paid else ~_of_status("paid")


def _refund_status(status: str) -> ColumnElement[bool]:
    return Billing.refunds.any(Refund.status == RefundStatus(status))


def _of_treatment(treatment_id: int) -> ColumnElement[bool]:
    return Billing.items.any(BillingItem.treatment_id == treatment_id)


LIST: ListSpec[Billing] = ListSpec(
    name="billings",
    kept_since="created_at",
    model=Billing,
    area="billing",
    main_date="created_at",
    text=_matches,
    scope=_scope,
    options=(
        joinedload(Billing.patient),
        joinedload(Billing.doctor),
        selectinload(Billing.items),
        selectinload(Billing.refunds),
        selectinload(Billing.claims),
    ),
    filters={
        "status": Filter(Kind.ENUM, _of_status, "What is still owed.", values=STATUSES),
        "is_paid": Filter(Kind.BOOLEAN, _is_paid, "Whether nothing is owed."),
        "refund_status": Filter(
            Kind.ENUM,
            _refund_status,
            "Bills with a refund in this state; `requested` are those to decide.",
            values=tuple(RefundStatus),
        ),
        "treatment_id": Filter(Kind.ID, _of_treatment, "The bill that charges a treatment."),
    },
    omit=frozenset({"version"}),
)


def find(actor: Actor, query: ListQuery) -> Page[Billing]:
    """One page of the bills that the actor may see."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Billing]) -> None:
    """Compute what is not stored, all of it sums of ledger rows; three queries for any number of bills."""
    ids = [bill.id for bill in rows]
    sums = ledger.of_bills(ids)
    balances = ledger.balances({bill.patient_id for bill in rows})
    received = _payments_of(ids)
    for bill in rows:
        _show(bill, sums.get(bill.id, ledger.EMPTY))
        bill.payments = received.get(bill.id, [])
        bill.account_balance = balances[bill.patient_id]
    claims.add_computed_fields(actor, [claim for bill in rows for claim in bill.claims])


def _payments_of(ids: Sequence[int]) -> dict[int | None, list[LedgerEntry]]:
    statement = (
        select(LedgerEntry)
        .where(
            LedgerEntry.billing_id.in_(ids),
            LedgerEntry.kind.in_(payments.PAYMENTS),
            LedgerEntry.amount < ledger.ZERO,  # the positive credit row of a void bill is none
        )
        .options(joinedload(LedgerEntry.created_by))
        .order_by(LedgerEntry.id)
    )
    found: dict[int | None, list[LedgerEntry]] = {}
    for entry in db.session.execute(statement).scalars():
        found.setdefault(entry.billing_id, []).append(entry)
    return found


def _show(bill: Billing, sums: ledger.Sums) -> None:
    bill.subtotal = sums.subtotal
    bill.discount = sums.discount
    bill.tax = sums.tax
    bill.amount = sums.amount
    bill.written_off = sums.written_off
    bill.amount_paid = sums.paid
    bill.balance = sums.balance
    bill.status = status_of(bill, sums)
    bill.is_paid = bill.status == "paid"


def status_of(bill: Billing, sums: ledger.Sums) -> str:
    """`void`; `paid` once nothing is owed, be it written off or free; `partial`; `unpaid`."""
    if bill.voided_at is not None:
        return "void"
    if sums.balance <= 0:
        return "paid"
    return "partial" if sums.paid > 0 else "unpaid"


# --- Making --------------------------------------------------------------------------------------------


def create(
    actor: Actor,
    *,
    visit_id: int | None = None,
    treatment_id: int | None = None,
    patient_id: int | None = None,
    doctor_id: int | None = None,
    items: Sequence[Mapping[str, Any]] | None = None,
    discount: Decimal = ledger.ZERO,
    discount_reason: str | None = None,
    tax_rate: Decimal = ledger.ZERO,
    payment_method: PaymentMethod | None = None,
    amount_paid: Decimal = ledger.ZERO,
    allow_credit: bool = False,
    insurer_reference: str | None = None,
    due_date: date | None = None,
    notes: str | None = None,
    billed_at: datetime | None = None,
) -> Billing:
    """Bill a visit's completed treatments, one treatment, or items; exactly one of the three.

    `billed_at` is for imports of what was billed before; the invoice is numbered within that year.
    Raises 409 `nothing_to_bill` where no completed, unbilled treatment is found, 409 `overpayment` and
    `insufficient_credit` for what is paid at once, 422 for what does not fit together.
    """
    _check_one_of(visit_id=visit_id, treatment_id=treatment_id, items=items)
    bill = Billing(
        tax_rate=tax_rate,
        discount_reason=discount_reason,
        payment_method=payment_method,
        insurer_reference=insurer_reference,
        due_date=due_date,
        notes=notes,
        created_by_id=actor.user_id,
        created_at=billed_at or clock.now(),
        refunds=[],  # a new bill has none of either: they are not looked up
        claims=[],
    )
    treatments: list[Treatment] = []
    if items is not None:
        bill.items = _of_items(bill, patient_id, doctor_id, items)
    else:
        treatments = _unbilled(bill, visit_id, treatment_id)
        bill.items = _of_treatments(treatments)
        _check_agrees(bill, patient_id, doctor_id)
    bill.invoice_number = f"draft-{secrets.token_hex(8)}"
    db.session.add(bill)
    db.session.flush()
    for row in treatments:
        row.billing_id = bill.id
    _charge(actor, bill, discount, discount_reason)
    if amount_paid:
        method = payment_method or PaymentMethod.OTHER
        payments.pay(actor, bill, amount=amount_paid, method=method, allow_credit=allow_credit)
    audit_log.set_action(bill, "create")
    _number(bill)
    return bill


def _number(bill: Billing) -> None:
    """Give the bill its invoice number, last of all: from then on every other bill waits for the commit."""
    number = _next_number(clock.local(bill.created_at).year)
    # not through the row: this is no new version of it
    db.session.connection().execute(_NUMBER, {"bill": bill.id, "number": number})
    set_committed_value(bill, "invoice_number", number)


_NUMBER = (
    Billing.__table__.update()  # type: ignore[attr-defined]
    .where(Billing.__table__.c.id == bindparam("bill"))
    .values(invoice_number=bindparam("number"))
    .execution_options(prepare=True)
)


def _check_one_of(**sources: Any) -> None:
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        field = given[1] if given else "visit_id"
        raise invalid(field, "give one of visit_id, treatment_id, patient_id + items")


def _of_treatments(treatments: Sequence[Treatment]) -> list[BillingItem]:
    return [
        BillingItem(description=row.name, quantity=1, unit_price=row.cost, treatment_id=row.id)
        for row in treatments
    ]


def _of_items(
    bill: Billing, patient_id: int | None, doctor_id: int | None, items: Sequence[Mapping[str, Any]]
) -> list[BillingItem]:
    if patient_id is None:
        raise invalid("patient_id", "is required with items")
    get_referenced(Patient, patient_id, "patient_id", lock=True)
    doctor = None if doctor_id is None else get_referenced(Doctor, doctor_id, "doctor_id")
    bill.patient_id, bill.doctor_id, bill.doctor = patient_id, doctor_id, doctor
    lines = []
    for number, item in enumerate(items):
        price = item["unit_price"]
        if price is None:
            price = _default_price(item["description"], doctor, f"items.{number}.unit_price")
        lines.append(
            BillingItem(description=item["description"], quantity=item["quantity"], unit_price=price)
        )
    return lines


def _default_price(description: str, doctor: Doctor | None, field: str) -> Decimal:
    """The doctor's fee for a consultation; nothing else has a price of its own."""
    if description.strip().casefold() != CONSULTATION:
        raise invalid(field, "is required")
    if doctor is None:
        raise invalid(field, "is required, or doctor_id: whose consultation fee is it?")
    return doctor.consultation_fee


def _unbilled(bill: Billing, visit_id: int | None, treatment_id: int | None) -> list[Treatment]:
    """The treatments to bill, locked in their order: patient, visit, treatments."""
    if treatment_id is not None:
        found = get_referenced(Treatment, treatment_id, "treatment_id").visit
        which = Treatment.id == treatment_id
    else:
        found = get_referenced(Visit, visit_id or 0, "visit_id")
        which = Treatment.visit_id == visit_id
    get_or_404(Patient, found.patient_id, lock=True)
    visit = get_or_404(Visit, found.id, lock=True)
    statement = for_update(select(Treatment).where(which).order_by(Treatment.id))
    treatments = [
        row
        for row in db.session.execute(statement).scalars()
        if row.status is TreatmentStatus.COMPLETED and row.billing_id is None
    ]
    if visit.voided_at is not None or not treatments:
        raise ClinicError("nothing_to_bill", "There is no completed treatment that is not billed yet.")
    bill.patient_id, bill.visit_id = visit.patient_id, visit.id
    bill.doctor_id = treatments[0].doctor_id if treatment_id is not None else visit.doctor_id
    return treatments


def _check_agrees(bill: Billing, patient_id: int | None, doctor_id: int | None) -> None:
    """A patient or doctor named beside a visit must be the visit's."""
    if patient_id not in (None, bill.patient_id):
        raise invalid("patient_id", "is not the patient of what is billed")
    if doctor_id not in (None, bill.doctor_id):
        raise invalid("doctor_id", "is not the doctor of what is billed")


def _next_number(year: int) -> str:
    """The next invoice number of a year; holds the counter until the commit, so without gaps."""
    dialect = db.session.get_bind().dialect.name
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    statement = (
        insert(InvoiceCounter)
        .values(year=year, last_number=1)
        .on_conflict_do_update(
            index_elements=[InvoiceCounter.year], set_={"last_number": InvoiceCounter.last_number + 1}
        )
        .returning(InvoiceCounter.last_number)
    )
    number = db.session.execute(statement).scalar_one()
    return f"INV-{year}-{number:06d}"


def _charge(actor: Actor, bill: Billing, discount: Decimal, discount_reason: str | None) -> None:
    """Post the lines, the discount and the tax on the rest."""
    amounts = [line.quantity * line.unit_price for line in bill.items]
    if sum(amounts) > MONEY_LIMIT:
        raise invalid("items", f"their sum must be at most {MONEY_LIMIT}")
    for line, amount in zip(bill.items, amounts, strict=True):
        ledger.post(
            actor,
            patient_id=bill.patient_id,
            billing_id=bill.id,
            kind=LedgerKind.CHARGE,
            amount=amount,
            occurred_at=bill.created_at,
            item_id=line.id,
        )
    _take_off(actor, bill, sum(amounts, ledger.ZERO), discount, discount_reason, bill.created_at)


def _take_off(
    actor: Actor,
    bill: Billing,
    subtotal: Decimal,
    discount: Decimal,
    discount_reason: str | None,
    at: datetime,
) -> None:
    """Post a discount, and the tax on what it leaves."""
    if discount > subtotal:
        raise invalid("discount", f"must be at most the subtotal of {subtotal:.2f}")
    if discount and not discount_reason:
        raise invalid("discount_reason", "is required with a discount")
    tax = ledger.half_up((subtotal - discount) * bill.tax_rate / HUNDRED)
    for kind, amount, reason in (
        (LedgerKind.DISCOUNT, -discount, discount_reason),
        (LedgerKind.TAX, tax, None),
    ):
        if amount:
            ledger.post(
                actor,
                patient_id=bill.patient_id,
                billing_id=bill.id,
                kind=kind,
                amount=amount,
                reason=reason,
                occurred_at=at,
            )


# --- Changing ------------------------------------------------------------------------------------------


def update(
    actor: Actor,
    bill: Billing,
    *,
    if_match: bool,
    payment_method: PaymentMethod | None = None,
    **values: Any,
) -> Billing:
    """Change due date, notes and discount; a higher `amount_paid` becomes a payment of the difference, by
    `payment_method`, else the bill's.

    `if_match`: whether the caller named the version it read. Raises 428 where `amount_paid` comes together
    with other changes without it, 409 `read_only` for a void bill and for a discount once something is
    paid, 422 for an `amount_paid` below what is paid.
    """
    sums = ledger.of_bill(bill.id)
    wanted = values.pop("amount_paid", sums.paid)
    discount = values.pop("discount", sums.discount) or ledger.ZERO
    values = changed_members(bill, values)
    pays = wanted != sums.paid
    if not (values or pays or payment_method or discount != sums.discount):
        return bill
    payments.require_open(bill)
    if pays and not if_match and (values or discount != sums.discount):
        raise ClinicError(
            "if_match_required",
            "A payment together with other changes needs If-Match: a stale record must not move money.",
        )
    assign(bill, values)
    if payment_method is not None:
        bill.payment_method = payment_method
    if discount != sums.discount or "discount_reason" in values:
        _change_discount(actor, bill, sums, discount)
    if wanted < sums.paid:
        raise invalid("amount_paid", "can only rise; money goes back as a refund")
    if pays:
        method = bill.payment_method or PaymentMethod.OTHER
        payments.pay(actor, bill, amount=wanted - sums.paid, method=method)
    payments.touch(bill)
    return bill


def _change_discount(actor: Actor, bill: Billing, sums: ledger.Sums, discount: Decimal) -> None:
    if sums.paid or sums.written_off:
        raise ClinicError("read_only", "The discount can only change while nothing is paid or written off.")
    reason = bill.discount_reason
    for entry in ledger.standing(bill.id, LedgerKind.DISCOUNT, LedgerKind.TAX):
        ledger.reverse(actor, entry, "discount changed")
    _take_off(actor, bill, sums.subtotal, discount, reason, clock.now())
