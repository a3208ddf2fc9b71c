"""The causes of database errors: the violated constraint, and errors after which a transaction runs again."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm.exc import StaleDataError

# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE = "40001", "40P01", "55P03"


def constraint_name(error: IntegrityError) -> str | None:
    """Return the name of the violated constraint on either engine."""
    diagnostics = getattr(error.orig, "diag", None)
    if diagnostics is not None:
        name: str | None = diagnostics.constraint_name
        return name
    text = str(error.orig)
    if text.startswith("UNIQUE constraint failed: "):
        columns = text.removeprefix("UNIQUE constraint failed: ").split(", ")
        table = columns[0].split(".")[0]
        return f"uq_{table}_" + "_".join(column.split(".")[1] for column in columns)
    if text.startswith("CHECK constraint failed: "):
        return text.removeprefix("CHECK constraint failed: ")
    return text  # the message of a trigger is the name of the constraint


def is_transient(error: Exception) -> bool:
    """Return True for an error that another transaction caused: the same work may succeed a moment later."""
    if isinstance(error, StaleDataError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.OperationalError):
        return "locked" in str(error.orig) or "busy" in str(error.orig)
    state = getattr(error.orig, "pgcode", None)
    return state in (SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE)
