"""Statements of account: what a patient owes, and the ledger rows that say why."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import joinedload

from extensions import db
from models import Billing, LedgerEntry, Patient
from security.permissions import Actor
from services.audit import audit_log
from services.billing import bills, ledger
from services.patients import patients

NOTHING = Decimal("0.00")


@dataclass(frozen=True)
class Statement:
    """A patient's account as the caller may see it; `entries` is one page of the ledger, newest first."""

    patient: Patient
    account_balance: Decimal
    open_bills: list[Billing]
    entries: list[LedgerEntry]
    entry_count: int

    @property
    def patient_id(self) -> int:
        """Whose account it is."""
        return self.patient.id

    @property
    def patient_name(self) -> str:
        """Whose account it is."""
        return self.patient.name

    @property
    def credit(self) -> Decimal:
        """What the clinic owes the patient."""
        return max(-self.account_balance, NOTHING)


def of_patient(actor: Actor, patient_id: int, *, page: int, per_page: int) -> Statement:
    """The patient's account, or 404. A doctor sees the bills of own visits, and their ledger rows."""
    patient = patients.get(actor, patient_id)
    bills = [Billing.patient_id == patient_id]
    rows: list[ColumnElement[bool]] = [LedgerEntry.patient_id == patient_id]
    own = own_bills(actor)
    if own is not None:
        bills.append(own)
        rows.append(LedgerEntry.billing_id.in_(select(Billing.id).where(*bills)))
    entries = db.session.execute(
        select(LedgerEntry)
        .where(*rows)
        .options(joinedload(LedgerEntry.billing))
        .order_by(LedgerEntry.occurred_at.desc(), LedgerEntry.id.desc())
        .limit(per_page)
        .offset((page - 1) * per_page)
    ).scalars()
    count = db.session.execute(select(func.count()).select_from(LedgerEntry).where(*rows)).scalar_one()
    audit_log.record_read("read", "account", [patient_id], [patient_id])
    return Statement(
        patient,
        ledger.balances([patient_id]).get(patient_id, NOTHING),
        _open(actor, and_(*bills)),
        list(entries),
        count,
    )


def own_bills(actor: Actor) -> ColumnElement[bool] | None:
    """Which bills a doctor may see; None for roles that are not bound to their own."""
    scope = bills.LIST.scope
    return scope(actor) if scope is not None else None


def _open(actor: Actor, wanted: ColumnElement[bool]) -> list[Billing]:
    """The bills whose ledger rows do not sum to nothing, oldest first."""
    sums: Any = (
        select(LedgerEntry.billing_id)
        .group_by(LedgerEntry.billing_id)
        .having(func.sum(LedgerEntry.amount) != 0)
    )
    found = list(
        db.session.execute(
            select(Billing)
            .where(wanted, Billing.voided_at.is_(None), Billing.id.in_(sums))
            .order_by(Billing.created_at, Billing.id)
        )
        .unique()
        .scalars()
    )
    bills.add_computed_fields(actor, found)
    return found
