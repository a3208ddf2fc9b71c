"""ICD-10-CM diagnoses: is a code in the table, how is it written, what does it say.

The table (`data/icd10cm.txt.gz`, made by `data/build.py`) holds the categories, subcategories and codes of
one release of the National Center for Health Statistics, with the extended codes that end in a seventh
character. Chapters and blocks (`A00-A09`) are not diagnoses and are not in it.
"""

from __future__ import annotations

import functools
import gzip
import re
import threading
from pathlib import Path
from typing import Final

RELEASE: Final = "April 2026"
TABLE: Final = Path(__file__).resolve().parents[2] / "data" / "icd10cm.txt.gz"
# The third place may be a letter (C4A, M1A, Z3A); so may every later one.
_CODE = re.compile(r"([A-Z][0-9][0-9A-Z])\.?([0-9A-Z]{0,4})")
_LOCK = threading.Lock()


@functools.cache
def _read() -> bytes:
    return gzip.decompress(TABLE.read_bytes())


def _table() -> bytes:
    """Lines `code TAB title` in the order of the codes; searched as they are: a dict would take 20 MB."""
    with _LOCK:
        return _read()


def normalize(code: str) -> str:
    """The code as it is printed: upper case, with its dot after the third place (`s72001a` is `S72.001A`).

    What has not the form of a code comes back in upper case without spaces around it; `is_valid` is false
    for it.
    """
    text = code.strip().upper()
    if (match := _CODE.fullmatch(text)) is None:
        return text
    category, rest = match.groups()
    return f"{category}.{rest}" if rest else category


def is_valid(code: str) -> bool:
    """True for a category (`E11`), a subcategory (`S72.0`) and a full code (`E11.9`) of the release."""
    return describe(code) is not None


def describe(code: str) -> str | None:
    """The official title, None if the release has no such code."""
    text = code.strip().upper()
    if _CODE.fullmatch(text) is None:
        return None
    wanted = normalize(text).encode()
    table = _table()
    low, high = 0, len(table) - 1
    while low < high:
        start = table.rfind(b"\n", 0, (low + high) // 2 + 1) + 1
        end = table.index(b"\n", start)
        found, _, title = table[start:end].partition(b"\t")
        if found == wanted:
            return title.decode()
        if found < wanted:
            low = end
        else:
            high = start - 1
    return None
