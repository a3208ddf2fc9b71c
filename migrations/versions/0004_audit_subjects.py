"""The index of patients in the audit refers to its entries without a foreign key.

It is written by the statement that writes the entry, neither is ever removed, and `flask audit verify` names
an index row of nothing. The key's check, once for each patient shown, cost more than the whole entry.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE, KEY, INDEX = "audit_subjects", "fk_audit_subjects_audit_id", "ix_audit_subjects_audit_id"
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Drop the key."""
    if op.get_context().dialect.name == "sqlite":
        _make_anew()
    else:
        op.drop_constraint(KEY, TABLE, type_="foreignkey")


def downgrade() -> None:
    """Bring the key back, which fails where a row refers to nothing."""
    if op.get_context().dialect.name == "sqlite":
        _make_anew(sa.ForeignKeyConstraint(["audit_id"], ["audit_logs.id"], name=KEY))
    else:
        op.create_foreign_key(KEY, TABLE, "audit_logs", ["audit_id"], ["id"])


def _make_anew(*constraints: sa.Constraint) -> None:
    """SQLite's tables keep their constraints: the rows move to a new one, with index and guards."""
    op.drop_index(INDEX, TABLE)
    for event in ("update", "delete"):
        op.execute(f"DROP TRIGGER append_only_{TABLE}_{event}")
    op.rename_table(TABLE, "moved")
    op.create_table(
        TABLE,
        sa.Column("patient_id", BIG_ID, nullable=False),
        sa.Column("audit_id", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("patient_id", "audit_id", name=f"pk_{TABLE}"),
        *constraints,
    )
    op.execute(f"INSERT INTO {TABLE} (patient_id, audit_id) SELECT patient_id, audit_id FROM moved")  # noqa: S608
    op.drop_table("moved")
    op.create_index(INDEX, TABLE, ["audit_id"])
    for event in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER append_only_{TABLE}_{event} BEFORE {event.upper()} ON {TABLE} "
            f"BEGIN SELECT RAISE(ABORT, 'append_only_{TABLE}'); END"
        )
