"""Search keys of the names of treatments and prescribed medicines.

Searches for them ignore accents, apostrophes and dashes, as all searches for names do. The trigram index of
a name moves to its key.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.search_key import search_key

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = ("treatments", "prescribed_medications")
OPTIONS = "WITH (gin_pending_list_limit = 128)"
ROWS = 5_000  # of one batch


def upgrade() -> None:
    """Add the columns, fill them, and move the indexes."""
    context = op.get_context()
    for table in TABLES:
        op.add_column(table, sa.Column("name_fold", sa.String(400), nullable=False, server_default=""))
        if not context.as_sql:
            _fill(table)
        if context.dialect.name != "sqlite":
            op.execute(f"DROP INDEX ix_{table}_name_trgm")
            _create_index(table, "name_fold")


def downgrade() -> None:
    """Move the indexes back and remove the columns."""
    for table in TABLES:
        if op.get_context().dialect.name != "sqlite":
            op.execute(f"DROP INDEX ix_{table}_name_fold_trgm")
            _create_index(table, "name")
        op.drop_column(table, "name_fold")


def _create_index(table: str, column: str) -> None:
    op.execute(
        f"CREATE INDEX ix_{table}_{column}_trgm ON {table} USING gin ({column} gin_trgm_ops) {OPTIONS}"
    )


def _fill(table: str) -> None:
    """Set the key of all rows, one batch of ids after the other."""
    connection = op.get_bind()
    named = sa.table(table, *(sa.column(name) for name in ("id", "name", "name_fold")))
    update = named.update().where(named.c.id == sa.bindparam("row_id")).values(name_fold=sa.bindparam("key"))
    last_id = 0
    while True:
        page = sa.select(named.c.id, named.c.name).where(named.c.id > last_id)
        rows = connection.execute(page.order_by(named.c.id).limit(ROWS)).all()
        if not rows:
            return
        connection.execute(update, [{"row_id": row.id, "key": search_key(row.name)} for row in rows])
        last_id = rows[-1].id
