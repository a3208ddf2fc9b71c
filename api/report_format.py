"""The format of a report: JSON, CSV or an SVG chart."""

from __future__ import annotations

from flask import request

from services.charts import svg

MEDIA_TYPES = {"json": "application/json", "csv": "text/csv", "svg": svg.MEDIA_TYPE}
EXPORTS = ("csv",)  # a file to keep, not a view in a page


def is_export(name: str | None) -> bool:
    """Return True for a request of a file, by the query parameter `format` or by `Accept`."""
    return requested_format(name) in EXPORTS


def requested_format(name: str | None) -> str:
    """Return `json`, `csv` or `svg`. The query parameter `format` has precedence over `Accept`."""
    if name is not None:
        return name
    best = request.accept_mimetypes.best_match(MEDIA_TYPES.values())
    return next((each for each, media_type in MEDIA_TYPES.items() if media_type == best), "json")
