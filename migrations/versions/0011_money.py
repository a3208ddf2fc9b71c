"""Methods of refunds, refunds of credit, debts to insurers, withdrawn claims, dates of bills, the currency.

- A refund has a method and a patient. A refund of credit has no bill.
- Earlier refunds get their method where the ledger shows it without doubt. Otherwise it stays empty.
- Earlier bills get the day of their creation, in the time zone of the clinic, as their date.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import flask
import sqlalchemy as sa
from alembic import op

from config import settings

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
METHODS = ("cash", "card", "mobile_money", "bank_transfer", "cheque", "insurance", "credit", "other")
KINDS = (
    *("charge", "tax", "discount", "payment", "insurance_payment", "credit", "refund", "write_off"),
    "reversal",
)
STATUSES = ("draft", "submitted", "approved", "partially_approved", "denied", "resubmitted", "paid")
# table, column, constraint, values before, new value
ENUMS = (
    ("ledger_entries", "kind", "ck_ledger_entries_ledgerkind", KINDS, "insurer_debt"),
    ("claims", "status", "ck_claims_claimstatus", STATUSES, "withdrawn"),
)
# columns of `refunds` that do not change
REFUND_COLUMNS = (
    "id, payment_id, entry_id, amount, reason, status, requested_by_id, decided_by_id, decided_at, "
    "created_at, updated_at"
)
# rows that the earlier schema cannot hold
NEW_ROWS = (
    "SELECT 1 FROM ledger_entries WHERE kind = 'insurer_debt'",
    "SELECT 1 FROM claims WHERE status = 'withdrawn'",
    "SELECT 1 FROM refunds WHERE billing_id IS NULL",
)
PAYMENTS = "('payment', 'insurance_payment', 'credit')"
# The method of the ledger entry of an approved refund, unless more was refunded by it than paid by it.
APPROVED_METHOD = """
UPDATE refunds SET method = (SELECT method FROM ledger_entries WHERE id = refunds.entry_id)
 WHERE status = 'approved'
   AND (SELECT sum(paid_back.amount)
          FROM ledger_entries AS entry JOIN ledger_entries AS paid_back
            ON paid_back.billing_id = entry.billing_id AND paid_back.method = entry.method
           AND paid_back.kind = 'refund'
         WHERE entry.id = refunds.entry_id)
    <= (SELECT -sum(payment.amount)
          FROM ledger_entries AS entry JOIN ledger_entries AS payment
            ON payment.billing_id = entry.billing_id AND payment.method = entry.method
           AND payment.kind IN ('payment', 'insurance_payment')
         WHERE entry.id = refunds.entry_id)
"""
# The method of the payment to refund, or the only method of the bill.
OTHER_METHOD = f"""
UPDATE refunds SET method = coalesce(
    (SELECT method FROM ledger_entries WHERE id = refunds.payment_id),
    (SELECT CASE WHEN count(DISTINCT method) = 1 THEN min(method) END
       FROM ledger_entries
      WHERE billing_id = refunds.billing_id AND kind IN {PAYMENTS} AND amount < 0))
 WHERE status <> 'approved'
