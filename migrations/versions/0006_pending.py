"""Disable the pending lists of the trigram indexes on patients.

Each search reads the pending list of an index. A search with a typo reads it several times: during
registrations it took PostgreSQL twice the time. A registration now writes its index entries immediately.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# the indexes of the patient search parameter `q`
INDEXES = tuple(
    f"ix_patients_{column}_trgm" for column in ("name_fold", "file_number", "phone_digits", "email")
)


def upgrade() -> None:
    """Disable the pending lists and write their entries to the indexes."""
    if op.get_context().dialect.name == "sqlite":
        return  # SQLite has no trigram indexes
    for name in INDEXES:
        op.execute(f"ALTER INDEX {name} SET (fastupdate = off)")
        op.execute(f"SELECT gin_clean_pending_list('{name}')")


def downgrade() -> None:
    """Enable the pending lists again."""
    if op.get_context().dialect.name == "sqlite":
        return
    for name in INDEXES:
        op.execute(f"ALTER INDEX {name} RESET (fastupdate)")
