"""The report of an import: the rows with problems, as a spreadsheet to correct."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select

from lazy_imports import LazyModule
from models import Import, ImportedRow
from services.imports.content import ReadFile, file_removed
from services.rows import execute_core
from services.spreadsheets.cells import Cell, CellError

if TYPE_CHECKING:
    import xlsxwriter
else:
    xlsxwriter = LazyModule("xlsxwriter")

TITLES = ("Row", "State", "Field", "Problem")
MAX_CELL = 32_767  # characters that a cell of a workbook holds


def report(row: Import, file: ReadFile | None) -> bytes:
    """Return an XLSX file of the rows with problems. Raises 409 `conflict` if the file was removed.

    A row with several problems has several lines. The values are those of the original columns.
    """
    if file is None:
        raise file_removed()
    cells = {source.number: source.cells for source in file.table.rows}
    output = io.BytesIO()
    options = {"constant_memory": True, "in_memory": True, "strings_to_formulas": False}
    workbook = xlsxwriter.Workbook(output, options | {"strings_to_urls": False, "strings_to_numbers": False})
    sheet = workbook.add_worksheet("Problems")
    bold = workbook.add_format({"bold": True})
    formats = {
        kind: workbook.add_format({"num_format": text})
        for kind, text in (
            (datetime, "yyyy-mm-dd hh:mm"),
            (date, "yyyy-mm-dd"),
            (time, "hh:mm:ss"),
        )
    }
    sheet.freeze_panes(1, 0)
    for column, title in enumerate((*TITLES, *row.header)):
        sheet.write_string(0, column, title[:MAX_CELL], bold)
    line = 0
    for result in _with_problems(row.id):
        for problem in result.problems:
            line += 1
            sheet.write_number(line, 0, result.number)
            for column, text in enumerate((result.state, problem["field"], problem["message"]), 1):
                sheet.write_string(line, column, text[:MAX_CELL])
            for column, cell in enumerate(cells.get(result.number, ()), len(TITLES)):
                _write(sheet, line, column, cell, formats)
    workbook.close()
    return output.getvalue()


def _with_problems(import_id: int) -> Iterator[Row[Any]]:
    rows = execute_core(
        select(ImportedRow.number, ImportedRow.state, ImportedRow.problems)
        .where(ImportedRow.import_id == import_id)
        .order_by(ImportedRow.number)
    )
    yield from (row for row in rows if row.problems)


def _write(sheet: Any, line: int, column: int, cell: Cell, formats: dict[Any, Any]) -> None:
    """Write a cell with its type. A text is never a formula."""
    if cell is None:
        return
    if isinstance(cell, CellError):
        sheet.write_string(line, column, f"({cell.code.replace('_', ' ')})")
    elif isinstance(cell, bool):
        sheet.write_boolean(line, column, cell)
    elif isinstance(cell, (int, float)):
        sheet.write_number(line, column, cell)
    elif isinstance(cell, (datetime, date, time)):
        sheet.write_datetime(line, column, cell, formats[type(cell)])
    else:
        sheet.write_string(line, column, cell[:MAX_CELL])
