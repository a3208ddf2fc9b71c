"""Exclusion constraints, append-only triggers, audit chain heads and trigram indexes.

- Appointments of one doctor or of one patient do not overlap. Schedule windows of one weekday do not overlap.
  Intervals are half-open: adjacent appointments do not overlap. Cancelled, missed and overbooked appointments
  do not block.
- The audit log, the ledger, stock movements, addenda and dispensings are append-only.
- The heads of the audit chains exist from the start, and their numbers never decrease.
- On PostgreSQL, trigram indexes serve searches for parts of words.

The constraint names are the same on both engines. PostgreSQL has EXCLUDE constraints and triggers. SQLite has
triggers that raise the constraint name as the message.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHAINS = 16
APPEND_ONLY = ("audit_logs", "audit_subjects", "ledger_entries", "stock_movements", "addenda", "dispensings")
HEADS = "audit_heads"
TRIGRAMS = (
    ("patients", "name_fold"),
    ("patients", "phone_digits"),
    ("doctors", "name_fold"),
    ("inventory_items", "name_fold"),
    ("conditions", "name_fold"),
    ("allergies", "substance_fold"),
)
# constraint name -> (table, columns with equal values, start, end, conditions on the rows that block)
OVERLAPS: dict[str, tuple[str, tuple[str, ...], str, str, tuple[str, ...]]] = {
    "ex_appointments_doctor": (
        "appointments",
        ("doctor_id",),
        "start",
        "blocked_until",
        ("{row}status IN ('scheduled', 'completed')", "NOT {row}overbooked"),
    ),
    "ex_appointments_patient": (
        "appointments",
        ("patient_id",),
        "start",
        '"end"',
        ("{row}status IN ('scheduled', 'completed')",),
    ),
    "ex_schedule_windows_overlap": ("schedule_windows", ("doctor_id", "weekday"), "start", '"end"', ()),
}


def upgrade() -> None:
    """Create the constraints, the triggers and the head of each audit chain."""
    chain, number = sa.column("chain", sa.Integer()), sa.column("number", sa.BigInteger())
    heads = sa.table(HEADS, chain, number, sa.column("mac", sa.String()))
    op.bulk_insert(heads, [{"chain": each, "number": 0, "mac": ""} for each in range(CHAINS)])
    if op.get_context().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def downgrade() -> None:
    """Drop them. The extensions stay: other schemas of this database may use them."""
    if op.get_context().dialect.name == "sqlite":
        _unguard_sqlite()
    else:
        _unguard_postgresql()
    op.execute(f"DELETE FROM {HEADS}")  # noqa: S608


# --- PostgreSQL ----------------------------------------------------------------------------------------


def _guard_postgresql() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    for name, (table, equal, start, end, counted) in OVERLAPS.items():
        stretch = f"tstzrange({start}, {end}, '[)')"
        if table == "schedule_windows":  # PostgreSQL has no range of times: use seconds since midnight
            stretch = f"numrange(extract(epoch FROM {start}), extract(epoch FROM {end}), '[)')"
        parts = ", ".join([f"{column} WITH =" for column in equal] + [f"{stretch} WITH &&"])
        where = f" WHERE ({' AND '.join(counted).format(row='')})" if counted else ""
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} EXCLUDE USING gist ({parts}){where}")
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$
        BEGIN
            RAISE EXCEPTION '%', TG_ARGV[0]
                USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_ARGV[0],
                      TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
        END $$
        """
    )
    for table in (*APPEND_ONLY, HEADS):
        name = f"append_only_{table}"
        refuse = f"EXECUTE FUNCTION refuse_change('{name}')"
        went_back = " WHEN (NEW.number < OLD.number OR NEW.chain <> OLD.chain)" if table == HEADS else ""
        op.execute(f"CREATE TRIGGER {name}_update BEFORE UPDATE ON {table} FOR EACH ROW{went_back} {refuse}")
        op.execute(f"CREATE TRIGGER {name}_delete BEFORE DELETE ON {table} FOR EACH ROW {refuse}")
        op.execute(f"CREATE TRIGGER {name}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {refuse}")
    for table, column in TRIGRAMS:
        op.execute(f"CREATE INDEX ix_{table}_{column}_trgm ON {table} USING gin ({column} gin_trgm_ops)")


def _unguard_postgresql() -> None:
    for table, column in TRIGRAMS:
        op.execute(f"DROP INDEX ix_{table}_{column}_trgm")
    for table in (*APPEND_ONLY, HEADS):
        for event in ("update", "delete", "truncate"):
            op.execute(f"DROP TRIGGER append_only_{table}_{event} ON {table}")
    op.execute("DROP FUNCTION refuse_change()")
    for name, (table, *_) in OVERLAPS.items():
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")


# --- SQLite --------------------------------------------------------------------------------------------


def _guard_sqlite() -> None:
    for name, (table, equal, start, end, counted) in OVERLAPS.items():
        # An AFTER trigger: a new row has no id before.
        clash = [f"other.id <> NEW.id AND other.{start} < NEW.{end} AND NEW.{start} < other.{end}"]
        clash += [f"other.{column} = NEW.{column}" for column in equal]
        clash += [condition.format(row="other.") for condition in counted]
        exists = f"EXISTS (SELECT 1 FROM {table} AS other WHERE {' AND '.join(clash)})"  # noqa: S608
        when = " AND ".join([condition.format(row="NEW.") for condition in counted] + [exists])
        concerned = (*equal, start, end, *(column for column in ("status", "overbooked") if column in when))
        for event, columns in (("insert", ""), ("update", f" OF {', '.join(concerned)}")):
            op.execute(
                f"CREATE TRIGGER {name}_{event} AFTER {event.upper()}{columns} ON {table} WHEN {when} "
                f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
            )
    for table in (*APPEND_ONLY, HEADS):
        name = f"append_only_{table}"
        went_back = " WHEN NEW.number < OLD.number OR NEW.chain <> OLD.chain" if table == HEADS else ""
        for event, when in (("update", went_back), ("delete", "")):
            op.execute(
                f"CREATE TRIGGER {name}_{event} BEFORE {event.upper()} ON {table}{when} "
                f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
            )


def _unguard_sqlite() -> None:
    for name in OVERLAPS:
        for event in ("insert", "update"):
            op.execute(f"DROP TRIGGER {name}_{event}")
    for table in (*APPEND_ONLY, HEADS):
        for event in ("update", "delete"):
            op.execute(f"DROP TRIGGER append_only_{table}_{event}")
