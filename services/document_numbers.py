"""Numbers of documents: consecutive within a series and a year of the clinic, without gaps."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, String, cast, func, literal, select, union
from sqlalchemy.orm import InstrumentedAttribute

from database.functions import insert_or_update
from extensions import db
from models import DocumentCounter

# Series, the first part of each number
INVOICE = "INV"
CREDIT_NOTE = "CRN"
LETTER = "LTR"


def next_number(series: str, year: int) -> str:
    """Return the next number of a series, as the last step of the creation of a document.

    The counter of the year is locked until the commit, so that a rollback leaves no gap. Until then, every
    other new document of the series waits.
    """
    statement = insert_or_update(
        db.session.connection(),
        DocumentCounter,
        key={"series": series, "year": year},
        new={"last_number": 1},
        changes={"last_number": DocumentCounter.last_number + 1},
    ).returning(DocumentCounter.last_number)
    number = db.session.execute(statement).scalar_one()
    return format_number(series, year, number)


def format_number(series: str, year: int, number: int) -> str:
    """Return a number as documents print it, such as `INV-2026-000123`."""
    return f"{series}-{year}-{number:06d}"


def gaps(series: str, number: InstrumentedAttribute[str]) -> Select[Any]:
    """Select the years whose counter differs from the number of documents, or is missing.

    The numbers are unique.
    """
    year_of_counter = cast(DocumentCounter.year, String)
    start = literal(f"{series}-") + year_of_counter
    counted = select(func.count()).where(number.like(start + "-%")).scalar_subquery()
    differing = select(year_of_counter.label("year")).where(
        DocumentCounter.series == series, DocumentCounter.last_number != counted
    )
    year_of_number = func.substr(number, len(series) + 2, 4)
    counters = select(year_of_counter).where(DocumentCounter.series == series)
    uncounted = select(year_of_number).where(number.is_not(None), year_of_number.not_in(counters))
    return select(union(differing, uncounted).subquery().c.year)
