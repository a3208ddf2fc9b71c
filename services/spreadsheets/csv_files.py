"""CSV files by RFC 4180, in which a spreadsheet program reads no cell as a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any

# Excel reads a file without this mark in the encoding of its system.
BYTE_ORDER_MARK = "\ufeff"
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# First characters of a formula, and characters that a spreadsheet drops before it looks for one
# (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# In many countries Excel separates cells at semicolons, ignores our quotes, and begins a cell inside a text.
_AFTER_SEPARATOR, _BEFORE_FORMULA = r"(?<=[;\t\r\n])", r"(?=[=+\-@＝＋－＠])"
_INNER_START = re.compile(_AFTER_SEPARATOR + _BEFORE_FORMULA)
_INNER_MARK = re.compile(f"{_AFTER_SEPARATOR}'{_BEFORE_FORMULA}")


def format_cell(value: Any) -> str:
    """Return a value as the text of a cell, with an apostrophe before each possible formula."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "" if value is None else str(value)
    if _NUMBER.fullmatch(text):
        return text
    marked = _INNER_START.sub("'", text)
    return "'" + marked if marked.startswith(_FORMULA_STARTS) else marked


def without_marks(text: str) -> str:
    """Return the text of a cell without the apostrophes that `format_cell` adds."""
    has_mark = text[:1] == "'" and text.startswith(_FORMULA_STARTS, 1)
    return _INNER_MARK.sub("", text[1:] if has_mark else text)


def write_csv(target: IO[bytes], header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV, in UTF-8 with a byte order mark."""
    text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
    text.write(BYTE_ORDER_MARK)
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([format_cell(value) for value in row] for row in rows)
    text.detach()
