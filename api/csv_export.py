"""CSV exports by RFC 4180, in which a spreadsheet reads no cell as a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response

from api.report_format import MEDIA_TYPES

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
# First characters of a formula, and characters that a spreadsheet drops before it looks for one
# (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def format_cell(value: Any) -> str:
    """Return a value as the text of a cell, with an apostrophe before a possible formula."""
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text) else text


def csv_response(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """Return a response that a browser saves as `name`.csv."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([format_cell(value) for value in row] for row in rows)
    response = Response(text.getvalue(), mimetype=MEDIA_TYPES["csv"])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def flatten(members: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested members as one row.

    Dots join the names of the levels. The first value of a list element that is not null is its name.
    """
    cells: dict[str, Any] = {}
    for name, value in members.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            cells |= flatten(value, f"{path}.")
        elif isinstance(value, list):
            for element in value:
                key = next((str(part) for part in element.values() if part is not None), "")
                cells |= flatten(element, f"{path}.{key}.")
        else:
            cells[path] = value
    return cells
