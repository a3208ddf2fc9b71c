"""The process that reads one workbook: bytes from standard input, lines of JSON to standard output.

It has limits of memory and time. calamine ends its process if it cannot get memory, so it does not run in the
server.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import traceback
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from io import BytesIO
from typing import Any

from python_calamine import load_workbook

from services.spreadsheets.cells import CellError, text_cell
from services.spreadsheets.sheet_scan import BadFileError, SheetFindings, SheetScan
from services.spreadsheets.workbook_archive import SheetEntry, WorkbookArchive, damaged, too_large

MAX_MEMORY = 1_500_000_000  # bytes of address space
MAX_CPU = 30  # seconds
MAX_OUTPUT = 100_000_000  # bytes; a text that many cells share is repeated
MAX_EXACT = 10**15  # a number has 15 exact digits
HALF_SECOND = timedelta(microseconds=500_000)
SECONDS_OF_DAY = 86_400


def main() -> None:
    """Read a workbook and write its rows, or the reason why it is refused."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU, MAX_CPU))
    try:
        lines = describe_workbook(sys.stdin.buffer.read())
    except Exception as error:  # the message of an exception may contain a value of the file
        sys.exit("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__)
    sys.stdout.buffer.writelines(lines)


def describe_workbook(content: bytes) -> list[bytes]:
    """Return the lines about a workbook: the sheet and its rows, or the reason why it is refused."""
    try:
        return list(_lines(content))
    except BadFileError as error:
        return [_dump({"code": error.code, "message": error.message})]


def _lines(content: bytes) -> Iterator[bytes]:
    archive = WorkbookArchive(content)
    visible = [sheet for sheet in archive.sheets() if sheet.is_visible]
    styles, trust_results = archive.number_styles(), archive.trusts_results()
    for sheet in visible:
        scan = SheetScan(date_styles=styles.dates, padded=styles.padded, trust_results=trust_results)
        findings = scan.run(archive.part(sheet.path))
        if findings.last_row >= 0:
            break
    else:
        raise BadFileError("no_rows", "No visible sheet of the workbook has a value.")
    others = [other.name for other in visible if other is not sheet]
    yield _dump({"sheet": sheet.name, "other_sheets": others})
    written = 0
    for number, cells in _rows(archive, sheet, findings):
        line = _dump([number, cells])
        written += len(line)
        if written > MAX_OUTPUT:
            raise too_large()
        yield line


def _rows(archive: WorkbookArchive, sheet: SheetEntry, findings: SheetFindings) -> Iterator[tuple[int, Any]]:
    """Yield the rows with values, with their numbers from 1."""
    values = _calamine_rows(archive.repacked(sheet), sheet.name)
    merged = _MergedCells(findings)
    for index in range(findings.last_row + 1):
        cells = [_convert(value) for value in next(values, [])]
        cells += [None] * (findings.last_column + 1 - len(cells))
        for column, digits in findings.padded.get(index, {}).items():
            if type(cells[column]) is int and cells[column] >= 0:
                cells[column] = str(cells[column]).zfill(digits)
        for column, code in findings.errors.get(index, {}).items():
            cells[column] = {"error": code}
        merged.mark(index, cells)
        if any(cell is not None for cell in cells):
            yield index + 1, cells


def _calamine_rows(content: bytes, sheet: str) -> Iterator[list[Any]]:
    """Yield the values of each row from the first cell of the sheet."""
    try:
        table = load_workbook(BytesIO(content)).get_sheet_by_name(sheet)
        left = [""] * (table.start or (0, 0))[1]  # iter_rows begins with the first row, but not column
        for values in table.iter_rows():
            yield left + values
    except (MemoryError, GeneratorExit):
        raise
    except BaseException:  # a panic of calamine is no Exception
        raise damaged() from None


def _convert(value: Any) -> Any:
    """Return a value as JSON. Dates, times and errors become an object with one member."""
    if value == "":  # by far the most frequent value of a wide sheet
        return None
    if isinstance(value, str):
        cell = text_cell(value)
        return {"error": cell.code} if isinstance(cell, CellError) else cell
    if isinstance(value, float):
        if not math.isfinite(value):
            return {"error": "error_value"}
        return int(value) if value.is_integer() and abs(value) < MAX_EXACT else value
    if isinstance(value, datetime):
        return {"datetime": (value + HALF_SECOND).replace(microsecond=0).isoformat()}
    if isinstance(value, time):
        value = timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second + value.microsecond / 1e6
        )
    if isinstance(value, timedelta):
        seconds = round(value.total_seconds())
        text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return {"time": text} if 0 <= seconds < SECONDS_OF_DAY else text
    return {"date": value.isoformat()} if isinstance(value, date) else value


class _MergedCells:
    """Mark the cells that a merged cell with a value covers."""

    def __init__(self, findings: SheetFindings) -> None:
        self._last_row, self._last_column = findings.last_row, findings.last_column
        self._left = (self._last_row + 1) * (self._last_column + 1)  # merged cells cannot overlap
        self._starting: dict[int, list[tuple[int, int, int]]] = {}
        self._covered: dict[int, list[range]] = {}
        for top, left, bottom, right in findings.merged:
            self._starting.setdefault(top, []).append((left, bottom, right))

    def mark(self, row: int, cells: list[Any]) -> None:
        """Mark the covered cells of the next row."""
        for left, last_row, last_column in self._starting.get(row, ()):
            if left > self._last_column or cells[left] is None:
                continue
            bottom, right = min(last_row, self._last_row), min(last_column, self._last_column)
            self._left -= (bottom - row + 1) * (right - left + 1)
            if self._left < 0:
                raise damaged()
            for covered in range(row, bottom + 1):
                self._covered.setdefault(covered, []).append(range(left + (covered == row), right + 1))
        for columns in self._covered.pop(row, ()):
            for column in columns:
                cells[column] = {"error": "merged_cell"}


def _dump(value: Any) -> bytes:
    return (
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"
    )


if __name__ == "__main__":
    main()
