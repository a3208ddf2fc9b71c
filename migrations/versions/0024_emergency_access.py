"""Add emergency access to the clinical fields of a patient, and its review."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

TABLE = "emergency_accesses"
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def _reference(name: str, target: str, *, nullable: bool = False) -> sa.Column[int]:
    key = sa.ForeignKey(f"{target}.id")
    return sa.Column(name, BIG_ID, key, nullable=nullable)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        TABLE,
        sa.Column("id", BIG_ID, nullable=False),
        _reference("patient_id", "patients"),
        _reference("user_id", "users"),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("outcome", sa.String(30), nullable=True),
        sa.Column("note", sa.String(500), nullable=True),
        _reference("reviewed_by_id", "users", nullable=True),
        sa.Column("reviewed_at", INSTANT, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("outcome IN ('justified', 'unjustified')", name="reviewoutcome"),
        sa.CheckConstraint("expires_at > created_at", name="expiry"),
        sa.CheckConstraint("reviewed_by_id <> user_id", name="reviewer"),
        sa.CheckConstraint(
            "(outcome IS NULL) = (reviewed_by_id IS NULL) AND (outcome IS NULL) = (reviewed_at IS NULL)",
            name="review",
        ),
    )
    op.create_index(f"ix_{TABLE}_patient_id", TABLE, ["patient_id"])
    op.create_index(f"ix_{TABLE}_user_expires", TABLE, ["user_id", "expires_at"])


def downgrade() -> None:
    """Remove the table."""
    op.drop_table(TABLE)
