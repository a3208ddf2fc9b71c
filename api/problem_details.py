"""Error responses as RFC 9457 problem details."""

from __future__ import annotations

import json
import re
from functools import lru_cache

import structlog
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from api import metrics
from api.alternatives import alternative
from api.pages import html
from api.request_context import current_context
from api.serialization import json_response
from errors import CODES, ClinicError

log = structlog.get_logger()

_CONVERTER = re.compile(r"<int:(\w+)>")
_ID = re.compile(r"[0-9]+")


def problem_response(error: ClinicError) -> Response:
    """Count an error, and return it as RFC 9457 problem details with the same members for every status.

    Public pages get a page instead.
    """
    metrics.record_refusal(error)
    document = {
        "type": f"about:blank#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "error": error.code,
        "message": error.message,
        "request_id": current_context().request_id,
        **({"errors": error.errors} if error.errors else {}),
        **({"errors_omitted": error.errors_omitted} if error.errors_omitted else {}),
        **error.members,
    }
    if html.is_page():
        response = html.error_response(error)
    else:
        response = json_response(json.dumps(document, default=str).encode(), error.status)
        response.mimetype = "application/problem+json"
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def render_error(error: Exception) -> Response:
    """Render an exception as problem details.

    An unexpected exception is logged with its traceback. Its response is a 500 without details.
    """
    if isinstance(error, ClinicError):
        return problem_response(error)
    if isinstance(error, HTTPException):
        return _render_http_error(error)
    log.error("unexpected", exc_info=error)
    return problem_response(
        ClinicError("internal_error", "An internal error occurred. Report the request id.")
    )


def _unknown_path(path: str) -> str:
    """Return the message for a path without a route, which may be a route with a wrong id."""
    for rule, pattern in _rules_with_ids(current_app._get_current_object()):  # type: ignore[attr-defined]
        match = pattern.fullmatch(path.rstrip("/"))
        ids = match.groupdict() if match is not None else {}
        for name, value in ids.items():
            if not _ID.fullmatch(value):
                return f"The {name} in the path must be a whole number, as in {rule}."
    return "There is no such route. GET / lists all routes."


@lru_cache(maxsize=4)
def _rules_with_ids(app: Flask) -> list[tuple[str, re.Pattern[str]]]:
    """Return an example of each route with ids, and a pattern with any text in place of the ids."""
    rules = sorted(rule.rule for rule in app.url_map.iter_rules() if _CONVERTER.search(rule.rule))
    return [
        (_CONVERTER.sub("1", rule), re.compile(_CONVERTER.sub(r"(?P<\1>[^/]+)", rule.rstrip("/"))))
        for rule in rules
    ]


def _render_http_error(error: HTTPException) -> Response:
    codes = {status: code for code, (status, _title) in reversed(CODES.items())}
    status = error.code or 500
    if isinstance(error, MethodNotAllowed):
        methods = ", ".join(sorted(error.valid_methods or []))
        instead = alternative(error)
        advice = f"Use {instead}. " if instead is not None else ""
        response = problem_response(
            ClinicError("method_not_allowed", f"{advice}This path has the methods {methods}.")
        )
        response.headers["Allow"] = methods
        return response
    if status == 404:
        return problem_response(ClinicError("not_found", _unknown_path(request.path)))
    return problem_response(ClinicError(codes.get(status, "bad_request"), "The request could not be read."))
