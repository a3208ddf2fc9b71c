"""The format of a report: JSON, CSV or an SVG chart."""

from __future__ import annotations

from flask import request

from services.charts import svg

MEDIA_TYPES = {"json": "application/json", "csv": "text/csv", "svg": svg.MEDIA_TYPE}


def requested_format(name: str | None) -> str:
    """Return `json`, `csv` or `svg`. The query parameter `format` has precedence over `Accept`."""
    if name is not None:
        return name
    best = request.accept_mimetypes.best_match(MEDIA_TYPES.values())
    return next((each for each, media_type in MEDIA_TYPES.items() if media_type == best), "json")
