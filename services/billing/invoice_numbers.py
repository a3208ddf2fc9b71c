"""Invoice numbers: consecutive within a year of the clinic, without gaps."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm.attributes import set_committed_value

from database.functions import insert_or_update
from extensions import db
from models import Billing, InvoiceCounter


def set_invoice_number(bill: Billing) -> None:
    """Set the next invoice number on a new bill, as the last step of its creation.

    The counter of the year is locked until the commit, so that a rollback leaves no gap. Until then, every
    other new bill waits.
    """
    number = _next_number(bill.date.year)
    # not through the session: the number must not raise the version of the new bill
    db.session.connection().execute(
        update(Billing).where(Billing.id == bill.id).values(invoice_number=number)
    )
    set_committed_value(bill, "invoice_number", number)


def _next_number(year: int) -> str:
    statement = insert_or_update(
        db.session.connection(),
        InvoiceCounter,
        key={"year": year},
        new={"last_number": 1},
        changes={"last_number": InvoiceCounter.last_number + 1},
    ).returning(InvoiceCounter.last_number)
    number = db.session.execute(statement).scalar_one()
    return f"INV-{year}-{number:06d}"
