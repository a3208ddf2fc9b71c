"""Add the time at which the failed sign-ins of a user were forgiven.

The counters of failures are in Redis or in the memory of each worker, where a command cannot reach them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("users", sa.Column("unlocked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("users", "unlocked_at")
