"""ICD-10-CM diagnosis codes: validity, printed form and official title.

`data/build.py` builds the table `data/icd10cm.txt.gz`. It holds the categories, subcategories and codes of
one release of the National Center for Health Statistics, including codes with a seventh character. Chapters
and blocks (`A00-A09`) are not diagnoses, so the table does not contain them.
"""

from __future__ import annotations

import functools
import gzip
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

RELEASE: Final = "April 2026"
TABLE: Final = Path(__file__).resolve().parents[2] / "data" / "icd10cm.txt.gz"
# The third character may be a letter (C4A, M1A, Z3A), and so may every later one.
_CODE = re.compile(r"([A-Z][0-9][0-9A-Z])\.?([0-9A-Z]{0,4})")
NOT_BILLABLE: Final = "{} is a header. Insurers accept only the more specific codes below it."
_LOCK = threading.Lock()


@functools.cache
def _load() -> bytes:
    return gzip.decompress(TABLE.read_bytes())


def _table() -> bytes:
    """Return the lines `code TAB title`, sorted by code. They stay bytes, because a dict would take 20 MB."""
    with _LOCK:  # several threads may need the table first; only one of them reads the file
        return _load()


def normalize(code: str) -> str:
    """Return the code in its printed form: upper case, a dot after the third character.

    For example `s72001a` gives `S72.001A`. A text without the form of a code only loses outer spaces and
    becomes upper case; `is_valid` returns False for it.
    """
    text = code.strip().upper()
    match = _CODE.fullmatch(text)
    if match is None:
        return text
    category, rest = match.groups()
    return f"{category}.{rest}" if rest else category


def is_valid(code: str) -> bool:
    """Return True for a category (`E11`), subcategory (`S72.0`) or full code (`E11.9`) of the release."""
    return describe(code) is not None


def describe(code: str) -> str | None:
    """Return the official title, or None if the release does not contain the code."""
    line = _find_line(code)
    return None if line is None else line[1]


@functools.lru_cache(maxsize=4096)
def is_header(code: str) -> bool:
    """Return True for a code of the release with more specific codes below it: it is not billable."""
    line = _find_line(code)
    return line is not None and _table().startswith(normalize(code).encode(), line[0])


def warnings(codes: Iterable[str | None]) -> list[dict[str, str]]:
    """Return a warning for each code that is not billable."""
    headers = dict.fromkeys(code for code in codes if code is not None and is_header(code))
    return [{"code": "not_billable", "icd10": code, "message": NOT_BILLABLE.format(code)} for code in headers]


def _find_line(code: str) -> tuple[int, str] | None:
    """Return the position of the line after the code, and the title. None if the code is not in the table."""
    text = code.strip().upper()
    if _CODE.fullmatch(text) is None:
        return None
    key = normalize(text).encode()
    table = _table()
    low, high = 0, len(table) - 1
    while low < high:  # binary search over the lines
        start = table.rfind(b"\n", 0, (low + high) // 2 + 1) + 1
        end = table.index(b"\n", start)
        line_code, _, title = table[start:end].partition(b"\t")
        if line_code == key:
            return end + 1, title.decode()
        if line_code < key:
            low = end
        else:
            high = start - 1
    return None
