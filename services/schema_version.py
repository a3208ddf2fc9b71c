"""Whether the database's schema is the one this version of the application was written for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from extensions import db

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


@lru_cache
def expected_revision() -> str | None:
    """The newest migration there is."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def stored_revision() -> str | None:
    """The migration the database stands at; None where it was never migrated."""
    try:
        found = db.session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    except DatabaseError as failure:
        if failure.connection_invalidated:
            raise
        db.session.rollback()
        return None
    return str(found) if found else None
