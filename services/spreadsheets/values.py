"""Read the values of cells by the type of their column."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from services.spreadsheets.cells import MESSAGES, Cell, CellError, CellProblem
from services.spreadsheets.columns import CellType, ImportColumn


@dataclass(frozen=True)
class ValueOptions:
    """How the values of a file are written.

    - `date_format`: the order of day, month and year, such as `DD/MM/YYYY`. None: only clear dates are read.
    - `decimal`: the decimal mark, `.` or `,`. None: only clear numbers are read.
    - `region`: the ISO 3166 code of the region of phone numbers without a country code.
    - `zone`: the time zone of date-times without an offset.
    """

    date_format: str | None
    decimal: str | None
    region: str
    zone: ZoneInfo


@dataclass(frozen=True)
class ParsedCell:
    """The value of a cell, as a JSON body would have it. `flag` names what a person must review."""

    value: Any
    flag: str | None = None


def parse_cell(cell: Cell, column: ImportColumn, options: ValueOptions) -> ParsedCell:
    """Return the value of a cell. Raises `CellProblem` with the reason if it cannot be read."""
    if isinstance(cell, CellError):
        raise CellProblem(cell.code, MESSAGES[cell.code])
    if cell is None:
        return ParsedCell(None)
    if isinstance(cell, date | datetime | time):
        return ParsedCell(cell.isoformat())
    if column.type is CellType.LIST:
        return ParsedCell([part.strip() for part in str(cell).split(";") if part.strip()])
    return ParsedCell(str(cell).strip())
