"""Add what a file of an import has beside its table: rows above the header, and other sheets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

TABLE = "imports"
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Add the columns."""
    op.add_column(TABLE, sa.Column("title_rows", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column(TABLE, sa.Column("other_sheets", JSON, server_default="[]", nullable=False))


def downgrade() -> None:
    """Remove the columns."""
    for column in ("other_sheets", "title_rows"):
        op.drop_column(TABLE, column)
