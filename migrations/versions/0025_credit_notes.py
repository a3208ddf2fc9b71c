"""Add the versions of the clinic record, counters of document numbers, and credit notes.

- A bill prints the clinic as it was at the issue of the bill. The content of today becomes the first version.
  It is also the one of existing bills, because earlier contents were not stored.
- The counter of invoice numbers becomes one of several series.
- Existing voids and paid refunds of bills get credit notes, with numbers in the order of their time. The
  credit notes of a bill are never more than its amount.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import flask
import sqlalchemy as sa
from alembic import op
from babel.numbers import get_currency_precision
from sqlalchemy.dialects.postgresql import JSONB

from config import settings

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
VERSIONS = "clinic_record_versions"
CONTENT = (
    "name, legal_name, address, phones, email, website, registration_number, tax_number, bank_details, "
    "invoice_footer, chosen_locale, logo, logo_hash"
)
VERSION_KEY = "CONSTRAINT fk_billings_clinic_version_id"
COUNTERS, NOTES = "document_counters", "credit_notes"
APPEND_ONLY = f"append_only_{NOTES}"
MONEY_TOP = "999999999999"
# Amount and tax of bills before their void: a void reverses the charges first.
BILLS = """
SELECT entry.billing_id, sum(entry.amount),
       sum(CASE WHEN coalesce(reversed.kind, entry.kind) = 'tax' THEN entry.amount ELSE 0 END)
  FROM ledger_entries AS entry
  LEFT JOIN ledger_entries AS reversed ON reversed.id = entry.reverses_id
 WHERE coalesce(reversed.kind, entry.kind) IN ('charge', 'discount', 'tax')
   AND entry.billing_id IN (
       SELECT id FROM billings WHERE voided_at IS NOT NULL
       UNION SELECT billing_id FROM refunds WHERE status = 'approved' AND billing_id IS NOT NULL)
   AND NOT EXISTS (
       SELECT 1 FROM ledger_entries AS void JOIN ledger_entries AS charge ON charge.id = void.reverses_id
        WHERE void.billing_id = entry.billing_id AND charge.kind = 'charge' AND void.id <= entry.id)
 GROUP BY entry.billing_id
"""
# Refunds and voids in the order of their time. A void comes after the refunds of the same instant.
CAUSES = """
SELECT coalesce(refunds.decided_at, refunds.updated_at) AS at, 0 AS is_void, refunds.id AS refund_id,
       refunds.billing_id, billings.patient_id, refunds.amount, refunds.reason,
       refunds.decided_by_id AS user_id
  FROM refunds JOIN billings ON billings.id = refunds.billing_id
 WHERE refunds.status = 'approved'
UNION ALL
SELECT billings.voided_at, 1, NULL, billings.id, billings.patient_id, NULL,
       coalesce(billings.void_reason, 'void'),
       (SELECT min(void.created_by_id)
          FROM ledger_entries AS void JOIN ledger_entries AS charge ON charge.id = void.reverses_id
         WHERE void.billing_id = billings.id AND charge.kind = 'charge')
  FROM billings WHERE voided_at IS NOT NULL
 ORDER BY 1, 2, 3, 4