"""  # noqa: S608


def upgrade() -> None:
    """Create the table, the columns and the values, and fill them."""
    op.create_table(
        "ledger_currency",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("code", sa.String(3), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_currency"),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_currency_one_row")),
    )
    op.add_column("billings", sa.Column("date", sa.Date(), nullable=True))
    _set_dates()
    if op.get_context().dialect.name == "sqlite":
        for table, column, _name, values, new in ENUMS:
            _rewrite_sqlite(table, _check(column, values), _check(column, (*values, new)))
        _rewrite_sqlite("billings", ", date DATE,", ", date DATE NOT NULL,")
        _recreate_refunds_sqlite(upgraded=True)
    else:
        for table, column, name, values, new in ENUMS:
            op.drop_constraint(op.f(name), table, type_="check")
            op.create_check_constraint(op.f(name), table, _check(column, (*values, new)))
        op.alter_column("billings", "date", nullable=False)
        _change_refunds_postgresql()
    op.create_index("ix_billings_date", "billings", ["date"])
    op.create_index("ix_refunds_patient_id", "refunds", ["patient_id"])
    op.execute(APPROVED_METHOD)
    op.execute(OTHER_METHOD)


def downgrade() -> None:
    """Restore the previous schema. This fails if a row uses a new value."""
    op.drop_index("ix_refunds_patient_id", "refunds")
    op.drop_index("ix_billings_date", "billings")
    if op.get_context().dialect.name == "sqlite":
        if any(op.get_bind().exec_driver_sql(query).first() for query in NEW_ROWS):
            raise RuntimeError(
                "the earlier schema has no debts to insurers, withdrawn claims, refunds of credit"
            )
        for table, column, _name, values, new in ENUMS:
            _rewrite_sqlite(table, _check(column, (*values, new)), _check(column, values))
        _recreate_refunds_sqlite(upgraded=False)
    else:
        for table, column, name, values, _new in ENUMS:
            op.drop_constraint(op.f(name), table, type_="check")
            op.create_check_constraint(op.f(name), table, _check(column, values))
        op.alter_column("refunds", "billing_id", nullable=False)
        op.drop_column("refunds", "method")
        op.drop_column("refunds", "patient_id")
    op.drop_column("billings", "date")
    op.drop_table("ledger_currency")


def _check(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _set_dates() -> None:
    """Set the date of existing bills: the day of their creation, in the time zone of the clinic."""
    zone = settings().clinic_timezone if flask.has_app_context() else "UTC"
    if op.get_context().dialect.name == "sqlite":

        def day_of(created_at: str) -> str:
            instant = datetime.fromisoformat(created_at).replace(tzinfo=UTC)
            return instant.astimezone(ZoneInfo(zone)).date().isoformat()

        op.get_bind().connection.driver_connection.create_function("clinic_day", 1, day_of)
        op.execute("UPDATE billings SET date = clinic_day(created_at)")
    else:
        op.execute(f"UPDATE billings SET date = (created_at AT TIME ZONE '{zone}')::date")  # noqa: S608


# --- PostgreSQL ----------------------------------------------------------------------------------------


def _change_refunds_postgresql() -> None:
    op.add_column("refunds", sa.Column("patient_id", BIG_ID, nullable=True))
    op.add_column("refunds", sa.Column("method", sa.String(30), nullable=True))
    op.execute(
        "UPDATE refunds SET patient_id = billings.patient_id FROM billings "
        "WHERE billings.id = refunds.billing_id"
    )
    op.alter_column("refunds", "patient_id", nullable=False)
    op.alter_column("refunds", "billing_id", nullable=True)
    op.create_foreign_key("fk_refunds_patient_id", "refunds", "patients", ["patient_id"], ["id"])
    op.create_check_constraint(op.f("ck_refunds_paymentmethod"), "refunds", _check("method", METHODS))


# --- SQLite --------------------------------------------------------------------------------------------


def _rewrite_sqlite(table: str, old: str, new: str) -> None:
    """Change a constraint in the stored definition of a table.

    The rows stay as they are (https://www.sqlite.org/lang_altertable.html, section 7). A copy of the table
    would fire the append-only triggers and break the foreign keys of other tables.
    """
    connection = op.get_bind()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?",
        (old, new, table),
    )
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def _recreate_refunds_sqlite(*, upgraded: bool) -> None:
    """Copy the refunds to a table with the columns of this revision, or of the one before."""
    for index in ("ix_refunds_billing_id", "ix_refunds_status"):
        op.drop_index(index, "refunds")
    op.rename_table("refunds", "moved")
    references = {"billing_id": "billings", "payment_id": "ledger_entries", "entry_id": "ledger_entries"}
    references |= {"requested_by_id": "users", "decided_by_id": "users"}
    added: list[sa.schema.SchemaItem] = []
    copied = f"{REFUND_COLUMNS}, billing_id"
    values = copied
    if upgraded:
        references["patient_id"] = "patients"
        added = [
            sa.Column("patient_id", BIG_ID, nullable=False),
            sa.Column("method", sa.String(30), nullable=True),
            sa.CheckConstraint(_check("method", METHODS), name=op.f("ck_refunds_paymentmethod")),
        ]
        copied += ", patient_id"
        values += ", (SELECT patient_id FROM billings WHERE billings.id = moved.billing_id)"
    op.create_table(
        "refunds",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("billing_id", BIG_ID, nullable=upgraded),
        sa.Column("payment_id", BIG_ID, nullable=True),
        sa.Column("entry_id", BIG_ID, nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("status", sa.String(30), nullable=False),
        sa.Column("requested_by_id", BIG_ID, nullable=False),
        sa.Column("decided_by_id", BIG_ID, nullable=True),
        *(
            sa.Column(name, sa.DateTime(timezone=True), nullable=name == "decided_at")
            for name in ("decided_at", "created_at", "updated_at")
        ),
        *added,
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.CheckConstraint("amount > 0 AND amount <= 999999999999", name=op.f("ck_refunds_amount_range")),
        sa.CheckConstraint(
            _check("status", ("requested", "approved", "rejected")), name=op.f("ck_refunds_refundstatus")
        ),
        *(
            sa.ForeignKeyConstraint([column], [f"{table}.id"], name=f"fk_refunds_{column}")
            for column, table in references.items()
        ),
    )
    op.execute(f"INSERT INTO refunds ({copied}) SELECT {values} FROM moved")  # noqa: S608
    op.drop_table("moved")
    for column in ("billing_id", "status"):
        op.create_index(f"ix_refunds_{column}", "refunds", [column])
