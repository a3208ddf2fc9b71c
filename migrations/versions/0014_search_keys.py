"""Compute the search keys of existing rows again.

The folding now ignores zero-width characters and variants of apostrophes, hyphens and dashes. A stored key
must be equal to the key that the program computes for a search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from services.search_key import search_key

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

KEYS = (  # table, source of the key, key
    ("users", "name", "name_fold"),
    ("patients", "name", "name_fold"),
    ("conditions", "name", "name_fold"),
    ("doctors", "name", "name_fold"),
    ("inventory_items", "name", "name_fold"),
)
SEARCHED = ("name", "email", "file_number", "insurance_id", "phone_digits")  # of a patient
ROWS = 5_000  # of one batch


def upgrade() -> None:
    """Write the keys that differ from the stored ones."""
    if op.get_context().as_sql:
        return
    for table, source, key in KEYS:
        _rewrite(table, (source,), key, lambda row, source=source: search_key(row[source]))
    _rewrite("patients", SEARCHED, "search_fold", _search_fold)
    _rewrite_allergies()


def downgrade() -> None:
    """Keep the keys: few names have another key in the older program."""


def _search_fold(row: sa.RowMapping) -> str:
    return " | ".join(search_key(row[name] or "") for name in SEARCHED)[:1000]


def _rewrite(table: str, sources: tuple[str, ...], key: str, compute: Callable[[sa.RowMapping], str]) -> None:
    """Set the key of the rows of a table whose key changes, one batch of ids after the other."""
    connection = op.get_bind()
    rows_of = sa.table(table, *(sa.column(name) for name in {"id", key, *sources}))
    update = rows_of.update().where(rows_of.c.id == sa.bindparam("row_id")).values({key: sa.bindparam("new")})
    last_id = 0
    while True:
        page = sa.select(rows_of).where(rows_of.c.id > last_id).order_by(rows_of.c.id).limit(ROWS)
        rows = connection.execute(page).mappings().all()
        if not rows:
            return
        changes = [(row["id"], compute(row)) for row in rows if compute(row) != row[key]]
        if changes:
            connection.execute(update, [{"row_id": row_id, "new": new} for row_id, new in changes])
        last_id = rows[-1]["id"]


def _rewrite_allergies() -> None:
    """Set the keys of allergens, which are unique in a medical history.

    Two allergens of one history may now have the same key. Both are kept: one of them keeps its older key.
    """
    connection = op.get_bind()
    allergies = sa.table(
        "allergies",
        *(sa.column(name) for name in ("id", "medical_history_id", "substance", "substance_fold")),
    )
    rows: list[Any] = list(connection.execute(sa.select(allergies).order_by(allergies.c.id)).mappings())
    taken = {(row["medical_history_id"], row["substance_fold"]) for row in rows}
    changes = []
    for row in rows:
        new = search_key(row["substance"])
        if (row["medical_history_id"], new) not in taken:
            taken.add((row["medical_history_id"], new))
            changes.append({"row_id": row["id"], "new": new})
    if changes:
        update = allergies.update().where(allergies.c.id == sa.bindparam("row_id"))
        connection.execute(update.values(substance_fold=sa.bindparam("new")), changes)
