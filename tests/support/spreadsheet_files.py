"""Workbooks of hand-made XML, for what no library writes."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
HEAD = (
    '<row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c>'
    '<c r="B1" t="inlineStr"><is><t>b</t></is></c></row>'
)


def workbook(
    rows: str,
    *,
    before: str = "",
    after: str = "",
    book: str = "",
    parts: Mapping[str, str] | None = None,
    date_system: str = "",
) -> bytes:
    """Return a workbook with one sheet of these rows.

    `before` stands before the root of the sheet, `after` behind its rows, `book` behind the list of sheets.
    """
    sheet = f'{before}<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData>{after}</worksheet>'
    return archive({"xl/worksheets/sheet1.xml": sheet, **base_parts(book, date_system), **(parts or {})})


def base_parts(book: str = "", date_system: str = "") -> dict[str, str]:
    """Return the parts around a sheet."""
    return {
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="r" '
        f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{_OFFICE}">{date_system}<sheets>'
        f'<sheet name="Sheet 1" sheetId="1" r:id="s1"/></sheets>{book}</workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="s1" '
        f'Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
    }


def archive(parts: Mapping[str, str | bytes]) -> bytes:
    """Return a zip archive with these files."""
    output = BytesIO()
    with ZipFile(output, "w", ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return output.getvalue()
