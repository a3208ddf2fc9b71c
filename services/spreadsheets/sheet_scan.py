"""A scan of the XML of a worksheet for cells that calamine does not report.

calamine returns an empty text for an error and for a formula without result. It moves days that do not exist,
and it reserves memory for all cells between the first and the last one. This scan finds these cells first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

MAX_COLUMNS = 200
MAX_SHEET_ROWS = 60_000  # with empty rows and titles; the table itself may have fewer
MAX_CELLS = 3_000_000  # also empty cells that only have a format
MAX_DATE_SERIAL = 2_958_466  # 10000-01-01
NO_LEAP_DAY = 60  # 1900-02-29, which spreadsheet programs count as a day
_REFERENCE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")


class BadFileError(Exception):
    """A file that is refused: a code of `errors.CODES` and a message that says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class SheetFindings:
    """The findings of the scan of a sheet. Rows and columns count from 0.

    - `errors`: row -> column -> code of a `CellError`.
    - `padded`: row -> column -> number of digits that the format of the number shows.
    - `merged`: first row, first column, last row, last column of merged cells.
    """

    last_row: int = -1
    last_column: int = -1
    errors: dict[int, dict[int, str]] = field(default_factory=dict)
    padded: dict[int, dict[int, int]] = field(default_factory=dict)
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)


def parse_xml(content: bytes, on_start: Callable[[str, dict[str, str]], None]) -> None:
    """Call `on_start` with the local name and the attributes of each element. Raises `BadFileError`."""
    parser = new_parser()
    parser.StartElementHandler = lambda name, attributes: on_start(name.rpartition(":")[2], attributes)
    run(parser, content)


def new_parser() -> expat.XMLParserType:
    """Return a parser that refuses a document type: workbooks have none, but entities can be a bomb."""
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise BadFileError("unreadable_file", "The workbook is damaged. Save it again as .xlsx.")

    parser.StartDoctypeDeclHandler = refuse
    return parser


def run(parser: expat.XMLParserType, content: bytes) -> None:
    """Parse a document. Raises `BadFileError` if it is not well formed."""
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError):
        raise BadFileError("unreadable_file", "The workbook is damaged. Save it again as .xlsx.") from None


class SheetScan:
    """The state of the scan of one sheet."""

    def __init__(
        self, *, date_styles: Collection[str], padded: Mapping[str, int], trust_results: bool
    ) -> None:
        self.findings = SheetFindings()
        self._date_styles, self._padded, self._trust_results = date_styles, padded, trust_results
        self._columns: dict[str, int] = {}
        self._row = self._column = -1
        self._cells = 0
        self._type = self._style = ""
        self._has_formula = self._has_value = False
        self._text: list[str] = []
        self._names: dict[str, Callable[[dict[str, str]], None]] = {}

    def run(self, content: bytes) -> SheetFindings:
        """Scan the XML of the sheet. Raises `BadFileError`."""
        self._parser = new_parser()
        self._parser.StartElementHandler = self._root
        run(self._parser, content)
        self._finish_cell()
        return self.findings

    def _root(self, name: str, _attributes: dict[str, str]) -> None:
        prefix = name[: -len(name.rpartition(":")[2])]
        self._names = {
            f"{prefix}row": self._start_row,
            f"{prefix}c": self._start_cell,
            f"{prefix}f": self._start_formula,
            f"{prefix}v": self._start_value,
            f"{prefix}is": self._start_value,
            f"{prefix}mergeCell": self._merge,
        }
        self._parser.StartElementHandler = self._start

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        handler = self._names.get(name)
        if handler is not None:
            handler(attributes)

    def _start_row(self, attributes: dict[str, str]) -> None:
        self._finish_cell()
        number = attributes.get("r", "")
        self._row = int(number) - 1 if number.isdecimal() else self._row + 1
        self._column = -1

    def _start_cell(self, attributes: dict[str, str]) -> None:
        self._finish_cell()
        self._cells += 1
        if self._cells > MAX_CELLS:
            raise BadFileError(
                "payload_too_large",
                f"The sheet has more than {MAX_CELLS:,} cells. Save only the table as .csv.",
            )
        reference = attributes.get("r")
        if reference is None:
            self._column += 1
        else:
            letters = reference.rstrip("0123456789")
            column = self._columns.get(letters)
            if column is None:
                column = self._columns[letters] = _column(letters)
            self._column = column
            self._row = int(reference[len(letters) :] or 0) - 1
        self._type = attributes.get("t", "n")
        self._style = attributes.get("s", "")

    def _start_formula(self, _attributes: dict[str, str]) -> None:
        self._has_formula = True

    def _start_value(self, _attributes: dict[str, str]) -> None:
        self._has_value = True
        if self._has_formula or (self._style in self._date_styles and self._type == "n"):
            self._parser.CharacterDataHandler = self._text.append

    def _finish_cell(self) -> None:
        has_value, has_formula = self._has_value, self._has_formula
        if not (has_value or has_formula):
            return
        self._has_value = self._has_formula = False
        findings, row, column = self.findings, self._row, self._column
        if row > findings.last_row:
            findings.last_row = row
            if row >= MAX_SHEET_ROWS:
                raise BadFileError(
                    "too_many_rows",
                    f"The sheet has a value in row {row + 1}. At most 50,000 rows can be imported: "
                    "split the file, or delete the values below the table.",
                )
        if column > findings.last_column:
            findings.last_column = column
            if column >= MAX_COLUMNS:
                raise BadFileError(
                    "too_many_columns",
                    f"The sheet has a value in column {column + 1} of row {row + 1}. "
                    f"At most {MAX_COLUMNS} columns can be read: delete the columns beside the table.",
                )
        if self._style in self._padded and self._type == "n":
            findings.padded.setdefault(row, {})[column] = self._padded[self._style]
        if self._type == "e":
            findings.errors.setdefault(row, {})[column] = "error_value"
        text = ""
        if self._text:
            text = "".join(self._text)
            self._text.clear()
        self._parser.CharacterDataHandler = None
        if has_formula:
            is_empty = not text.strip() and not (has_value and self._type == "str")
            if self._type != "e" and (is_empty or not self._trust_results):
                findings.errors.setdefault(row, {})[column] = "formula_without_value"
        if self._style in self._date_styles and self._type == "n" and text and not _is_day(text):
            findings.errors.setdefault(row, {}).setdefault(column, "invalid_date")

    def _merge(self, attributes: dict[str, str]) -> None:
        first, _, last = attributes.get("ref", "").partition(":")
        corners = [_REFERENCE.fullmatch(corner) for corner in (first, last or first)]
        if None in corners:
            raise BadFileError("unreadable_file", "The workbook is damaged. Save it again as .xlsx.")
        (top, left), (bottom, right) = ((int(c[2]) - 1, _column(c[1])) for c in corners if c)
        self.findings.merged.append((top, left, bottom, right))


def _column(letters: str) -> int:
    if not (0 < len(letters) <= 3 and letters.isascii() and letters.isalpha()):
        raise BadFileError("unreadable_file", "The workbook is damaged. Save it again as .xlsx.")
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _is_day(text: str) -> bool:
    try:
        serial = float(text)
    except ValueError:
        return False
    return 0 <= serial < MAX_DATE_SERIAL and int(serial) != NO_LEAP_DAY
