"""Indexes for a clinic with a million patients: no daily query scans a large table.

- Indexes for lists in date order, and for the columns of creator, signer and restock date.
- On PostgreSQL, trigram indexes for searches for parts of numbers, addresses and medicine names.
- The table of settled bills, updated by a trigger on the ledger. Queries for open bills sum only the others.
- The doctor of a ledger entry, and a covering index for the revenue report.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STANDINGS = "billing_standings"
INDEXES = {
    "ix_patients_created_at": ("patients", ["created_at"]),
    "ix_treatments_created_at": ("treatments", ["created_at"]),
    "ix_prescriptions_issued_at": ("prescriptions", ["issued_at"]),
    "ix_stock_movements_item_type_created": ("stock_movements", ["item_id", "type", "created_at"]),
    "ix_appointments_created_by_id": ("appointments", ["created_by_id"]),
    "ix_visits_signed_by_id": ("visits", ["signed_by_id"]),
    "ix_visits_appointment_id": ("visits", ["appointment_id"]),
    "ix_billings_created_by_id": ("billings", ["created_by_id"]),
}
# Columns with a search for parts of the text, without regard to case.
TRIGRAMS = (
    ("patients", "file_number"),
    ("patients", "email"),
    ("patients", "insurance_id"),
    ("patients", "insurance_provider"),
    ("appointments", "reason"),
    ("treatments", "name"),
    ("treatments", "procedure_code"),
    ("prescriptions", "details"),
    ("prescribed_medications", "name"),
    ("billings", "invoice_number"),
    ("billings", "insurer_reference"),
)
# Trigram indexes of migration 0002.
OLDER_TRIGRAMS = (
    ("patients", "name_fold"),
    ("patients", "phone_digits"),
    ("doctors", "name_fold"),
    ("inventory_items", "name_fold"),
    ("conditions", "name_fold"),
    ("allergies", "substance_fold"),
)
# Each search reads the pending list of a GIN index. This is its maximum size in kB. The default of 4 MB takes
# milliseconds per search.
PENDING = "gin_pending_list_limit"
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
GUARD = "append_only_ledger_entries"
SUMMED = ["kind", "amount", "method", "doctor_id", "reverses_id"]
SETTLED = "CASE WHEN sum(amount) = 0 THEN max(occurred_at) END"


def upgrade() -> None:
    """Create the indexes and the table of settled bills, and fill it from the ledger."""
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)
    op.create_table(
        STANDINGS,
        sa.Column("billing_id", BIG_ID, nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("billing_id", name=f"pk_{STANDINGS}"),
        sa.ForeignKeyConstraint(["billing_id"], ["billings.id"], name=f"fk_{STANDINGS}_billing_id"),
    )
    op.create_index(f"ix_{STANDINGS}_settled_at", STANDINGS, ["settled_at"])
    op.add_column("ledger_entries", sa.Column("doctor_id", BIG_ID, nullable=True))
    _set_doctors()
    op.drop_index("ix_ledger_entries_occurred_kind", "ledger_entries")
    op.create_index(
        "ix_ledger_entries_occurred_at", "ledger_entries", ["occurred_at"], postgresql_include=SUMMED
    )
    op.execute(
        f"INSERT INTO {STANDINGS} SELECT billing_id, {SETTLED} FROM ledger_entries "  # noqa: S608
        "WHERE billing_id IS NOT NULL GROUP BY billing_id"
    )
    if op.get_context().dialect.name == "sqlite":
        _create_trigger_sqlite()
    else:
        _create_indexes_and_trigger_postgresql()


def downgrade() -> None:
    """Restore the previous schema."""
    op.execute(
        "DROP TRIGGER settle_billings"
        + ("" if op.get_context().dialect.name == "sqlite" else " ON ledger_entries")
    )
    if op.get_context().dialect.name != "sqlite":
        op.execute("DROP FUNCTION settle_billings()")
        for table, column in TRIGRAMS:
            op.execute(f"DROP INDEX ix_{table}_{column}_trgm")
        for table, column in OLDER_TRIGRAMS:
            op.execute(f"ALTER INDEX ix_{table}_{column}_trgm RESET ({PENDING})")
    op.drop_table(STANDINGS)
    op.drop_index("ix_ledger_entries_occurred_at", "ledger_entries")
    op.drop_column("ledger_entries", "doctor_id")
    op.create_index("ix_ledger_entries_occurred_kind", "ledger_entries", ["occurred_at", "kind"])
    for name, (table, _columns) in INDEXES.items():
        op.drop_index(name, table)


def _set_doctors() -> None:
    """Copy the doctor of the bill to existing entries, with the append-only trigger disabled."""
    statement = (
        "UPDATE ledger_entries SET doctor_id = billings.doctor_id FROM billings "
        "WHERE billings.id = ledger_entries.billing_id AND billings.doctor_id IS NOT NULL"
    )
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"DROP TRIGGER {GUARD}_update")
        op.execute(statement)
        op.execute(
            f"CREATE TRIGGER {GUARD}_update BEFORE UPDATE ON ledger_entries "
            f"BEGIN SELECT RAISE(ABORT, '{GUARD}'); END"
        )
    else:
        op.execute(f"ALTER TABLE ledger_entries DISABLE TRIGGER {GUARD}_update")
        op.execute(statement)
        op.execute(f"ALTER TABLE ledger_entries ENABLE TRIGGER {GUARD}_update")


def _create_trigger_sqlite() -> None:
    op.execute(
        f"""
        CREATE TRIGGER settle_billings AFTER INSERT ON ledger_entries WHEN NEW.billing_id IS NOT NULL BEGIN
            INSERT INTO {STANDINGS} (billing_id, settled_at)
            SELECT billing_id, {SETTLED}
              FROM ledger_entries
             WHERE billing_id = NEW.billing_id
             GROUP BY billing_id
                ON CONFLICT (billing_id) DO UPDATE SET settled_at = excluded.settled_at;
        END
        """  # noqa: S608
    )


def _create_indexes_and_trigger_postgresql() -> None:
    for table, column in TRIGRAMS:
        name = f"ix_{table}_{column}_trgm"
        op.execute(f"CREATE INDEX {name} ON {table} USING gin ({column} gin_trgm_ops) WITH ({PENDING} = 128)")
    for table, column in OLDER_TRIGRAMS:
        op.execute(f"ALTER INDEX ix_{table}_{column}_trgm SET ({PENDING} = 128)")
    # The trigger runs once per statement. A transaction that posts to a bill holds the lock of the bill.
    op.execute(
        f"""
        CREATE FUNCTION settle_billings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN
            INSERT INTO {STANDINGS} AS standing (billing_id, settled_at)
            SELECT billing_id, {SETTLED}
              FROM ledger_entries
             WHERE billing_id IN (SELECT billing_id FROM posted)
             GROUP BY billing_id
                ON CONFLICT (billing_id) DO UPDATE SET settled_at = excluded.settled_at
             WHERE standing.settled_at IS DISTINCT FROM excluded.settled_at;
            RETURN NULL;
        END $$
        """  # noqa: S608
    )
    op.execute(
        "CREATE TRIGGER settle_billings AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS posted "
        "FOR EACH STATEMENT EXECUTE FUNCTION settle_billings()"
    )
