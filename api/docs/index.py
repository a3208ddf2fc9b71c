"""The JSON document of `GET /`: every endpoint and convention, generated from the code that enforces them."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlencode

from flask import Flask

from api.body_format import FILE, JSON
from api.docs.examples import VARIABLES, base_url, example_of
from api.docs.json_schema import (
    COMMON,
    Schema,
    body_example,
    example,
    parameters,
    response_schema,
    schema_of,
)
from api.docs.registry import RegisteredEndpoint, registered_endpoints
from api.list_files import MAX_ROWS
from api.list_query import MAX_TEXT
from api.request_body import MAX_DEPTH
from config import settings
from errors import CODES
from security.passwords import MIN_LENGTH
from security.permissions import TABLE
from services import status_transitions
from services.listing.spec import MAX_PER_PAGE
from services.listing.totals import COUNT_CAP

CONVENTIONS = {
    "authentication": "POST /auth/login, then send Authorization: Bearer <access_token>, or the cookies.",
    "time": "Date-times are RFC 3339. Without an offset they are in the time zone of the clinic.",
    "money": "Decimal strings with the places of the currency, such as '125.00'.",
    "update": "PATCH and PUT merge: absent is unchanged, null clears, read-only members are ignored.",
    "lists": "The body is a bare array. X-Total-Count, Link and Content-Range describe the page. Parameters: "
    "page, per_page, sort_by, sort_order, after, q, start_date, end_date, and every column, also with _like, "
    "_gte, _lte and _ne. Also accepted: _start/_end/_sort/_order and filter/range/sort. format=csv and "
    "format=xlsx return a file of all rows.",
    "versions": "A single row has an ETag. Send it as If-Match: 412 reports a change by another request.",
    "retries": "Send Idempotency-Key with POST: the same request gets the first response again, for a day.",
    "errors": "application/problem+json. `error` is a stable code, `errors` contains the wrong fields.",
}


def index_document(app: Flask) -> dict[str, Any]:
    """Return the JSON document of `GET /`."""
    definitions: Schema = dict(COMMON)
    domains: dict[str, list[dict[str, Any]]] = {}
    for endpoint in registered_endpoints(app):
        domains.setdefault(endpoint.domain, []).append(_endpoint_members(endpoint, definitions))
    return {
        "name": "Clinic Management System",
        "version": "1.0.0",
        "url": base_url(),
        "currency": settings().currency,
        "links": {
            "self": "/",
            "console": "/docs",
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


def limits() -> dict[str, Any]:
    """Return the limits for callers. The unit is part of the name."""
    configured = settings()
    return {
        "requests": configured.rate_limit_default,
        "failed_sign_ins_by_account": configured.rate_limit_login_account,
        "failed_sign_ins_by_address": configured.rate_limit_login_address,
        "registrations_by_network": configured.rate_limit_register,
        "files_of_lists": configured.rate_limit_files,
        "body_bytes": JSON.limit,
        "body_depth": MAX_DEPTH,
        "query_value_characters": MAX_TEXT,
        "rows_per_page": MAX_PER_PAGE,
        "rows_per_file": MAX_ROWS,
        "exact_total_up_to": COUNT_CAP,
        "password_characters_at_least": MIN_LENGTH,
        "access_token_minutes": configured.jwt_access_token_expires_minutes,
        "refresh_token_days": configured.jwt_refresh_token_expires_days,
        "session_hours": configured.session_max_hours,
        "session_idle_minutes": configured.session_idle_minutes,
    }


def _endpoint_members(endpoint: RegisteredEndpoint, definitions: Schema) -> dict[str, Any]:
    spec = endpoint.spec
    all_parameters = parameters(endpoint)
    members: dict[str, Any] = {
        "id": endpoint.operation_id,
        "method": endpoint.method,
        "path": endpoint.path,
        "summary": spec.summary,
        "roles": endpoint.roles,
        "parameters": [
            {name: value for name, value in parameter.items() if name != "required"}
            for parameter in all_parameters
        ],
    }
    if spec.description:
        members["description"] = spec.description
    if spec.step_up is not None:
        members["step_up"] = spec.step_up
    body = None
    if spec.body is not None:
        schema = schema_of(spec.body, output=False, definitions=definitions)
        body = body_example(endpoint, definitions)
        members["body"] = {"schema": schema, "example": body}
    response = response_schema(spec, definitions)
    members["answer"] = {
        "status": spec.status,
        "media": list(spec.media_types),
        "schema": response,
        "example": example(response, definitions),
    }
    members["errors"] = endpoint.error_codes
    if variables := example_of(endpoint).variables.values():
        members["variables"] = {f"${name}": VARIABLES[name] for name in variables}
    members["curl"] = curl_command(endpoint, all_parameters, body)
    return members


def curl_command(endpoint: RegisteredEndpoint, all_parameters: list[Schema], body: Any) -> str:
    """Return a command that works in a new demo clinic if $TOKEN holds an access token of an admin.

    Some lines also need a variable of `api/docs/examples.py`.
    """
    stated = example_of(endpoint)
    url = base_url() + endpoint.path
    for name in endpoint.path_ids:
        value = f"${stated.variables[name]}" if name in stated.variables else str(stated.ids.get(name, 1))
        url = url.replace("{" + name + "}", value)
    required = {
        parameter["name"]: example(parameter["schema"], {}, parameter["name"])
        for parameter in all_parameters
        if parameter["required"] and parameter["in"] == "query"
    }
    if required:
        url += "?" + urlencode(required)
    command = f"curl -X {endpoint.method} {url if stated.variables else shlex.quote(url)}"
    if not endpoint.public:
        command += ' -H "Authorization: Bearer $TOKEN"'
    if not endpoint.spec.accepts.has_members:
        media_type = endpoint.spec.accepts.media_types[0]
        command += f' -H "Content-Type: {media_type}" --data-binary @file.{media_type.partition("/")[2]}'
    if body is not None and endpoint.spec.accepts.has_file:
        fields = (f" -F {shlex.quote(f'{name}={value}')}" for name, value in body.items())
        command += f" -F {FILE}=@patients.csv{''.join(fields)}"
    elif body is not None and "application/json" not in endpoint.spec.accepts.media_types:
        command += f" -d {shlex.quote(urlencode(body))}"
    elif body is not None:
        data = shlex.quote(json.dumps(body, ensure_ascii=False))
        for name, variable in stated.variables.items():
            if name not in body:
                continue  # it is in the path
            # the shell replaces a variable outside single quotes only
            quote = '"' if isinstance(body[name], str) else ""
            data = data.replace(json.dumps(body[name]), f"{quote}'\"${variable}\"'{quote}")
        command += f' -H "Content-Type: application/json" -d {data}'
    return command
