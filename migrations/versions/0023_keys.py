"""Store the key id of audit entries, and encrypt the stored responses of idempotency keys.

- Existing audit entries keep no key id: their MAC does not cover one.
- Existing stored responses are removed, because they are not encrypted. A repeat of such a request is refused
  with `already_done`, which names the record: it is never carried out twice.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

LOG, RESPONSES = "audit_logs", "idempotency_keys"
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
# The earlier version repeats a response only for the same reader. This one is nobody, so it refuses.
NO_READER = {
    "postgresql": "jsonb_set(coalesce(record, '{}'), '{reader}', '[]')",
    "sqlite": "json_set(coalesce(record, '{}'), '$.reader', json('[]'))",
}


def upgrade() -> None:
    """Add the columns, and drop those of responses without encryption."""
    op.add_column(LOG, sa.Column("key_id", sa.String(16)))
    op.add_column(RESPONSES, sa.Column("response", sa.LargeBinary()))
    op.drop_column(RESPONSES, "headers")
    op.drop_column(RESPONSES, "body")


def downgrade() -> None:
    """Remove the columns. Refuse it for entries that the earlier version could not verify."""
    if op.get_bind().execute(sa.text(f"SELECT 1 FROM {LOG} WHERE key_id IS NOT NULL LIMIT 1")).first():  # noqa: S608
        raise RuntimeError(
            "The earlier version cannot verify audit entries that name their key. "
            "Restore a backup from before the upgrade instead."
        )
    op.add_column(RESPONSES, sa.Column("headers", JSON))
    op.add_column(RESPONSES, sa.Column("body", sa.Text()))
    op.execute(f"UPDATE {RESPONSES} SET record = {NO_READER[op.get_context().dialect.name]}")  # noqa: S608
    op.drop_column(RESPONSES, "response")
    op.drop_column(LOG, "key_id")
