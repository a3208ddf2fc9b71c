"""Add exports: files of whole lists, which a job writes, and the parts of these files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
FORMATS = "format IN ('csv', 'xlsx')"
STATES = "state IN ('queued', 'running', 'ready', 'failed', 'expired')"
READY = (
    "state <> 'ready' OR (count IS NOT NULL AND left_out IS NOT NULL AND size IS NOT NULL "
    "AND digest IS NOT NULL AND expires_at IS NOT NULL)"
)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "exports",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("user_id", BIG_ID, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("path", sa.String(2000), nullable=False),
        sa.Column("format", sa.String(30), nullable=False),
        sa.Column("state", sa.String(30), nullable=False),
        sa.Column("reader", JSON, nullable=False),
        sa.Column("job_id", BIG_ID, nullable=True),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.Column("left_out", sa.Integer(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(64), nullable=True),
        sa.Column("problem", sa.String(500), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint(FORMATS, name="exportformat"),
        sa.CheckConstraint(STATES, name="exportstate"),
        sa.CheckConstraint(READY, name="ready"),
    )
    op.create_index("ix_exports_user_id", "exports", ["user_id", "id"])
    op.create_index("ix_exports_expires_at", "exports", ["expires_at"])
    op.create_table(
        "export_chunks",
        sa.Column("export_id", BIG_ID, sa.ForeignKey("exports.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("export_id", "number"),
    )


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("export_chunks")
    op.drop_table("exports")
