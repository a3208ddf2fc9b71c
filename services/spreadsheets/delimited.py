"""Read text files with delimiters (CSV)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO

from services.spreadsheets.cells import Cell


def read_delimited(
    content: bytes, encoding: str | None, delimiter: str | None
) -> Iterator[tuple[int, tuple[Cell, ...]]]:
    """Yield the rows of a text file with their numbers."""
    text = content.decode(encoding or "utf-8-sig")
    for number, cells in enumerate(
        csv.reader(StringIO(text, newline=""), delimiter=delimiter or ","), start=1
    ):
        yield number, tuple(cell or None for cell in cells)
