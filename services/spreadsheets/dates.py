"""Read dates and times of spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable

from services.spreadsheets.cells import Cell


def check_date_format(date_format: str | None) -> None:
    """Raise 422 for a `date_format` that does not name day, month and year, such as `DD/MM/YYYY`."""


def propose_date_format(cells: Iterable[Cell]) -> str | None:
    """Return the only order of day and month that fits all dates of a column, or None."""
    return None
