"""Reading workbooks: values, errors that calamine hides, and files that are refused."""

from __future__ import annotations

from datetime import date, datetime, time
from io import BytesIO
from typing import Any

import openpyxl
import pytest
import xlsxwriter

from errors import ClinicError
from services.spreadsheets.cells import CellError
from services.spreadsheets.reading import SourceTable, read_table
from services.spreadsheets.workbook_process import describe_workbook
from tests.support.spreadsheet_files import HEAD, MAIN, archive, base_parts, workbook


@pytest.fixture(autouse=True)
def _without_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read workbooks in this process: starting one for each takes a second. The process has its own tests."""
    monkeypatch.setattr(
        "services.spreadsheets.workbooks.run_process", lambda content: b"".join(describe_workbook(content))
    )


def by_openpyxl(rows: list[list[Any]], **sheets: list[list[Any]]) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name, content in sheets.items():
        sheet = book.create_sheet(name)
        for row in content:
            sheet.append(row)
    return book


def read(book: openpyxl.Workbook) -> SourceTable:
    output = BytesIO()
    book.save(output)
    return read_table(output.getvalue())


def cells(rows: str, **options: Any) -> list[tuple[Any, ...]]:
    return [row.cells for row in read_table(workbook(HEAD + rows, **options)).rows]


def code_of(content: bytes, **options: Any) -> str:
    with pytest.raises(ClinicError) as refusal:
        read_table(content, **options)
    assert refusal.value.message.endswith(".")
    return refusal.value.code


def test_values_keep_their_types() -> None:
    day, moment = date(1990, 5, 4), datetime(2026, 3, 4, 9, 30)  # noqa: DTZ001 - a cell has no zone
    row = ["Zoë", "0712", 712345678, 0.5, 1.5, True, day, moment, time(9, 30), "=x", " \u00a0 ", 12.0]

    table = read(by_openpyxl([[f"column {n}" for n in range(len(row))], row]))

    # openpyxl writes a text that begins with "=" as a formula, without a result
    expected = [*row[:9], CellError("formula_without_value"), None, 12]
    assert list(table.rows[0].cells) == expected
    assert [type(cell) for cell in table.rows[0].cells] == [type(cell) for cell in expected]
    assert (table.sheet, table.rows[0].number) == ("Sheet", 2)


def test_blank_rows_are_counted_and_titles_are_skipped() -> None:
    book = by_openpyxl(
        [["Patients 2026"], [], [" name ", "phone", None], ["Jane", 1], [None, " "], ["John", 2]]
    )
    book.active.merge_cells("A1:C1")

    table = read(book)

    assert table.header == ("name", "phone")
    assert [row.number for row in table.rows] == [4, 6]
    assert (table.blank_rows, table.title_rows) == (1, 1)


def test_the_first_visible_sheet_with_a_value_is_read() -> None:
    rows = [["a", "b"], [1, 2]]
    book = by_openpyxl([], Old=rows, Patients=rows, Notes=rows)
    book["Old"].sheet_state = "hidden"

    table = read(book)

    assert (table.sheet, table.other_sheets) == ("Patients", ("Sheet", "Notes"))


def test_errors_and_formulas_without_a_result_are_found() -> None:
    rows = (
        '<row r="2"><c r="A2" t="e"><v>#N/A</v></c><c r="B2" t="e"><f>1/0</f><v>#DIV/0!</v></c></row>'
        '<row r="3"><c r="A3"><f>1+1</f></c><c r="B3"><f>1+1</f><v></v></c></row>'
        '<row r="4"><c r="A4"><f>1+1</f><v>2</v></c><c r="B4" t="str"><f>T(1)</f><v></v></c></row>'
        '<row r="5"><c r="A5" t="inlineStr"><is><t>#REF!</t></is></c><c r="B5"><v>NaN</v></c></row>'
    )
    error, formula = CellError("error_value"), CellError("formula_without_value")

    assert cells(rows) == [(error, error), (formula, formula), (2, None), (error, error)]
    assert cells(rows.replace("<c ", "<c  "))[0] == (error, error)


def test_a_result_that_no_program_has_calculated_is_not_used() -> None:
    output = BytesIO()
    with xlsxwriter.Workbook(output) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_row(1, 0, ["=1+1", 5])  # xlsxwriter stores the result 0

    assert read_table(output.getvalue()).rows[0].cells == (CellError("formula_without_value"), 5)


def test_number_formats() -> None:
    formats = [
        (1, "yyyy-mm-dd", date(1900, 1, 1)),
        (59, "yyyy-mm-dd", date(1900, 2, 28)),
        (60, "yyyy-mm-dd", CellError("invalid_date")),  # 1900-02-29
        (61, "dd/mm/yyyy", date(1900, 3, 1)),
        (-3, "yyyy-mm-dd", CellError("invalid_date")),
        (2_958_466, "yyyy-mm-dd", CellError("invalid_date")),
        (0.395833333, "hh:mm", time(9, 30)),
        (1.25, "[h]:mm", "30:00:00"),
        (7, "000000", "000007"),
        (7, '0.0" days"', 7),
        (7, "[Red]0", 7),
        (0.5, "0%", 0.5),
    ]
    output = BytesIO()
    with xlsxwriter.Workbook(output) as book:
        sheet = book.add_worksheet()
        for column, (number, code, _) in enumerate(formats):
            sheet.write_string(0, column, f"column {column}")
            sheet.write_number(1, column, number, book.add_format({"num_format": code}))

    assert list(read_table(output.getvalue()).rows[0].cells) == [expected for _, _, expected in formats]


def test_the_date_system_of_1904() -> None:
    styles = (
        f'<styleSheet xmlns="{MAIN}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>'
    )
    rows = '<row r="2"><c r="A2" s="1"><v>1</v></c></row>'

    found = cells(rows, parts={"xl/styles.xml": styles}, date_system='<workbookPr date1904="1"/>')

    assert found == [(date(1904, 1, 2), None)]


def test_rich_texts_escapes_and_positions() -> None:
    rows = (
        '<row><c t="inlineStr"><is><r><t>Ja</t></r><r><t>ne</t></r></is></c></row>'
        '<row r="5"><c r="B5" t="inlineStr"><is><t>a_x000D_b_x005F_x000D_</t></is></c></row>'
    )

    assert cells(rows) == [("Jane", None), (None, "a\rb_x000D_")]


def test_a_table_may_begin_in_any_cell() -> None:
    book = by_openpyxl([[], [None, None, "a", "b"], [], [None, None, 1, "#N/A"]])

    table = read(book)

    assert table.header == ("a", "b")
    assert [(row.number, row.cells) for row in table.rows] == [(4, (1, CellError("error_value")))]


def test_prefixes_of_names_do_not_hide_errors() -> None:
    sheet = (
        f'<x:worksheet xmlns:x="{MAIN}"><x:sheetData>{HEAD}<row r="2"><c r="A2" t="e"><v>#N/A</v></c></row>'
    )
    sheet = sheet.replace("<row", "<x:row").replace("</row", "</x:row") + "</x:sheetData></x:worksheet>"
    for name in ("c", "v", "is", "t"):
        sheet = sheet.replace(f"<{name}>", f"<x:{name}>").replace(f"<{name} ", f"<x:{name} ")
        sheet = sheet.replace(f"</{name}>", f"</x:{name}>")

    table = read_table(archive({**base_parts(), "xl/worksheets/sheet1.xml": sheet}))

    assert table.rows[0].cells == (CellError("error_value"), None)


def test_merged_cells_of_rows_are_errors_of_the_rows() -> None:
    book = by_openpyxl([["family", "name"], ["", "Ann"], ["Doe", "Jane"], [None, "John"], ["Roe", None]])
    book.active.merge_cells("A3:A4")
    book.active.merge_cells("A6:B8")  # empty

    assert [row.cells for row in read(book).rows] == [
        (None, "Ann"),
        ("Doe", "Jane"),
        (CellError("merged_cell"), "John"),
        ("Roe", None),
    ]


@pytest.mark.parametrize("merged", ["B1:C1", "A1:A2"])
def test_a_merged_header_is_refused(merged: str) -> None:
    book = by_openpyxl([["name", "contact", None], [None, "phone", "e-mail"], ["Jane", 1, 2]])
    book.active.merge_cells(merged)
    output = BytesIO()
    book.save(output)

    assert code_of(output.getvalue()) == "merged_header"


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (OLE, "unsupported_file", ".xls"),
        (b"%PDF-1.7", "unsupported_file", "PDF"),
        (b"\xef\xbb\xbf <html><table>", "unsupported_file", "HTML"),
        (archive({"mimetype": "application/vnd.oasis.opendocument.spreadsheet"}), "unsupported_file", ".ods"),
        (archive({"xl/workbook.bin": ""}), "unsupported_file", ".xlsb"),
        (archive({"word/document.xml": ""}), "unsupported_file", ".xlsx"),
        (workbook(HEAD, parts={"xl/vbaProject.bin": ""}), "unsupported_file", "macros"),
        (workbook(HEAD)[:-30], "unreadable_file", "damaged"),
        (workbook(HEAD + "<row><c>"), "unreadable_file", "damaged"),
        (workbook(HEAD, before='<!DOCTYPE x [<!ENTITY a "aaaa">]>'), "unreadable_file", "damaged"),
        (
            workbook(HEAD, after='<mergeCells><mergeCell ref="A0:ZZZZ9"/></mergeCells>'),
            "unreadable_file",
            "damaged",
        ),
        (workbook('<row r="1"><c r="1A"><v>1</v></c></row>'), "unreadable_file", "damaged"),
        (workbook('<row r="x"><c r="A٣"><v>1</v></c></row>'), "unreadable_file", "damaged"),
        (workbook(""), "no_rows", "sheet"),
        (workbook(HEAD), "no_rows", "header"),
        (workbook(HEAD + '<row r="2"><c r="C2"><v>1</v></c></row>'), "unnamed_columns", "C"),
        (workbook(HEAD.replace(">b<", ">A<")), "duplicate_columns", "a, A"),
    ],
)
def test_files_that_are_refused(content: bytes, code: str, word: str) -> None:
    with pytest.raises(ClinicError) as refusal:
        read_table(content, file_name="patients.xls")

    assert refusal.value.code == code
    assert word in refusal.value.message


def test_a_table_has_at_most_50_000_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.spreadsheets.reading.MAX_ROWS", 2)
    row = "<row><c><v>1</v></c></row>"

    assert len(read_table(workbook(HEAD + row * 2 + "<row/>" * 5)).rows) == 2
    assert code_of(workbook(HEAD + row * 3)) == "too_many_rows"
