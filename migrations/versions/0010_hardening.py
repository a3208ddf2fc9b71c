"""Store the record of a request with an `Idempotency-Key`: a repeat is audited as a read of it.

Keys from before have no record. They expire after 24 hours.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLE, COLUMN = "idempotency_keys", "record"


def upgrade() -> None:
    """Add the column."""
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column(TABLE, sa.Column(COLUMN, json))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column(TABLE, COLUMN)
