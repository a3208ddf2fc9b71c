"""Integrity checks of letters."""

from __future__ import annotations

from sqlalchemy import select

from models import Letter, Visit
from services import document_numbers
from services.integrity_rule import IntegrityCheck


def letter_checks() -> list[IntegrityCheck]:
    """Return the checks."""
    return [
        IntegrityCheck(
            "A letter has the patient of its visit.",
            select(Letter.id).join(Visit).where(Letter.patient_id != Visit.patient_id),
        ),
        IntegrityCheck(
            "A visit with a valid letter is not void.",
            select(Letter.id).join(Visit).where(Letter.voided_at.is_(None), Visit.voided_at.is_not(None)),
        ),
        IntegrityCheck(
            "Letter numbers have no gaps.", document_numbers.gaps(document_numbers.LETTER, Letter.number)
        ),
    ]
