"""One search column for patients, with one trigram index in place of six.

The column holds name, e-mail, file number, insurance number and phone digits in folded form. The six indexes
were the largest part of the cost of a registration, and a search combined the results of four of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# a stored key must be equal to the key that the program computes for a search
from services.search_key import search_key

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

FIELDS = ("name", "email", "file_number", "insurance_id", "phone_digits")
INDEX = "ix_patients_search_fold_trgm"
REPLACED = ("name_fold", "file_number", "phone_digits", "email", "insurance_id", "insurance_provider")
WITHOUT_PENDING_LIST = REPLACED[:4]  # see migration 0006
ROWS = 5_000  # patients of one batch

patients = sa.table("patients", *(sa.column(name) for name in ("id", "search_fold", *FIELDS)))


def upgrade() -> None:
    """Add the column, fill it, and replace the indexes."""
    op.add_column("patients", sa.Column("search_fold", sa.String(1000), nullable=False, server_default=""))
    if not op.get_context().as_sql:
        _fill()
    if op.get_context().dialect.name == "sqlite":
        return
    for column in REPLACED:
        op.execute(f"DROP INDEX ix_patients_{column}_trgm")
    op.execute(
        f"CREATE INDEX {INDEX} ON patients USING gin (search_fold gin_trgm_ops) WITH (fastupdate = off)"
    )


def downgrade() -> None:
    """Restore the six indexes and remove the column."""
    if op.get_context().dialect.name != "sqlite":
        op.execute(f"DROP INDEX {INDEX}")
        for column in REPLACED:
            option = "fastupdate = off, " if column in WITHOUT_PENDING_LIST else ""
            op.execute(
                f"CREATE INDEX ix_patients_{column}_trgm ON patients USING gin ({column} gin_trgm_ops) "
                f"WITH ({option}gin_pending_list_limit = 128)"
            )
    op.drop_column("patients", "search_fold")


def _fill() -> None:
    """Set the column of all rows, one batch of ids after the other."""
    connection = op.get_bind()
    update = (
        patients.update()
        .where(patients.c.id == sa.bindparam("row_id"))
        .values(search_fold=sa.bindparam("folded"))
    )
    columns = [patients.c.id, *(patients.c[name] for name in FIELDS)]
    last_id = 0
    while True:
        page = sa.select(*columns).where(patients.c.id > last_id).order_by(patients.c.id).limit(ROWS)
        rows = connection.execute(page).mappings().all()
        if not rows:
            return
        connection.execute(update, [{"row_id": row["id"], "folded": _search_fold(row)} for row in rows])
        last_id = rows[-1]["id"]


def _search_fold(row: sa.RowMapping) -> str:
    return " | ".join(search_key(row[name] or "") for name in FIELDS)[:1000]
