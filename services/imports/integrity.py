"""Integrity checks of imports."""

from __future__ import annotations

from sqlalchemy import and_, func, or_, select

from enums import ImportAction, ImportRowState, ImportState
from models import Import, ImportedRow, ImportSource
from services.imports.kinds import KINDS
from services.integrity_rule import IntegrityCheck

COUNTED = (
    ImportRowState.READY,
    ImportRowState.APPLIED,
    ImportRowState.SKIPPED,
    ImportRowState.REFUSED,
    ImportRowState.UNDONE,
)
PROCESSED = (ImportState.CHECKED, ImportState.APPLIED, ImportState.FAILED, ImportState.UNDONE)


def import_checks() -> list[IntegrityCheck]:
    """Return the checks of imports."""
    return [
        IntegrityCheck(
            "The counts of an import are those of its rows.",
            select(Import.id).where(
                or_(*(getattr(Import, state.value) != _count(state) for state in COUNTED))
            ),
        ),
        IntegrityCheck(
            "After a run, every row of the file is ready, applied, skipped, refused or undone.",
            select(Import.id).where(
                Import.state.in_(PROCESSED),
                Import.rows != sum((getattr(Import, state.value) for state in COUNTED[1:]), Import.ready),
            ),
        ),
        *(
            IntegrityCheck(
                f"An applied row of an import of {name} has its record.",
                select(ImportedRow.id)
                .join(Import, Import.id == ImportedRow.import_id)
                .outerjoin(kind.model, kind.model.id == ImportedRow.entity_id)  # type: ignore[attr-defined]
                .where(
                    Import.kind == name,
                    ImportedRow.state == ImportRowState.APPLIED,
                    kind.model.id.is_(None),  # type: ignore[attr-defined]
                ),
            )
            for name, kind in KINDS.items()
        ),
        IntegrityCheck(
            "A record that an import created and did not take back has a source.",
            select(ImportedRow.id)
            .join(Import, Import.id == ImportedRow.import_id)
            .outerjoin(
                ImportSource,
                and_(
                    ImportSource.kind == Import.kind,
                    ImportSource.source == Import.source,
                    ImportSource.entity_id == ImportedRow.entity_id,
                ),
            )
            .where(
                ImportedRow.state == ImportRowState.APPLIED,
                ImportedRow.action == ImportAction.CREATE,
                ImportSource.id.is_(None),
            ),
        ),
    ]


def _count(state: ImportRowState) -> object:
    return (
        select(func.count())
        .select_from(ImportedRow)
        .where(ImportedRow.import_id == Import.id, ImportedRow.state == state)
        .correlate(Import)
        .scalar_subquery()
    )
