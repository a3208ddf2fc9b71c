"""The blocks of a document: plain data that `document.typ` sets, one under the other.

Every value is a text in its final form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import segno

MIN_CODE, MIN_MODULE = 22.0, 0.5  # millimetres
QUIET_ZONE = 4  # modules on each side of a QR code, ISO/IEC 18004
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


def sums(rows: Iterable[tuple[str, str, bool]], *, code: Sequence[Block] = ()) -> list[Block]:
    """Return the sums under a table. The third part marks a result. `code` is set beside them."""
    lines = [{"name": name, "value": value, "is_result": is_result} for name, value, is_result in rows]
    return [{"kind": "sums", "heading": None, "rows": lines, "code": next(iter(code), None)}]


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


def signature(label: str, lines: Iterable[str | None], *, code: Sequence[Block] = ()) -> list[Block]:
    """Return a line to sign on, with the name of the signer under it. `code` is set beside it."""
    signer = [line for line in lines if line]
    beside = next(iter(code), None)
    return [{"kind": "signature", "heading": None, "label": label, "lines": signer, "code": beside}]


def code(label: str, url: str) -> list[Block]:
    """Return the QR code of an address, with the label and the address as text beside it.

    Its modules are at least 0.5 mm wide, which printers and telephones resolve.
    """
    symbol = segno.make(url, error="m", micro=False)
    modules = symbol.symbol_size(border=0)[0]
    module = max(MIN_CODE / modules, MIN_MODULE)
    svg = BytesIO()
    symbol.save(svg, kind="svg", border=QUIET_ZONE, omitsize=True, light="#fff", xmldecl=False)
    picture = svg.getvalue().decode()
    sizes = {"side": round(module * (modules + 2 * QUIET_ZONE), 2), "quiet": round(module * QUIET_ZONE, 2)}
    return [{"kind": "code", "heading": None, "svg": picture, **sizes, "label": label, "url": url}]


def chart(heading: str, svg: bytes, description: str) -> list[Block]:
    """Return a chart. The description is for readers who do not see it."""
    return [{"kind": "chart", "heading": heading, "svg": svg.decode(), "description": description}]
