"""Rows of the database that an import created and an undo has taken back."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from enums import ImportAction, ImportRowState, ImportSubject
from extensions import db
from models import Import, ImportedRow

TAKEN_BACK = (ImportRowState.UNDONE, ImportRowState.SKIPPED)


def undone_ids(kind: ImportSubject, ids: Collection[int]) -> set[int]:
    """Return those of the ids that an import of this kind created and that were taken back."""
    return set(
        db.session.scalars(
            select(ImportedRow.entity_id)
            .join(Import, Import.id == ImportedRow.import_id)
            .where(
                ImportedRow.entity_id.in_(ids),
                ImportedRow.action == ImportAction.CREATE,
                ImportedRow.state.in_(TAKEN_BACK),
                Import.kind == kind,
            )
        )
    )
