"""The blocks of a document: plain data that `document.typ` sets, one under the other.

Every value is a text in its final form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Block = Mapping[str, Any]


def facts(pairs: Iterable[tuple[str, str | None]]) -> list[dict[str, str]]:
    """Return names and values as a template reads them, without those that have no value."""
    return [{"name": name, "value": value} for name, value in pairs if value]


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, heading: str | None = None, wide: int = 0
) -> list[Block]:
    """Return a table, or nothing without rows. The column `wide` takes the free space."""
    if not rows:
        return []
    lines = [list(row) for row in rows]
    return [{"kind": "table", "heading": heading, "header": list(header), "rows": lines, "wide": wide}]


def sums(rows: Iterable[tuple[str, str, bool]]) -> list[Block]:
    """Return the sums under a table. The third part says that a row is a result."""
    lines = [{"name": name, "value": value, "is_result": is_result} for name, value, is_result in rows]
    return [{"kind": "sums", "heading": None, "rows": lines}]


def paragraph(heading: str | None, text: str | None) -> list[Block]:
    """Return a text with its line breaks, or nothing without a text."""
    return [{"kind": "paragraph", "heading": heading, "text": text}] if text else []


def fact_grid(heading: str, pairs: Iterable[tuple[str, str | None]]) -> list[Block]:
    """Return names and values side by side, or nothing without values."""
    given = facts(pairs)
    return [{"kind": "facts", "heading": heading, "facts": given}] if given else []


def entries(heading: str | None, items: Iterable[tuple[str, Sequence[str]]]) -> list[Block]:
    """Return a list with numbers. Each entry has a title in bold and lines under it."""
    rows = [{"title": title, "lines": list(lines)} for title, lines in items]
    return [{"kind": "entries", "heading": heading, "entries": rows}] if rows else []


def signature(label: str, lines: Iterable[str | None]) -> list[Block]:
    """Return a line to sign on, with the name of the signer under it."""
    return [{"kind": "signature", "heading": None, "label": label, "lines": [line for line in lines if line]}]


def chart(heading: str, svg: bytes, description: str) -> list[Block]:
    """Return a chart. The description is for readers who do not see it."""
    return [{"kind": "chart", "heading": heading, "svg": svg.decode(), "description": description}]
