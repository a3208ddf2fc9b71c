"""Removal of imported files and of previous values: they are personal data."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, delete, or_, select, update

from enums import ImportState
from models import Import, ImportedRow, ImportFile
from services import clock
from services.imports.undo import UNDO_DAYS
from services.rows import execute_core

# An import that nobody applies, after its last change: long enough to correct a file over a weekend.
UNUSED_DAYS = timedelta(days=3)
ENDED = (ImportState.APPLIED, ImportState.FAILED, ImportState.UNDONE)
WAITING = (ImportState.UPLOADED, ImportState.CHECKED)


def remove_old_files() -> int:
    """Remove the files and previous values of old imports. Return the number of files."""
    now = clock.now()
    old = select(Import.id).where(
        or_(
            and_(Import.state.in_(ENDED), Import.updated_at < now - UNDO_DAYS),
            and_(Import.state.in_(WAITING), Import.updated_at < now - UNUSED_DAYS),
        )
    )
    expired = execute_core(
        select(ImportFile.import_id).where(ImportFile.import_id.in_(old)).limit(100)
    ).scalars()
    ids = list(expired)
    if not ids:
        return 0
    execute_core(
        update(ImportedRow)
        .where(ImportedRow.import_id.in_(ids), ImportedRow.previous.is_not(None))
        .values(previous=None)
    )
    return execute_core(delete(ImportFile).where(ImportFile.import_id.in_(ids))).rowcount
