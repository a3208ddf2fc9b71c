"""Invoice numbers: consecutive within a year of the clinic, without gaps."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm.attributes import set_committed_value

from extensions import db
from models import Billing, InvoiceCounter
from services import clock


def set_invoice_number(bill: Billing) -> None:
    """Set the next invoice number on a new bill, as the last step of its creation.

    The counter of the year is locked until the commit, so that a rollback leaves no gap. Until then, every
    other new bill waits.
    """
    number = _next_number(clock.local(bill.created_at).year)
    # not through the session: the number must not raise the version of the new bill
    db.session.connection().execute(
        update(Billing).where(Billing.id == bill.id).values(invoice_number=number)
    )
    set_committed_value(bill, "invoice_number", number)


def _next_number(year: int) -> str:
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
