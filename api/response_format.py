"""The format of a report or a list: JSON, a file for a spreadsheet program, or an SVG chart."""

from __future__ import annotations

from flask import request
from werkzeug.datastructures import MIMEAccept

from services.charts import svg

MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "svg": svg.MEDIA_TYPE,
}
FILES = ("csv", "xlsx")  # to keep, not a view in a page
LIST_FORMATS = ("json", *FILES)
REPORT_TYPES = tuple(MEDIA_TYPES[name] for name in ("json", "csv", "svg"))
LIST_TYPES = tuple(MEDIA_TYPES[name] for name in LIST_FORMATS)


def format_parameter() -> str | None:
    """Return the query parameter `format` as sent, None without it."""
    texts = request.args.getlist("format")
    return texts[-1] if texts else None


def requested_format(name: str | None, media_types: tuple[str, ...]) -> str:
    """Return the format of the response. The query parameter `format` has precedence over `Accept`.

    `name` is the value of the parameter, `media_types` are those of the endpoint.
    """
    if name is not None:
        return name
    # the parameters do not matter: text/csv; charset=utf-8 is the type of the files themselves
    accepted = MIMEAccept(
        (media_type.partition(";")[0], quality) for media_type, quality in request.accept_mimetypes
    )
    best = accepted.best_match(media_types)
    return next((each for each, media_type in MEDIA_TYPES.items() if media_type == best), "json")


def is_file(media_types: tuple[str, ...]) -> bool:
    """Return True for a request of a file of an endpoint with these media types."""
    return requested_format(format_parameter(), media_types) in FILES
