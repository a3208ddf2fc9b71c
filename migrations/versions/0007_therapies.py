"""Decimal quantities with units, stopped therapies, and the last day of each therapy.

`ends_on` of stored medications is computed from UTC days: a migration does not know the zone of the clinic.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateIndex, CreateTable

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MEDICATIONS, DISPENSINGS = "prescribed_medications", "dispensings"
QUANTITY = sa.Numeric(12, 3).with_variant(
    sa.BigInteger(), "sqlite"
)  # SQLite has no decimal type: thousandths
SCALE = 1000
TOP = "999999999999"
COLUMNS = {MEDICATIONS: ("quantity", "dispensed"), DISPENSINGS: ("quantity",)}
# table -> constraint -> (condition after the upgrade, condition before)
CHECKS = {
    MEDICATIONS: {
        "quantity_positive": (f"quantity > 0 AND quantity <= {TOP}", "quantity > 0"),
        "dispensed_range": (
            f"dispensed >= 0 AND dispensed <= {TOP} "
            "AND (quantity IS NULL OR dispensed <= quantity * (1 + refills))",
            "dispensed >= 0 AND (quantity IS NULL OR dispensed <= quantity * (1 + refills))",
        ),
    },
    DISPENSINGS: {"quantity_positive": (f"quantity > 0 AND quantity <= {TOP}", "quantity > 0")},
}

# A dispensing begins at its day or at the end of the earlier supply. So the end of the supply is a maximum
# over the dispensings: the day, plus the days of this dispensing and of all later ones.
SET_ENDS = """
WITH totals AS (
    SELECT medication_id, {created_on} AS day,
           sum(quantity) OVER (PARTITION BY medication_id ORDER BY id DESC) AS total
      FROM dispensings
), supplies AS (
    SELECT m.id, max({dispensed_until}) AS ends_on
      FROM totals JOIN prescribed_medications AS m ON m.id = totals.medication_id
     WHERE m.duration_days IS NOT NULL
     GROUP BY m.id
), ends AS (
    SELECT m.id, p.expires_on, coalesce(supplies.ends_on, {issued_until}) AS supply_ends_on
      FROM prescribed_medications AS m
      JOIN prescriptions AS p ON p.id = m.prescription_id
      LEFT JOIN supplies ON supplies.id = m.id
)
UPDATE prescribed_medications
   SET ends_on = coalesce(
           {latest}(ends.expires_on, ends.supply_ends_on), ends.expires_on, ends.supply_ends_on
       )
  FROM ends
 WHERE ends.id = prescribed_medications.id
