"""The OpenAPI 3.1 document, generated from the declarations that enforce what it says."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Flask

from errors import CODES
from resources.answers import View
from resources.catalogue import Entry, answer_schema, entries, query_parameters, schema_of
from security.permissions import Permission

PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details; one shape for every refusal.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string", "enum": sorted(CODES), "description": "A stable code."},
        "message": {"type": "string", "description": "The same as detail: what front ends show."},
        "request_id": {"type": "string"},
        "errors": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["type", "title", "status", "detail", "error", "message", "request_id"],
}
HEADERS = {
    "X-Total-Count": "How many match.",
    "X-Total-Count-Capped": "`true` where there are more than X-Total-Count says.",
    "Content-Range": "Which rows of how many.",
    "Link": "first, prev, next and last page.",
}


def document(app: Flask) -> dict[str, Any]:
    """The whole document."""
    definitions: dict[str, Any] = {"Problem": PROBLEM}
    paths: dict[str, Any] = {}
    for entry in entries(app):
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(entry, definitions)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clinic Management System",
            "version": "1.0.0",
            "description": "The backend of a small clinic. `GET /` tells the same to people.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(entry.domain for entry in entries(app))],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "access_token_cookie"},
            },
        },
    }


def _operation(entry: Entry, definitions: dict[str, Any]) -> dict[str, Any]:
    operation = entry.operation
    described: dict[str, Any] = {
        "operationId": entry.name,
        "tags": [entry.domain],
        "summary": operation.summary,
        "description": _description(entry),
        "parameters": [*_path_parameters(entry), *query_parameters(operation), *_header_parameters(entry)],
        "responses": _responses(entry, definitions),
    }
    if operation.permission is not Permission.PUBLIC:
        described["security"] = [{"bearer": []}, {"cookie": []}]
    if operation.body is not None:
        schema = schema_of(operation.body, output=False, definitions=definitions)
        described["requestBody"] = {
            "required": bool(definitions[operation.body.__name__].get("required")),
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _description(entry: Entry) -> str:
    roles = ", ".join(entry.roles)
    return f"{entry.operation.description}\n\nRoles: {roles}.".strip()


def _path_parameters(entry: Entry) -> list[dict[str, Any]]:
    schema = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in entry.path_ids]


def _header_parameters(entry: Entry) -> list[dict[str, Any]]:
    found = []
    if entry.method in ("PATCH", "PUT", "DELETE") and entry.operation.loads is not None:
        found.append(_header("If-Match", "The ETag that was read: 412 where the record has changed since."))
    if entry.method == "POST" and entry.operation.idempotent and entry.domain != "auth":
        found.append(
            _header("Idempotency-Key", "The same key and request get the first answer again, for a day.")
        )
    return found


def _header(name: str, summary: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
    return {"name": name, "in": "header", "required": False, "description": summary, "schema": schema}


def _responses(entry: Entry, definitions: dict[str, Any]) -> dict[str, Any]:
    operation = entry.operation
    success: dict[str, Any] = {"description": operation.summary}
    schema = answer_schema(operation, definitions)
    success["content"] = {
        media: {"schema": schema if media.endswith("json") else {"type": "string"}}
        for media in operation.media
    }
    if operation.lists is not None:
        success["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()
        }
    if operation.status == 201:
        success["headers"] = {
            "Location": {"schema": {"type": "string"}, "description": "Where the new row is."}
        }
    found = {str(operation.status): success}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in sorted(statuses(entry)):
        found[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    return found


def statuses(entry: Entry) -> set[int]:
    """The refusals an endpoint can answer."""
    operation = entry.operation
    unsafe = entry.method != "GET"
    found = {422, 429, 503} | {CODES[code][0] for code in operation.errors}
    if operation.permission is not Permission.PUBLIC:
        found |= {401, 403}
    if entry.path_ids:
        found.add(404)
    if unsafe:
        found |= {400, 403, 409, 413}
    if operation.body is not None:
        found |= {400, 413, 415}
    if entry.method in ("PATCH", "PUT", "DELETE") and isinstance(operation.returns, View):
        found |= {412, 428}
    if operation.lists is not None:
        found.add(403)
    return found - {operation.status}
