"""Read text files with delimiters (CSV)."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from itertools import islice

from errors import ClinicError
from services.spreadsheets.cells import Cell, text_cell
from services.spreadsheets.csv_files import without_marks

ENCODINGS = (
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "cp1250",
    "cp1251",
    "cp1252",
    "cp1254",
    "cp1256",
    "iso-8859-1",
    "iso-8859-15",
    "cp437",
    "cp850",
    "mac-roman",
)
DELIMITERS = (",", ";", "\t", "|")
SAMPLED_ROWS = 100
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def read_delimited(
    content: bytes, *, encoding: str | None, delimiter: str | None
) -> Iterator[tuple[int, list[Cell]]]:
    """Yield the rows that have a value, with their numbers. Raises `ClinicError`."""
    text = _decode(content, encoding)
    text, delimiter = _find_delimiter(text, named_delimiter(delimiter))
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        for values in reader:
            number += 1
            cells = [text_cell(without_marks(value)) for value in values]
            if any(cell is not None for cell in cells):
                yield number, cells
    except csv.Error as error:
        if "field larger" in str(error):
            raise ClinicError(
                "unreadable_file",
                f"Row {number + 1} has a text of more than {csv.field_size_limit()} characters. Shorten it, "
                "or correct the delimiter.",
            ) from None
        raise ClinicError(
            "unbalanced_quotes",
            f"Row {number + 1} has a quotation mark without its partner. Write a quotation mark inside "
            'quotation marks twice: "".',
        ) from None


def _decode(content: bytes, encoding: str | None) -> str:
    """Return the text of a file: by its byte order mark, else the declared encoding, else UTF-8."""
    for mark, marked in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], marked
            break
    declared = _codec(encoding) if encoding else None
    try:
        text = content.decode(declared or "utf-8")
    except UnicodeDecodeError:
        problem = f"is not {declared}" if declared else "is not UTF-8, and no encoding is declared"
        raise ClinicError(
            "unknown_encoding",
            f"The text of the file {problem}. Set `encoding`, for example to cp1252 for a file of Excel on "
            "Windows, or save the file as CSV UTF-8.",
        ) from None
    if "\0" in text:
        raise ClinicError(
            "unknown_encoding",
            "The file contains NUL characters. Set `encoding` to utf-16-le or utf-16-be, or save the file "
            "as CSV UTF-8.",
        )
    return text


def _codec(encoding: str) -> str:
    """Return the name of an accepted encoding, for any of its names: `latin-1`, `windows-1252`."""
    try:
        name = codecs.lookup(encoding.strip()).name
    except (LookupError, ValueError):
        name = ""
    if name not in {codecs.lookup(accepted).name for accepted in ENCODINGS}:
        raise ClinicError("unknown_encoding", f"Use one of the encodings {', '.join(ENCODINGS)}.")
    return name


def named_delimiter(text: str | None) -> str | None:
    """Return a declared delimiter as a character, or raise 422. A tab may be written as `tab`."""
    delimiter = "\t" if text in ("tab", "\\t") else text or None
    if delimiter is not None and delimiter not in DELIMITERS:
        raise ClinicError("unknown_delimiter", "Use one of the delimiters , ; | and tab.")
    return delimiter


def _find_delimiter(text: str, declared: str | None) -> tuple[str, str]:
    """Return the text without a line `sep=`, and the delimiter.

    Without a declaration it is the delimiter that splits most of the first rows into the same number of
    cells, at least two. If two do so equally, the one with more cells. A file without any has one column.
    """
    first_line = text[:7].rstrip("\r\n").lower()
    if first_line.startswith("sep=") and len(first_line) == 5 and first_line[4] in DELIMITERS:
        rest = text[5:].removeprefix("\r").removeprefix("\n")
        return rest, declared or first_line[4]
    if declared is not None:
        return text, declared
    scores = sorted((_score(text, candidate), candidate) for candidate in DELIMITERS)
    (second, _), (best, delimiter) = scores[-2:]
    if best == (0, 0):
        return text, DELIMITERS[0]
    if best == second:
        raise ClinicError(
            "unknown_delimiter", "Two characters may be the delimiter. Set `delimiter` to , or ; or | or tab."
        )
    return text, delimiter


def _score(text: str, delimiter: str) -> tuple[int, int]:
    """Return the number of sampled rows with the most frequent number of cells above one, and this number."""
    widths: Counter[int] = Counter()
    try:
        for values in islice(csv.reader(StringIO(text, newline=""), delimiter=delimiter), SAMPLED_ROWS):
            widths[len(values)] += 1
    except csv.Error:
        pass  # the rows before the error decide
    return max(((count, width) for width, count in widths.items() if width > 1), default=(0, 0))
