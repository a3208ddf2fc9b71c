"""Reports as CSV files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response

from api.response_format import MEDIA_TYPES
from services.spreadsheets.csv_files import write_csv


def csv_response(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """Return a response that a browser saves as `name`.csv."""
    content = io.BytesIO()
    write_csv(content, header, rows)
    response = Response(content.getvalue(), mimetype=MEDIA_TYPES["csv"])
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
