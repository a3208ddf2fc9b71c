"""SQLite looks for an overlap among the neighbours alone, not among all that a doctor ever did.

What is stored does not overlap, so that a new stretch meets one that begins inside it or the last that began
before it: two looks into an index, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable

from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Ask the neighbours."""
    _replace(_among_neighbours)


def downgrade() -> None:
    """Ask all."""
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
        return  # PostgreSQL's EXCLUDE constraints have an index of their own
    overlaps = context.script.get_revision("0002").module.OVERLAPS
    for name, (table, equal, start, end, counted) in overlaps.items():
        same = ["other.id <> NEW.id", *(f"other.{column} = NEW.{column}" for column in equal)]
        # the sign keeps SQLite from the index of the status, which finds nearly everything
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
