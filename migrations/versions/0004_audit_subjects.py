"""Drop the foreign key from the audit subjects to the audit entries.

The check of the key ran once for each patient of a list, and took longer than the insert of the entry.
The statement that writes the entry also writes its subjects. Neither is ever removed.
`flask audit verify` reports a subject without an entry.
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
    """Drop the foreign key."""
    if op.get_context().dialect.name == "sqlite":
        _recreate_table()
    else:
        op.drop_constraint(KEY, TABLE, type_="foreignkey")


def downgrade() -> None:
    """Create the foreign key again. This fails if a subject has no entry."""
    if op.get_context().dialect.name == "sqlite":
        _recreate_table(sa.ForeignKeyConstraint(["audit_id"], ["audit_logs.id"], name=KEY))
    else:
        op.create_foreign_key(KEY, TABLE, "audit_logs", ["audit_id"], ["id"])


def _recreate_table(*constraints: sa.Constraint) -> None:
    """Copy the rows to a new table: SQLite cannot drop a constraint from a table."""
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
