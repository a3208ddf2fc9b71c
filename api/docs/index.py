"""`GET /`: the whole API told to a developer, generated from the code that enforces it."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlencode

from flask import Flask

from api.docs.json_schema import (
    COMMON,
    Schema,
    answer_schema,
    body_example,
    example,
    parameters,
    schema_of,
)
from api.docs.registry import Entry, entries
from api.list_query import MAX_TEXT
from api.request_body import MAX_BODY, MAX_DEPTH
from config import settings
from errors import CODES
from security.passwords import MIN_LENGTH
from security.permissions import TABLE
from services import status_transitions
from services.listing.spec import MAX_PER_PAGE
from services.listing.totals import COUNT_CAP

CONVENTIONS = {
    "authentication": "POST /auth/login, then Authorization: Bearer <access_token>, or its cookies.",
    "time": "Instants are RFC 3339 with the clinic's offset; without an offset they are the clinic's time.",
    "money": "Decimal strings with two places, such as '125.00'.",
    "update": "PATCH and PUT merge: absent is unchanged, null clears, read-only members are ignored.",
    "lists": "A bare array; X-Total-Count, Link and Content-Range tell the paging. page, per_page, sort_by, "
    "sort_order, after, q, start_date, end_date, and every column, also with _like, _gte, _lte and _ne; the "
    "dialects _start/_end/_sort/_order and filter/range/sort mean the same.",
    "versions": "Single rows carry an ETag; as If-Match it tells (412) of a change in between.",
    "retries": "POST with Idempotency-Key: the same request again gets the first answer, for a day.",
    "errors": "application/problem+json; `error` is a stable code, `errors` names the fields.",
}


def guide(app: Flask) -> dict[str, Any]:
    """The document behind `GET /`."""
    definitions: Schema = dict(COMMON)
    domains: dict[str, list[dict[str, Any]]] = {}
    for entry in entries(app):
        domains.setdefault(entry.domain, []).append(_endpoint(entry, definitions))
    return {
        "name": "Clinic Management System",
        "version": "1.0.0",
        "url": base_url(),
        "links": {
            "self": "/",
            "openapi": "/openapi.json",
            "live": "/health/live",
            "ready": "/health/ready",
            "metrics": "/metrics",
        },
        "conventions": CONVENTIONS,
        "roles": {
            role: [permission.value for permission, roles in TABLE.items() if role in roles]
            for role in dict.fromkeys(role for roles in TABLE.values() for role in roles)
        },
        "domains": domains,
        "status_graphs": status_transitions.STATUS_TRANSITIONS,
        "errors": {code: {"status": status, "title": title} for code, (status, title) in CODES.items()},
        "limits": limits(),
        "components": {"schemas": definitions},
    }


def base_url() -> str:
    """Where `python app.py` serves it."""
    return f"http://localhost:{settings().port}"


def limits() -> dict[str, Any]:
    """The bounds a caller may run into."""
    chosen = settings()
    return {
        "requests": chosen.rate_limit_default,
        "failed_sign_ins_by_account": chosen.rate_limit_login_account,
        "failed_sign_ins_by_address": chosen.rate_limit_login_address,
        "body_bytes": MAX_BODY,
        "body_depth": MAX_DEPTH,
        "query_value_characters": MAX_TEXT,
        "rows_per_page": MAX_PER_PAGE,
        "exact_total_up_to": COUNT_CAP,
        "password_characters_at_least": MIN_LENGTH,
        "access_token_minutes": chosen.jwt_access_token_expires_minutes,
        "refresh_token_days": chosen.jwt_refresh_token_expires_days,
    }


def _endpoint(entry: Entry, definitions: Schema) -> dict[str, Any]:
    operation = entry.operation
    taken = parameters(entry)
    told: dict[str, Any] = {
        "method": entry.method,
        "path": entry.path,
        "summary": operation.summary,
        "roles": entry.roles,
        "parameters": [{name: one[name] for name in one if name != "required"} for one in taken],
    }
    if operation.description:
        told["description"] = operation.description
    body = None
    if operation.body is not None:
        schema = schema_of(operation.body, output=False, definitions=definitions)
        body = body_example(operation.body, definitions)
        told["body"] = {"schema": schema, "example": body}
    answer = answer_schema(operation, definitions)
    told["answer"] = {
        "status": operation.status,
        "media": list(operation.media),
        "schema": answer,
        "example": example(answer, definitions),
    }
    told["errors"] = entry.refusals
    told["curl"] = curl(entry, taken, body)
    return told


def curl(entry: Entry, taken: list[Schema], body: Any) -> str:
    """A line that works as it stands once $TOKEN holds an access token and row 1 exists."""
    url = base_url() + entry.path
    for name in entry.path_ids:
        url = url.replace("{" + name + "}", "1")
    needed = {
        one["name"]: example(one["schema"], {}) for one in taken if one["required"] and one["in"] == "query"
    }
    if needed:
        url += "?" + urlencode(needed)
    line = shlex.join(["curl", "-X", entry.method, url])
    if not entry.public:
        line += ' -H "Authorization: Bearer $TOKEN"'
    if body is not None:
        line += ' -H "Content-Type: application/json" -d ' + shlex.quote(json.dumps(body))
    return line
