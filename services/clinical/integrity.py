"""Integrity checks of letters."""

from __future__ import annotations

from sqlalchemy import String, cast, func, literal, select

from models import Letter, LetterCounter, Visit
from services.integrity_rule import IntegrityCheck


def letter_checks() -> list[IntegrityCheck]:
    """Return the checks."""
    numbered = Letter.number.like(literal("LTR-") + cast(LetterCounter.year, String) + "-%")
    counted = select(func.count()).where(numbered).scalar_subquery()
    return [
        IntegrityCheck(
            "A letter has the patient of its visit.",
            select(Letter.id).join(Visit).where(Letter.patient_id != Visit.patient_id),
        ),
        IntegrityCheck(
            "A visit with a valid letter is not void.",
            select(Letter.id).join(Visit).where(Letter.voided_at.is_(None), Visit.voided_at.is_not(None)),
        ),
        # the numbers are unique
        IntegrityCheck(
            "Letter numbers have no gaps.",
            select(LetterCounter.year).where(LetterCounter.last_number != counted),
        ),
    ]
