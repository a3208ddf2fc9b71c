"""Add the price list, references to it, and opening balances in the ledger.

Existing items of bills and treatments have no price list item: they keep their own text and price.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

TABLE = "price_list_items"
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INTEGER = {"postgresql": "BIGINT", "sqlite": "INTEGER"}
MONEY = sa.Numeric(12, 2).with_variant(sa.BigInteger(), "sqlite")  # SQLite has no decimal type: cents
INSTANT = sa.DateTime(timezone=True)
REFERRING = ("billing_items", "treatments")
KIND_CHECK = "ck_ledger_entries_ledgerkind"
KINDS = (
    *("charge", "tax", "discount", "payment", "insurance_payment", "credit", "refund", "write_off"),
    *("reversal", "insurer_debt"),
)
NEW_KIND = "opening_balance"


def upgrade() -> None:
    """Create the table and the columns, and allow opening balances."""
    op.create_table(
        TABLE,
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("code", sa.String(100), nullable=False),
        sa.Column("code_key", sa.String(800), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("name_fold", sa.String(400), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("category", sa.String(100), nullable=True),
        sa.Column("unit_price", MONEY, nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("unit_price >= 0 AND unit_price <= 999999999999", name="unit_price_range"),
    )
    op.create_index(f"ix_{TABLE}_category", TABLE, ["category"])
    op.create_index(f"uq_{TABLE}_code_key", TABLE, ["code_key"], unique=True)
    for table in REFERRING:
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN price_list_item_id {INTEGER[op.get_context().dialect.name]} "
            f"CONSTRAINT fk_{table}_price_list_item_id REFERENCES {TABLE} (id)"
        )
    op.create_index("ix_treatments_price_list_item_id", "treatments", ["price_list_item_id"])
    _change_kinds(KINDS, (*KINDS, NEW_KIND))


def downgrade() -> None:
    """Restore the previous schema. This fails if the ledger has an opening balance."""
    entries = f"SELECT 1 FROM ledger_entries WHERE kind = '{NEW_KIND}' LIMIT 1"  # noqa: S608
    if op.get_bind().execute(sa.text(entries)).first():
        raise RuntimeError("The earlier schema has no opening balances.")
    _change_kinds((*KINDS, NEW_KIND), KINDS)
    op.drop_index("ix_treatments_price_list_item_id", "treatments")
    for table in REFERRING:
        op.drop_column(table, "price_list_item_id")
    op.drop_table(TABLE)


def _change_kinds(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """Change the values that the column `kind` of the ledger may have.

    On SQLite the stored definition of the table is changed, as in migration 0011: the rows stay as they are.
    """
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint(op.f(KIND_CHECK), "ledger_entries", type_="check")
        op.create_check_constraint(op.f(KIND_CHECK), "ledger_entries", _check(new))
        return
    connection = op.get_bind()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'ledger_entries'",
        (_check(old), _check(new)),
    )
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def _check(values: tuple[str, ...]) -> str:
    return f"kind IN ({', '.join(repr(value) for value in values)})"
