"""XLSX files with typed cells. A text is never a formula, and every value is exact."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import IO, TYPE_CHECKING, Any

from errors import ClinicError
from lazy_imports import LazyModule
from services.spreadsheets.file_columns import CellKind, FileColumn

if TYPE_CHECKING:
    import xlsxwriter
    from xlsxwriter import exceptions
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet
else:
    xlsxwriter = LazyModule("xlsxwriter")
    exceptions = LazyModule("xlsxwriter.exceptions")

MAX_ROWS = 1_048_575  # of a worksheet, without the header
MAX_TEXT = 32_767  # UTF-16 units of a cell
MAX_EXACT_INTEGER = 2**53
MAX_EXACT_DIGITS = 15  # of an amount; the cents of a longer one change in a float
CUT_MARK = " […] cut here: a cell holds 32,767 characters; CSV has the whole text"
MAX_NAMED_CUTS = 100
ACCENT = "#0B6E6E"  # that of the documents on paper
# Excel counts a day 1900-02-29 that never was: earlier dates have other numbers in other programs.
FIRST_DAY = date(1900, 3, 1)
DAY_ZERO = date(1899, 12, 30)
FOLDER = "clinic-sheet-"  # of the rows of a file that is being written
UNUSED_AFTER = 86_400.0  # seconds
SAMPLE = 200  # rows that decide the width of the columns
NARROWEST, WIDEST = 8, 48  # characters
WIDTHS = {CellKind.DAY: 12, CellKind.INSTANT: 20}
FILTER_BUTTON = 3  # characters


@dataclass(frozen=True)
class _Styles:
    """The formats of a workbook."""

    header: Format
    number_header: Format
    name: Format
    day: Format
    instant: Format
    decimals: Mapping[int, Format]  # number of places -> format


def write_xlsx(
    target: IO[bytes],
    columns: Sequence[FileColumn],
    rows: Iterable[Sequence[Any]],
    *,
    name: str,
    zone: tzinfo,
    about: Mapping[str, str],
) -> None:
    """Write a table as an XLSX file with a second sheet `about`.

    Instants are local times of `zone`. A local time that exists twice, and a date before 1900-03-01, stay
    texts: no number of Excel means exactly that time. A text that no cell can hold is cut; the cut cells are
    marked, and named on the sheet `about`. Raises 422 `too_many_rows` if a sheet has more than 4 GiB.
    """
    _remove_old_folders()
    options = {"constant_memory": True, "strings_to_urls": False, "strings_to_formulas": False}
    try:
        with (
            TemporaryDirectory(prefix=FOLDER) as folder,
            xlsxwriter.Workbook(target, options | {"tmpdir": folder}) as workbook,
        ):
            styles = _add_styles(workbook)
            sheet = _TableSheet(workbook.add_worksheet(name[:31]), columns, styles, zone)
            count = sheet.write(rows)
            lines = {**about, "rows": f"{count}", **sheet.cuts}
            _write_about(workbook.add_worksheet("about"), lines, styles)
    except exceptions.FileSizeError:
        message = "The sheet has more than 4 GiB. Use the format csv, or add a filter."
        raise ClinicError("too_many_rows", message) from None


def _remove_old_folders() -> None:
    """Remove the temporary folders of processes that were killed: they contain data of patients."""
    before = time.time() - UNUSED_AFTER
    for folder in Path(gettempdir()).glob(f"{FOLDER}*"):
        with suppress(OSError):  # another process has removed it
            if folder.stat().st_mtime < before:
                shutil.rmtree(folder)


def _add_styles(workbook: xlsxwriter.Workbook) -> _Styles:
    header = {"bold": True, "font_color": "#FFFFFF", "bg_color": ACCENT, "valign": "vcenter"}
    return _Styles(
        header=workbook.add_format(header),
        number_header=workbook.add_format(header | {"align": "right"}),
        name=workbook.add_format({"bold": True, "font_color": ACCENT}),
        day=workbook.add_format({"num_format": "yyyy-mm-dd", "align": "left"}),
        instant=workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss", "align": "left"}),
        decimals={
            places: workbook.add_format({"num_format": f"#,##0.{'0' * places}"}) for places in range(1, 5)
        },
    )


class _TableSheet:
    """The sheet with the rows. It is written row by row, so that its size does not matter."""

    def __init__(
        self, sheet: Worksheet, columns: Sequence[FileColumn], styles: _Styles, zone: tzinfo
    ) -> None:
        self.sheet, self.columns, self.styles, self.zone = sheet, columns, styles, zone
        self.number_of_cuts = 0
        self.named_cuts: list[str] = []
        writers = {
            CellKind.NUMBER: self._write_number,
            CellKind.BOOLEAN: self.sheet.write_boolean,
            CellKind.DAY: self._write_day,
            CellKind.INSTANT: self._write_instant,
        }
        self.writers = [writers.get(column.kind, self._write_text) for column in columns]

    def write(self, rows: Iterable[Sequence[Any]]) -> int:
        """Write the header and the rows. Return the number of rows."""
        iterator = iter(rows)
        sample = list(itertools.islice(iterator, SAMPLE))
        for number, column in enumerate(self.columns):
            self.sheet.set_column(number, number, _width(column, [row[number] for row in sample]))
        self.sheet.freeze_panes(1, 0)
        self.sheet.repeat_rows(0)  # on each printed page
        self.sheet.set_landscape()
        self.sheet.set_row(0, 20)
        for number, column in enumerate(self.columns):
            is_number = column.kind is CellKind.NUMBER
            style = self.styles.number_header if is_number else self.styles.header
            self.sheet.write_string(0, number, column.heading, style)
        count = self._write_rows(itertools.chain(sample, iterator))
        self.sheet.autofilter(0, 0, count, len(self.columns) - 1)
        return count

    def _write_rows(self, rows: Iterator[Sequence[Any]]) -> int:
        count = 0
        for count, row in enumerate(rows, 1):
            for number, (write, value) in enumerate(zip(self.writers, row, strict=True)):
                if value is not None:
                    write(count, number, value)
        return count

    @property
    def cuts(self) -> dict[str, str]:
        """Return the line about the cut texts, if there are any."""
        if not self.number_of_cuts:
            return {}
        named = ", ".join(self.named_cuts)
        more = self.number_of_cuts - len(self.named_cuts)
        return {"cut texts": f"{named} and {more} more" if more else named}

    def _write_number(self, row: int, column: int, value: Any) -> None:
        if isinstance(value, str):
            number = Decimal(value).as_tuple()
            if len(number.digits) > MAX_EXACT_DIGITS:
                self.sheet.write_string(row, column, value)
                return
            places = max(0, -int(number.exponent))
            self.sheet.write_number(row, column, float(value), self.styles.decimals.get(places))
        elif isinstance(value, int) and abs(value) > MAX_EXACT_INTEGER:
            self.sheet.write_string(row, column, str(value))
        else:
            self.sheet.write_number(row, column, value)

    def _write_day(self, row: int, column: int, value: str) -> None:
        serial = _day_number(value)
        if serial is None:
            self.sheet.write_string(row, column, value)
        else:
            self.sheet.write_number(row, column, serial, self.styles.day)

    def _write_instant(self, row: int, column: int, value: str) -> None:
        serial = _instant_number(value, self.zone)
        if serial is None:
            self.sheet.write_string(row, column, value)
        else:
            self.sheet.write_number(row, column, serial, self.styles.instant)

    def _write_text(self, row: int, column: int, value: Any) -> None:
        text = value if isinstance(value, str) else str(value)
        if len(text) > MAX_TEXT // 2 and _utf16_units(text) > MAX_TEXT:
            text = _cut(text)
            self.number_of_cuts += 1
            if len(self.named_cuts) < MAX_NAMED_CUTS:
                self.named_cuts.append(f"row {row + 1} {self.columns[column].heading}")
        self.sheet.write_string(row, column, text)


def _width(column: FileColumn, sample: Sequence[Any]) -> int:
    """Return the width of a column in characters: that of its heading and its first values."""
    longest = max((len(str(value)) for value in sample if value is not None), default=0)
    content = WIDTHS.get(column.kind, longest + 1)
    return min(WIDEST, max(NARROWEST, content, len(column.heading) + FILTER_BUTTON))


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str) -> str:
    limit = 2 * (MAX_TEXT - len(CUT_MARK))
    return text.encode("utf-16-le")[:limit].decode("utf-16-le", errors="ignore") + CUT_MARK


@lru_cache(maxsize=4096)  # the rows of a list share many dates
def _day_number(text: str) -> int | None:
    """Return Excel's number of a date, or None for an incomplete or very old one."""
    if len(text) != len("YYYY-MM-DD"):
        return None
    day = date.fromisoformat(text)
    return (day - DAY_ZERO).days if day >= FIRST_DAY else None


@lru_cache(maxsize=4096)
def _instant_number(text: str, zone: tzinfo) -> float | None:
    """Return Excel's number of an instant, or None if no number is exactly this instant."""
    local = datetime.fromisoformat(text).astimezone(zone)
    if local.date() < FIRST_DAY or local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset():
        return None
    midnight = datetime.combine(DAY_ZERO, datetime.min.time())
    return (local.replace(tzinfo=None) - midnight) / timedelta(days=1)


def _write_about(sheet: Worksheet, lines: Mapping[str, str], styles: _Styles) -> None:
    sheet.set_column(0, 0, 20)
    sheet.set_column(1, 1, 90)
    for row, (name, text) in enumerate(lines.items()):
        sheet.write_string(row, 0, name, styles.name)
        sheet.write_string(row, 1, text[:MAX_TEXT])
