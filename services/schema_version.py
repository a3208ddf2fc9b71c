"""Schema revisions: the one that this version of the application expects, and the one in the database."""

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
    """Return the revision of the newest migration."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def stored_revision() -> str | None:
    """Return the revision of the database, or None if it was never migrated."""
    try:
        revision = db.session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    except DatabaseError as failure:
        if failure.connection_invalidated:
            raise
        db.session.rollback()
        return None
    return str(revision) if revision else None
