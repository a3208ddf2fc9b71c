"""Account statements: the balance of a patient, the open bills, and the ledger entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import joinedload

from config import settings
from extensions import db
from models import Billing, LedgerEntry, Patient, Refund
from security.permissions import Actor
from services.audit import audit_log
from services.billing import bills, ledger, refunds
from services.patients import patients


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


def of_patient(actor: Actor, patient_id: int, *, page: int, per_page: int) -> AccountStatement:
    """Return the account statement of a patient, or raise 404.

    Doctors: bills of their own visits and the entries of these bills only.
    """
    patient = patients.get(actor, patient_id)
    visible_bills = [Billing.patient_id == patient_id]
    visible_entries: list[ColumnElement[bool]] = [LedgerEntry.patient_id == patient_id]
    own_bills = bills.visible_bills(actor)
    if own_bills is not None:
        visible_bills.append(own_bills)
        visible_entries.append(LedgerEntry.billing_id.in_(select(Billing.id).where(*visible_bills)))
    entries = db.session.execute(
        select(LedgerEntry)
        .where(*visible_entries)
        .options(joinedload(LedgerEntry.billing))
        .order_by(LedgerEntry.occurred_at.desc(), LedgerEntry.id.desc())
        .limit(per_page)
        .offset((page - 1) * per_page)
    ).scalars()
    count = db.session.execute(
        select(func.count()).select_from(LedgerEntry).where(*visible_entries)
    ).scalar_one()
    audit_log.record_read("read", "account", [patient_id], [patient_id])
    return AccountStatement(
        patient,
        ledger.of_account(patient_id),
        refunds.of_account(patient_id) if own_bills is None else (),
        _open_bills(actor, and_(*visible_bills)),
        list(entries),
        count,
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