"""


def upgrade() -> None:
    """Create the tables and the columns, and fill them."""
    _create_versions()
    _create_counters()
    _create_notes()
    _fill_notes()
    _refuse_changes()


def downgrade() -> None:
    """Remove the columns and the tables. The credit notes are lost."""
    op.drop_table(NOTES)
    op.create_table(
        "invoice_counters",
        sa.Column("year", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("year", name="pk_invoice_counters"),
    )
    counters = f"SELECT year, last_number FROM {COUNTERS} WHERE series = 'INV'"  # noqa: S608
    op.execute(f"INSERT INTO invoice_counters (year, last_number) {counters}")
    op.drop_table(COUNTERS)
    op.drop_column("billings", "clinic_version_id")
    op.drop_table(VERSIONS)


def _create_versions() -> None:
    op.create_table(
        VERSIONS,
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("legal_name", sa.String(200), nullable=True),
        sa.Column("address", sa.String(500), nullable=True),
        sa.Column("phones", JSON, nullable=False),
        sa.Column("email", sa.String(254), nullable=True),
        sa.Column("website", sa.String(500), nullable=True),
        sa.Column("registration_number", sa.String(100), nullable=True),
        sa.Column("tax_number", sa.String(100), nullable=True),
        sa.Column("bank_details", sa.Text(), nullable=True),
        sa.Column("invoice_footer", sa.Text(), nullable=True),
        sa.Column("chosen_locale", sa.String(35), nullable=True),
        sa.Column("logo", sa.LargeBinary(), nullable=True),
        sa.Column("logo_hash", sa.String(64), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{VERSIONS}"),
    )
    columns = f"{CONTENT}, created_at"
    values = f"{CONTENT}, updated_at"
    op.execute(f"INSERT INTO {VERSIONS} ({columns}) SELECT {values} FROM clinic_record")  # noqa: S608
    _add_version_to_bills()


def _add_version_to_bills() -> None:
    """Add the column with the first version, whose id is 1 in the new table."""
    column, version = "clinic_version_id", f"{VERSION_KEY} REFERENCES {VERSIONS} (id)"
    if op.get_context().dialect.name != "sqlite":
        # a constant default is no rewrite of millions of rows
        op.execute(f"ALTER TABLE billings ADD COLUMN {column} BIGINT DEFAULT 1 NOT NULL {version}")
        # the server is stopped during a migration
        ignored = "-- squawk-ignore ban-drop-default"
        op.execute(f"{ignored}\nALTER TABLE billings ALTER COLUMN {column} DROP DEFAULT")
        return
    # SQLite adds a reference only as a column without a value. Then the definition is changed, and the rows
    # stay as they are (https://www.sqlite.org/lang_altertable.html, section 7).
    op.execute(f"ALTER TABLE billings ADD COLUMN {column} INTEGER {version}")
    op.execute(f"UPDATE billings SET {column} = 1")  # noqa: S608
    connection = op.get_bind()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'billings'",
        (f"{column} INTEGER {VERSION_KEY}", f"{column} INTEGER NOT NULL {VERSION_KEY}"),
    )
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def _create_counters() -> None:
    op.create_table(
        COUNTERS,
        sa.Column("series", sa.String(10), nullable=False),
        sa.Column("year", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("series", "year", name=f"pk_{COUNTERS}"),
    )
    counters = "SELECT 'INV', year, last_number FROM invoice_counters"
    op.execute(f"INSERT INTO {COUNTERS} (series, year, last_number) {counters}")
    # its rows were copied, and the server is stopped during a migration
    op.execute("-- squawk-ignore ban-drop-table\nDROP TABLE invoice_counters")


# --- Credit notes --------------------------------------------------------------------------------------


def _reference(name: str, target: str, *, nullable: bool = False) -> sa.Column[int]:
    key = sa.ForeignKey(f"{target}.id", name=f"fk_{NOTES}_{name}")
    return sa.Column(name, BIG_ID, key, nullable=nullable)


def _create_notes() -> None:
    money = sa.Numeric(12, 2).with_variant(sa.BigInteger(), "sqlite")
    op.create_table(
        NOTES,
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("number", sa.String(30), nullable=False),
        _reference("billing_id", "billings"),
        _reference("patient_id", "patients"),
        _reference("refund_id", "refunds", nullable=True),
        sa.Column("amount", money, nullable=False),
        sa.Column("tax", money, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        _reference("created_by_id", "users", nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        _reference("clinic_version_id", VERSIONS),
        sa.PrimaryKeyConstraint("id", name=f"pk_{NOTES}"),
        sa.UniqueConstraint("number", name=f"uq_{NOTES}_number"),
        sa.UniqueConstraint("refund_id", name=f"uq_{NOTES}_refund_id"),
        sa.CheckConstraint(f"amount > 0 AND amount <= {MONEY_TOP}", name=op.f(f"ck_{NOTES}_amount_range")),
        sa.CheckConstraint(f"tax >= 0 AND tax <= {MONEY_TOP}", name=op.f(f"ck_{NOTES}_tax_range")),
        sa.CheckConstraint("tax <= amount", name=op.f(f"ck_{NOTES}_tax_within_amount")),
    )
    op.create_index(f"ix_{NOTES}_billing_id", NOTES, ["billing_id"])
    op.create_index(f"ix_{NOTES}_patient_id", NOTES, ["patient_id"])
    is_of_void = sa.text("refund_id IS NULL")
    op.create_index(
        f"uq_{NOTES}_void",
        NOTES,
        ["billing_id"],
        unique=True,
        postgresql_where=is_of_void,
        sqlite_where=is_of_void,
    )


def _refuse_changes() -> None:
    if op.get_context().dialect.name == "sqlite":
        for event in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {APPEND_ONLY}_{event} BEFORE {event.upper()} ON {NOTES} "
                f"BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END"
            )
        return
    refuse = f"EXECUTE FUNCTION refuse_change('{APPEND_ONLY}')"
    for event, extent in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER {APPEND_ONLY}_{event} BEFORE {event.upper()} ON {NOTES} "
            f"FOR EACH {extent} {refuse}"
        )


def _fill_notes() -> None:
    connection = op.get_bind()
    if op.get_context().as_sql:
        return
    unit = _smallest_amount(connection)
    bills = {row[0]: (row[1], row[2]) for row in connection.execute(sa.text(BILLS))}
    rows = list(_notes(connection.execute(sa.text(CAUSES)).mappings(), bills, unit))
    if not rows:
        return
    version = connection.execute(sa.text(f"SELECT max(id) FROM {VERSIONS}")).scalar_one()  # noqa: S608
    names = [*rows[0], "clinic_version_id"]
    table = sa.table(NOTES, *map(sa.column, names))
    connection.execute(table.insert(), [row | {"clinic_version_id": version} for row in rows])
    counters = sa.table(COUNTERS, *map(sa.column, ("series", "year", "last_number")))
    last = Counter(int(row["number"].split("-")[1]) for row in rows)
    connection.execute(
        counters.insert(),
        [{"series": "CRN", "year": year, "last_number": count} for year, count in last.items()],
    )


def _notes(causes: Any, bills: dict[int, tuple[Any, Any]], unit: Decimal) -> Iterator[dict[str, Any]]:
    """Yield the credit note of each cause for which a part of its bill is left."""
    zone = ZoneInfo(settings().clinic_timezone if flask.has_app_context() else "UTC")
    numbers: Counter[int] = Counter()
    credited: dict[int, tuple[Decimal, Decimal]] = {}
    for cause in causes:
        bill_id = cause["billing_id"]
        amount, tax = map(Decimal, bills.get(bill_id, (0, 0)))
        before, tax_before = credited.get(bill_id, (Decimal(0), Decimal(0)))
        part = amount - before
        if not cause["is_void"]:
            part = min(part, Decimal(cause["amount"]))
        if part <= 0:
            continue
        tax_after = (tax * (before + part) / amount).quantize(unit, rounding=ROUND_HALF_UP)
        credited[bill_id] = (before + part, tax_after)
        year = _instant(cause["at"]).astimezone(zone).year
        numbers[year] += 1
        yield {
            "number": f"CRN-{year}-{numbers[year]:06d}",
            "billing_id": bill_id,
            "patient_id": cause["patient_id"],
            "refund_id": cause["refund_id"],
            "amount": _stored(part),
            "tax": _stored(tax_after - tax_before),
            "reason": cause["reason"],
            "created_by_id": cause["user_id"],
            "created_at": cause["at"],
        }


def _smallest_amount(connection: sa.Connection) -> Decimal:
    """Return the smallest amount of the currency, as the engine stores it. SQLite stores cents."""
    code = connection.execute(sa.text("SELECT code FROM ledger_currency")).scalar()
    places = min(get_currency_precision(code), 2) if code else 2
    return Decimal(1).scaleb((2 if connection.dialect.name == "sqlite" else 0) - places)


def _stored(amount: Decimal) -> Decimal | int:
    return int(amount) if op.get_context().dialect.name == "sqlite" else amount


def _instant(value: datetime | str) -> datetime:
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
