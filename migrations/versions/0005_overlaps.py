"""Check overlaps on SQLite against the neighbouring intervals only, not all appointments of a doctor.

Stored intervals do not overlap. So a new interval can only overlap one that starts inside it, or the last one
that starts before it. These are two index look-ups, independent of the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable

from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create triggers that check the neighbouring intervals."""
    _replace(_among_neighbours)


def downgrade() -> None:
    """Create triggers that check all intervals."""
    _replace(_among_all)


def _among_neighbours(others: str, start: str, end: str) -> str:
    return (
        f"(EXISTS ({others} AND other.{start} >= NEW.{start} AND other.{start} < NEW.{end}) OR "
        f"({others} AND other.{start} < NEW.{start} ORDER BY other.{start} DESC LIMIT 1) > NEW.{start})"
    )


def _among_all(others: str, start: str, end: str) -> str:
    return f"EXISTS ({others} AND other.{start} < NEW.{end} AND NEW.{start} < other.{end})"


def _replace(clash: Callable[[str, str, str], str]) -> None:
    if op.get_context().dialect.name != "sqlite":
        return  # the EXCLUDE constraints of PostgreSQL have an index
    overlaps = context.script.get_revision("0002").module.OVERLAPS
    for name, (table, equal, start, end, counted) in overlaps.items():
        same = ["other.id <> NEW.id", *(f"other.{column} = NEW.{column}" for column in equal)]
        # The unary plus excludes the index on the status, which matches almost every row.
        same += [condition.format(row="+other.") for condition in counted]
        others = f"SELECT other.{end} FROM {table} AS other WHERE {' AND '.join(same)}"  # noqa: S608
        counts = [condition.format(row="NEW.") for condition in counted]
        when = " AND ".join([*counts, clash(others, start, end)])
        concerned = (*equal, start, end, *(column for column in ("status", "overbooked") if column in when))
        for event, columns in (("insert", ""), ("update", f" OF {', '.join(concerned)}")):
            op.execute(f"DROP TRIGGER {name}_{event}")
            op.execute(
                f"CREATE TRIGGER {name}_{event} AFTER {event.upper()}{columns} ON {table} WHEN {when} "
                f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
            )
