"""XLSX files: the value and the format of each kind of cell, read back by another library."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl
import pytest
from openpyxl.cell import Cell
from python_calamine import CalamineWorkbook

from services.spreadsheets import xlsx_files
from services.spreadsheets.file_columns import CellKind, FileColumn
from services.spreadsheets.xlsx_files import CUT_MARK, MAX_TEXT, write_xlsx

BERLIN = ZoneInfo("Europe/Berlin")


def written(kind: CellKind, values: Sequence[Any]) -> bytes:
    """Return an XLSX file with one column of these values."""
    target = io.BytesIO()
    rows = ([value] for value in values)
    columns = [FileColumn(("patient", "name"), kind)]
    write_xlsx(target, columns, rows, name="patients", zone=BERLIN, about={"time zone": "Europe/Berlin"})
    return target.getvalue()


def cells(kind: CellKind, *values: Any) -> list[Cell]:
    """Return the cells of the values, as openpyxl reads them."""
    sheet = openpyxl.load_workbook(io.BytesIO(written(kind, values))).worksheets[0]
    return [sheet.cell(row, 1) for row in range(2, len(values) + 2)]


def local(*members: int) -> datetime:
    """Return a local time, as a cell holds it."""
    return datetime(*members)  # type: ignore[arg-type]  # noqa: DTZ001


def calamine_values(kind: CellKind, *values: Any) -> list[Any]:
    """Return the values, as calamine reads them."""
    workbook = CalamineWorkbook.from_filelike(io.BytesIO(written(kind, values)))
    return [row[0] for row in workbook.get_sheet_by_index(0).to_python()[1:]]


TEXTS = [
    *(
        "=1+1",
        "@SUM(A1)",
        "+254 712 345 678",
        "-1",
        "\t=1",
        "{=1}",
        "0712345678",
        "https://x.example",
        "12/3",
    ),
    *("محمد عبد الله", "王芳", "O'Brien & <Sons>", " spaces ", "two\nlines", "_x0041_", "bell\x07", "\x85"),
    *("true", "1e5", "2026-03-02", "👩‍⚕️", "internal:A1", "12/3"),
]


def test_texts_stay_texts() -> None:
    read = cells(CellKind.TEXT, *TEXTS)

    assert {cell.data_type for cell in read} == {"s"}
    assert [cell.hyperlink for cell in read] == [None] * len(TEXTS)
    assert calamine_values(CellKind.TEXT, *TEXTS) == TEXTS
    assert b"<f>" not in b"".join(parts(written(CellKind.TEXT, TEXTS)))


def parts(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [archive.read(name) for name in archive.namelist()]


@pytest.mark.parametrize(
    ("value", "number", "number_format"),
    [
        ("9999999999.99", 9999999999.99, "#,##0.00"),
        ("-0.01", -0.01, "#,##0.00"),
        ("9999999999.9999", 9999999999.9999, "#,##0.0000"),
        ("9999999999", 9999999999, "General"),  # a currency without places
        ("9999999999999.99", 9999999999999.99, "#,##0.00"),
        ("99999999999999.99", "99999999999999.99", "General"),  # no float is this amount
        (9007199254740992, 9007199254740992, "General"),
        (9007199254740993, "9007199254740993", "General"),  # no float is this number
        (30.5, 30.5, "General"),
    ],
)
def test_numbers_are_exact(value: Any, number: Any, number_format: str) -> None:
    (cell,) = cells(CellKind.NUMBER, value)

    assert (cell.value, cell.number_format) == (number, number_format)


def test_every_cent_survives_the_float() -> None:
    amounts = [f"{whole}.{cents:02}" for whole in (0, 7, 999_999, 9_999_999_999) for cents in range(100)]

    read = calamine_values(CellKind.NUMBER, *amounts)

    assert [f"{number:.2f}" for number in read] == amounts


def test_dates_are_dates_except_those_before_march_1900() -> None:
    days = ["2026-03-02", "1900-03-01", "1900-02-28", "1899-12-31", "1890-01-01", "1984", "1984-02"]

    read = calamine_values(CellKind.DAY, *days)

    assert read == [date(2026, 3, 2), date(1900, 3, 1), *days[2:]]
    assert cells(CellKind.DAY, days[0])[0].number_format == "yyyy-mm-dd"


def test_instants_are_local_times_except_those_that_exist_twice() -> None:
    instants = [
        "2026-03-29T01:59:59+01:00",  # the last second before the spring gap
        "2026-03-29T03:00:00+02:00",
        "2026-10-25T01:59:59+02:00",
        "2026-10-25T02:30:00+02:00",  # the hour that exists twice
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
        "1890-05-05T00:00:00+00:00",
        "2026-01-01T10:20:30.123456+01:00",
    ]

    read = calamine_values(CellKind.INSTANT, *instants)

    assert read[:2] == [local(2026, 3, 29, 1, 59, 59), local(2026, 3, 29, 3)]
    assert read[2] == local(2026, 10, 25, 1, 59, 59)
    assert [read[3], read[4], read[6]] == [instants[3], instants[4], instants[6]]
    assert read[5] == local(2026, 10, 25, 3)
    assert abs(read[7] - local(2026, 1, 1, 10, 20, 30, 123456)).total_seconds() < 0.001


def test_booleans_and_missing_values() -> None:
    assert calamine_values(CellKind.BOOLEAN, True, None, False) == [True, "", False]


def test_a_text_that_no_cell_holds_is_cut_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx_files, "MAX_NAMED_CUTS", 1)
    fits, pairs, long = "a" * MAX_TEXT, "👩" * 16_384, "b" * 40_000  # an emoji takes two units
    content = written(CellKind.TEXT, [fits, pairs, long])

    workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
    read = [row[0] for row in workbook.get_sheet_by_index(0).to_python()[1:]]

    assert read[0] == fits
    assert read[1].endswith(f"👩{CUT_MARK}")
    assert len(read[2]) == MAX_TEXT
    assert workbook.get_sheet_by_name("about").to_python()[-1] == [
        "cut texts",
        "row 3 patient.name and 1 more",
    ]


def test_the_rows_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, running = tmp_path / "clinic-sheet-killed", tmp_path / "clinic-sheet-running"
    for folder in (killed, running):
        folder.mkdir()
        (folder / "rows").write_text("Amina Otieno")
    os.utime(killed, (0, 0))

    written(CellKind.TEXT, ["Amina"])

    assert list(tmp_path.iterdir()) == [running]


def test_the_sheet_is_ready_to_use() -> None:
    workbook = openpyxl.load_workbook(io.BytesIO(written(CellKind.TEXT, ["Amina", "x" * 200])))
    sheet = workbook["patients"]

    assert workbook.sheetnames == ["patients", "about"]
    assert (sheet.cell(1, 1).value, sheet.freeze_panes, sheet.auto_filter.ref) == (
        "patient.name",
        "A2",
        "A1:A3",
    )
    assert sheet.column_dimensions["A"].width == pytest.approx(xlsx_files.WIDEST, abs=1)
    about = dict(workbook["about"].iter_rows(values_only=True))
    assert about == {"time zone": "Europe/Berlin", "rows": "2"}
