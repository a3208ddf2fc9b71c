"""The checks of exports."""

from __future__ import annotations

from sqlalchemy import func, select

from enums import ExportState
from models import Export, ExportChunk
from services.integrity_rule import IntegrityCheck


def export_checks() -> list[IntegrityCheck]:
    """Return the checks of exports."""
    stored = (
        select(func.coalesce(func.sum(func.length(ExportChunk.content)), 0))
        .where(ExportChunk.export_id == Export.id)
        .scalar_subquery()
    )
    return [
        IntegrityCheck(
            "A ready export has its whole file.",
            select(Export.id).where(Export.state == ExportState.READY, Export.size != stored),
        )
    ]