"""
SQLITE = {
    "created_on": "date(created_at)",
    "dispensed_until": (
        "date(totals.day, '+' || ((m.duration_days * totals.total + m.quantity - 1) / m.quantity) || ' days')"
    ),
    "issued_until": "date(p.issued_at, '+' || m.duration_days || ' days')",
    "latest": "max",
}
POSTGRESQL = {
    "created_on": "CAST(created_at AT TIME ZONE 'UTC' AS date)",
    "dispensed_until": "totals.day + CAST(ceil(m.duration_days * totals.total / m.quantity) AS integer)",
    "issued_until": "CAST(p.issued_at AT TIME ZONE 'UTC' AS date) + m.duration_days",
    "latest": "greatest",
}


def upgrade() -> None:
    """Change the quantities to decimals, add the columns, and compute the last day of each therapy."""
    op.add_column("prescriptions", sa.Column("stopped_at", sa.DateTime(timezone=True)))
    op.add_column("prescriptions", sa.Column("stop_reason", sa.String(500)))
    if op.get_context().dialect.name == "sqlite":
        _recreate_tables(new=True)
        op.execute(SET_ENDS.format(**SQLITE))
    else:
        _change_types(new=True)
        op.add_column(MEDICATIONS, sa.Column("unit", sa.String(100)))
        op.add_column(MEDICATIONS, sa.Column("ends_on", sa.Date()))
        op.execute(SET_ENDS.format(**POSTGRESQL))


def downgrade() -> None:
    """Restore whole quantities. This fails if a quantity has a fraction."""
    _refuse_fractions()
    if op.get_context().dialect.name == "sqlite":
        _recreate_tables(new=False)
    else:
        op.drop_column(MEDICATIONS, "ends_on")
        op.drop_column(MEDICATIONS, "unit")
        _change_types(new=False)
    op.drop_column("prescriptions", "stop_reason")
    op.drop_column("prescriptions", "stopped_at")


def _refuse_fractions() -> None:
    if context.is_offline_mode():
        return
    scale = SCALE if op.get_context().dialect.name == "sqlite" else 1
    for table, columns in COLUMNS.items():
        for column in columns:
            fractions = f"SELECT count(*) FROM {table} WHERE {column} % {scale} <> 0"  # noqa: S608
            if op.get_bind().execute(sa.text(fractions)).scalar_one():
                raise RuntimeError(f"{table}.{column} has fractions, which the older schema cannot store")


def _change_types(*, new: bool) -> None:
    """Change the columns and their constraints on PostgreSQL."""
    for table, columns in COLUMNS.items():
        for check in CHECKS[table]:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{check}")
        for column in columns:
            kind = "NUMERIC(12, 3)" if new else f"INTEGER USING CAST({column} AS INTEGER)"
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind}")
        for check, (after, before) in CHECKS[table].items():
            condition = after if new else before
            op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_{check} CHECK ({condition})")


def _recreate_tables(*, new: bool) -> None:
    """Copy the rows to new tables: SQLite cannot change a type or a constraint.

    The tables with references to another one are dropped before it and created after it.
    """
    metadata = sa.MetaData(naming_convention=_initial_tables().naming_convention)
    for table in _initial_tables().sorted_tables:
        table.to_metadata(metadata)
    stored: dict[str, list[str]] = {}
    for name in (DISPENSINGS, MEDICATIONS):
        stored[name] = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(name)]
        op.execute(f"CREATE TABLE moved_{name} AS SELECT * FROM {name}")  # noqa: S608
        op.drop_table(name)
    for name in (MEDICATIONS, DISPENSINGS):
        table = metadata.tables[name]
        if new:
            _redefine(table)
        op.execute(CreateTable(table))
        for index in table.indexes:
            op.execute(CreateIndex(index))
        kept = [column for column in stored[name] if column in table.columns]
        factor = f"* {SCALE}" if new else f"/ {SCALE}"
        values = [f"{column} {factor}" if column in COLUMNS[name] else column for column in kept]
        op.execute(
            f"INSERT INTO {name} ({', '.join(kept)}) SELECT {', '.join(values)} FROM moved_{name}"  # noqa: S608
        )
        op.drop_table(f"moved_{name}")
    for event in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER append_only_{DISPENSINGS}_{event} BEFORE {event.upper()} ON {DISPENSINGS} "
            f"BEGIN SELECT RAISE(ABORT, 'append_only_{DISPENSINGS}'); END"
        )


def _initial_tables() -> sa.MetaData:
    metadata: sa.MetaData = context.script.get_revision("0001").module.METADATA
    return metadata


def _redefine(table: Any) -> None:
    """Change a copy of an initial table to its new definition."""
    for column in COLUMNS[table.name]:
        table.columns[column].type = QUANTITY
    for constraint in list(table.constraints):
        if isinstance(constraint, sa.CheckConstraint):
            name = str(constraint.name).removeprefix(f"ck_{table.name}_")
            if name in CHECKS[table.name]:
                table.constraints.discard(constraint)
    for check, (after, _before) in CHECKS[table.name].items():
        table.append_constraint(sa.CheckConstraint(after, name=check))
    if table.name == MEDICATIONS:
        table.append_column(sa.Column("unit", sa.String(100)))
        table.append_column(sa.Column("ends_on", sa.Date()))
