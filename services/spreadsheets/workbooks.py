"""Read workbooks (xlsx)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from python_calamine import load_workbook

from services.spreadsheets.cells import Cell


def is_archive(content: bytes) -> bool:
    """Return True if the content is a zip archive, as a workbook is."""
    return content.startswith(b"PK")


def read_workbook(content: bytes) -> Iterator[tuple[int, tuple[Cell, ...]]]:
    """Yield the rows of the first sheet with their numbers."""
    sheet = load_workbook(BytesIO(content)).get_sheet_by_index(0)
    for number, cells in enumerate(sheet.to_python(skip_empty_area=False), start=1):
        yield number, tuple(None if cell == "" else cell for cell in cells)  # type: ignore[misc]
