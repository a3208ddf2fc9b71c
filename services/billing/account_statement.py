"""Account statements: the balance of a patient, the open bills, and the ledger entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import joinedload

from config import settings
from errors import invalid
from extensions import db
from models import Billing, BillingItem, LedgerEntry, Patient, Refund
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import bills, ledger, refunds
from services.patients import patients
from services.rows import mapping

MAX_POSTINGS = 2_000  # of one document: about 60 pages


@dataclass(frozen=True)
class AccountStatement:
    """The account of a patient as the caller may see it. `entries` is one page, newest first.

    `refunds` are those of credit.
    """

    patient: Patient
    sums: ledger.AccountSums
    refunds: Sequence[Refund]
    open_bills: list[Billing]
    entries: list[LedgerEntry]
    entry_count: int

    @property
    def patient_id(self) -> int:
        """The id of the patient."""
        return self.patient.id

    @property
    def patient_name(self) -> str:
        """The name of the patient."""
        return self.patient.name

    @property
    def currency(self) -> str:
        """The currency of all amounts."""
        return settings().currency


@dataclass(frozen=True)
class Period:
    """The postings of an account in a range of days, oldest first, as the caller may see them.

    `items` are the descriptions of the charges by item. `credit` is that of today. It is None for a doctor,
    who sees the bills of own visits only.
    """

    patient: Patient
    opening_balance: Decimal
    postings: Sequence[LedgerEntry]
    items: Mapping[int, str]
    open_bills: Sequence[Billing]
    credit: Decimal | None

    @property
    def closing_balance(self) -> Decimal:
        """The balance after the last posting."""
        return self.opening_balance + sum((posting.amount for posting in self.postings), ledger.ZERO)


def of_patient(actor: Actor, patient_id: int, *, page: int, per_page: int) -> AccountStatement:
    """Return the account statement of a patient, or raise 404.

    Doctors: bills of their own visits and the entries of these bills only.
    """
    patient = patients.get(actor, patient_id)
    visible_bills, visible_entries = _visible(actor, patient_id)
    entries = db.session.execute(
        select(LedgerEntry)
        .where(visible_entries)
        .options(joinedload(LedgerEntry.billing))
        .order_by(LedgerEntry.occurred_at.desc(), LedgerEntry.id.desc())
        .limit(per_page)
        .offset((page - 1) * per_page)
    ).scalars()
    count = db.session.execute(
        select(func.count()).select_from(LedgerEntry).where(visible_entries)
    ).scalar_one()
    audit_log.record_read("read", "account", [patient_id], [patient_id])
    return AccountStatement(
        patient,
        ledger.of_account(patient_id),
        refunds.of_account(patient_id) if _sees_all(actor) else (),
        _open_bills(actor, visible_bills),
        list(entries),
        count,
    )


def of_period(
    actor: Actor, patient_id: int, *, start_date: date | None = None, end_date: date | None = None
) -> Period:
    """Return the postings of a patient from `start_date` to `end_date`, both included, or raise 404.

    Doctors: as in `of_patient`. Raises 422 for an end before the start, and for too many postings.
    """
    if start_date and end_date and end_date < start_date:
        raise invalid("end_date", "must not be before start_date")
    patient = patients.get(actor, patient_id)
    visible_bills, visible_entries = _visible(actor, patient_id)
    opening_balance = ledger.ZERO
    conditions = [visible_entries]
    if start_date is not None:
        since = clock.day_start(start_date)
        conditions.append(LedgerEntry.occurred_at >= since)
        before = select(ledger.TOTAL).where(visible_entries, LedgerEntry.occurred_at < since)
        opening_balance = db.session.execute(before).scalar_one() or ledger.ZERO
    if end_date is not None:
        conditions.append(LedgerEntry.occurred_at < clock.day_end(end_date))
    statement = (
        select(LedgerEntry)
        .where(*conditions)
        .options(joinedload(LedgerEntry.billing))
        .order_by(LedgerEntry.occurred_at, LedgerEntry.id)
        .limit(MAX_POSTINGS + 1)
    )
    postings = db.session.execute(statement).scalars().all()
    if len(postings) > MAX_POSTINGS:
        raise invalid("start_date", f"more than {MAX_POSTINGS} postings; choose fewer days")
    item_ids = {posting.item_id for posting in postings if posting.item_id}
    audit_log.record_read("read", "account", [patient_id], [patient_id])
    return Period(
        patient,
        opening_balance,
        postings,
        mapping(select(BillingItem.id, BillingItem.description).where(BillingItem.id.in_(item_ids))),
        _open_bills(actor, visible_bills),
        ledger.credit_of(patient_id) if _sees_all(actor) else None,
    )


def _sees_all(actor: Actor) -> bool:
    """Return False for a doctor, who sees the bills of own visits only."""
    return bills.visible_bills(actor) is None


def _visible(actor: Actor, patient_id: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions for the bills and for the ledger entries of a patient that the caller may see."""
    own_bills = bills.visible_bills(actor)
    of_patient = LedgerEntry.patient_id == patient_id
    if own_bills is None:
        return Billing.patient_id == patient_id, of_patient
    visible_bills = and_(Billing.patient_id == patient_id, own_bills)
    return visible_bills, and_(
        of_patient, LedgerEntry.billing_id.in_(select(Billing.id).where(visible_bills))
    )


def _open_bills(actor: Actor, condition: ColumnElement[bool]) -> list[Billing]:
    """Return the bills with a balance, oldest first."""
    with_balance = (
        select(LedgerEntry.billing_id)
        .group_by(LedgerEntry.billing_id)
        .having(func.sum(LedgerEntry.amount) != 0)
    )
    open_bills = list(
        db.session.execute(
            select(Billing)
            .where(condition, Billing.voided_at.is_(None), Billing.id.in_(with_balance))
            .order_by(Billing.created_at, Billing.id)
        )
        .unique()
        .scalars()
    )
    bills.add_computed_fields(actor, open_bills)
    return open_bills
