"""The cells of a file, with the values that a spreadsheet program stores in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time


@dataclass(frozen=True)
class CellError:
    """A cell that has no value that can be used.

    - `error_value`: the result of a formula is an error such as `#N/A`.
    - `formula_without_value`: the file has the formula, but not its result.
    - `merged_cell`: the cell is covered by the merged cell beside or above it.
    - `invalid_date`: the number is no day of the calendar of spreadsheet programs.
    """

    code: str


Cell = str | int | float | datetime | date | time | bool | None | CellError

# The texts by which spreadsheet programs show and export an error of a formula.
_ERROR_VALUES = frozenset(
    ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#FIELD!")
)
_BLANKS = " \t\r\n\xa0\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u202f\u3000"

MESSAGES = {
    "error_value": "the cell contains an error such as #N/A; correct the formula or write the value",
    "formula_without_value": "the file has no result of the formula; open the file in a spreadsheet "
    "program and save it again",
    "merged_cell": "the cell is merged with another one; unmerge the cells and write the value into each row",
    "invalid_date": "the number is not a date; write the date again as YYYY-MM-DD",
}


class CellProblem(Exception):  # noqa: N818 - a problem of the file, no fault of the program
    """A cell that cannot be read. The message says what to do. It contains no value of the file."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def text_cell(text: str) -> Cell:
    """Return the cell of a text: None if nothing is visible, and a `CellError` for a text such as `#N/A`."""
    stripped = text.strip(_BLANKS)
    if not stripped:
        return None
    return CellError("error_value") if stripped[0] == "#" and stripped.upper() in _ERROR_VALUES else text
