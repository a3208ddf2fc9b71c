"""Tables for spreadsheets: CSV by RFC 4180, in which no cell is taken for a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response, request

MEDIA = "text/csv"
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# What spreadsheets run as a formula, or drop before they look again (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def wanted(chosen: str | None) -> bool:
    """Whether the caller asks for CSV: by `?format=`, else by `Accept`."""
    if chosen is not None:
        return chosen == "csv"
    return request.accept_mimetypes.best_match(["application/json", MEDIA]) == MEDIA


def cell(value: Any) -> str:
    """A value as a cell: numbers as they are, text that begins like a formula behind an apostrophe."""
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def answer(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """The rows as a download `name`.csv."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([cell(value) for value in row] for row in rows)
    response = Response(text.getvalue(), mimetype=MEDIA)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def flat(members: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested members as one row: names joined by dots, rows of a list named by their first member."""
    found: dict[str, Any] = {}
    for name, value in members.items():
        here = f"{path}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{here}.")
        elif isinstance(value, list):
            for row in value:
                key = next((str(part) for part in row.values() if part is not None), "")
                found |= flat(row, f"{here}.{key}.")
        else:
            found[here] = value
    return found
