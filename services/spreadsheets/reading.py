"""Read the table of a spreadsheet file: its header and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.spreadsheets.cells import Cell
from services.spreadsheets.delimited import read_delimited
from services.spreadsheets.workbooks import is_archive, read_workbook

MAX_BYTES = 10 * 1024 * 1024


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
    """Return the table of a spreadsheet file. Raises `ClinicError` for a file that cannot be read.

    The first bytes decide the kind of file. The name of the file only completes a message.
    """
    lines = list(
        read_workbook(content) if is_archive(content) else read_delimited(content, encoding, delimiter)
    )
    (_, header), *rows = [
        (number, cells) for number, cells in lines if any(cell is not None for cell in cells)
    ]
    width = len(header)
    return SourceTable(
        header=tuple(str(cell) for cell in header),
        rows=[SourceRow(n, (*c, *(None,) * width)[:width], len(c) > width) for n, c in rows],
    )
