"""Read the table of a spreadsheet file: its header and its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from errors import ClinicError
from services.spreadsheets.cells import Cell, CellError
from services.spreadsheets.delimited import read_delimited
from services.spreadsheets.texts import clean_line
from services.spreadsheets.workbooks import read_workbook

MAX_BYTES = 10 * 1024 * 1024
MAX_ROWS = 50_000
MAX_COLUMNS = 200
MAX_TITLE_ROWS = 5
MAX_NAMED = 10  # columns in a message
_MERGED = CellError("merged_cell")
_SAVE_AS = "Open it in a spreadsheet program and save it as .xlsx or .csv."
_ARCHIVE = b"PK\x03\x04"
# The first bytes of files that people take for spreadsheets. Older programs export HTML as .xls.
_OTHER_KINDS = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file of the old format (.xls), or has a password"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "a text document (.rtf)"),
    (b"<", "a web page (HTML) or XML"),
    (b"PK\x05\x06", "an empty archive"),
)


@dataclass(frozen=True)
class SourceRow:
    """A row of a file.

    - `number`: the row as a spreadsheet program counts, from 1.
    - `cells`: one cell for each column of the header.
    - `too_long`: the row has values beyond the header. It must be refused.
    """

    number: int
    cells: tuple[Cell, ...]
    too_long: bool = False


@dataclass(frozen=True)
class SourceTable:
    """The table of a file.

    - `blank_rows`: the number of empty rows between the rows. They are not in `rows`.
    - `title_rows`: the number of rows above the header that contain one cell only.
    - `sheet`: the name of the sheet that was read; None for a text file.
    - `other_sheets`: the names of the visible sheets that were not read.
    """

    header: tuple[str, ...]
    rows: Sequence[SourceRow]
    blank_rows: int = 0
    title_rows: int = 0
    sheet: str | None = None
    other_sheets: tuple[str, ...] = ()


def read_table(
    content: bytes, *, file_name: str = "", encoding: str | None = None, delimiter: str | None = None
) -> SourceTable:
    """Return the table of a spreadsheet file. Raises `ClinicError` for a file that is refused.

    The first bytes decide the kind of file. Its name is only a part of messages.
    """
    if len(content) > MAX_BYTES:
        raise ClinicError("payload_too_large", "A file may have at most 10 MiB. Split it.")
    if content.startswith(_ARCHIVE):
        workbook = read_workbook(content)
        return _table(workbook.rows, sheet=workbook.sheet, other_sheets=workbook.other_sheets)
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, kind in _OTHER_KINDS:
        if start.startswith(signature):
            raise ClinicError("unsupported_file", f"{file_name or 'The file'} is {kind}. {_SAVE_AS}")
    return _table(read_delimited(content, encoding=encoding, delimiter=delimiter))


def _table(
    lines: Iterator[tuple[int, list[Cell]]], *, sheet: str | None = None, other_sheets: tuple[str, ...] = ()
) -> SourceTable:
    """Return the table of the rows with values."""
    title_rows, header_number, header_cells, lines = _find_header(lines)
    columns = _read_header(header_cells)
    rows: list[SourceRow] = []
    unnamed: set[int] = set()
    for number, cells in lines:
        if len(rows) == MAX_ROWS:
            raise ClinicError("too_many_rows", f"At most {MAX_ROWS} rows can be imported. Split the file.")
        if number == header_number + 1 and _MERGED in cells:
            raise _merged_header()
        beyond = {column for column, cell in enumerate(cells) if cell is not None and column not in columns}
        unnamed.update(column for column in beyond if column < len(header_cells))
        row = tuple(cells[column] if column < len(cells) else None for column in columns)
        rows.append(SourceRow(number, row, too_long=any(column >= len(header_cells) for column in beyond)))
    if unnamed:
        raise ClinicError(
            "unnamed_columns",
            f"The columns {_letters(unnamed)} have values, but no name in row {header_number}. Name them.",
        )
    if not rows:
        raise ClinicError("no_rows", f"There are no values below the header in row {header_number}.")
    blank_rows = rows[-1].number - header_number - len(rows)
    return SourceTable(tuple(columns.values()), rows, blank_rows, title_rows, sheet, other_sheets)


def _find_header(
    lines: Iterator[tuple[int, list[Cell]]],
) -> tuple[int, int, list[Cell], Iterator[tuple[int, list[Cell]]]]:
    """Return the number of title rows, the number and the cells of the header, and the rows after it.

    The header is the first row with at least two cells. Rows with one cell above it are titles. If the first
    rows all have one cell, the file has one column, and the first row is its header.
    """
    first: list[tuple[int, list[Cell]]] = []
    for line in lines:
        first.append(line)
        if sum(cell not in (None, _MERGED) for cell in line[1]) > 1:
            return len(first) - 1, line[0], line[1], lines
        if len(first) > MAX_TITLE_ROWS:
            break
    if not first:
        raise ClinicError("no_rows", "The file is empty. Its first row must name the columns.")
    return 0, first[0][0], first[0][1], chain(first[1:], lines)


def _read_header(cells: list[Cell]) -> dict[int, str]:
    """Return the names of the columns by position. Columns without a name are left out."""
    if _MERGED in cells:
        raise _merged_header()
    broken = {position for position, cell in enumerate(cells) if isinstance(cell, CellError)}
    if broken:
        raise ClinicError(
            "unnamed_columns",
            f"The names of the columns {_letters(broken)} are errors. Write the names as text.",
        )
    names = {
        position: name
        for position, cell in enumerate(cells)
        if cell is not None and (name := clean_line(str(cell)))
    }
    if len(names) > MAX_COLUMNS:
        raise ClinicError(
            "too_many_columns", f"At most {MAX_COLUMNS} columns can be read. Delete the others."
        )
    counts = Counter(name.casefold() for name in names.values())
    repeated = [name for name in names.values() if counts[name.casefold()] > 1]
    if repeated:
        raise ClinicError(
            "duplicate_columns",
            f"Columns have the same name: {', '.join(repeated[:MAX_NAMED])}. Give each column its own name.",
        )
    return names


def _merged_header() -> ClinicError:
    return ClinicError(
        "merged_header",
        "The header has merged cells or two rows. Write one name for each column in one row.",
    )


def _letters(positions: set[int]) -> str:
    """Return the letters of columns as a spreadsheet program shows them."""
    names = []
    for position in sorted(positions)[:MAX_NAMED]:
        name, rest = "", position + 1
        while rest:
            rest, letter = divmod(rest - 1, 26)
            name = chr(ord("A") + letter) + name
        names.append(name)
    return ", ".join(names) + (" and more" if len(positions) > MAX_NAMED else "")
