"""The OpenAPI 3.1 document, generated from the declarations that enforce what it says."""

from __future__ import annotations

from http import HTTPStatus

from flask import Flask

from api.docs.json_schema import (
    COMMON,
    SHARED,
    Schema,
    answer_schema,
    body_example,
    parameter,
    parameters,
    schema_of,
)
from api.docs.registry import RegisteredEndpoint, registered_endpoints
from api.serialization import Serializer
from errors import CODES, MAX_ERRORS

PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem details; one shape for every refusal. Some codes add members of their "
    "own, such as the clashes of a refused booking.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "error": {"type": "string", "enum": sorted(CODES), "description": "A stable code."},
        "message": {"type": "string", "description": "The same as detail: what front ends show."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "object",
            "description": "Field path -> description of the error.",
            "additionalProperties": {"type": "string"},
            "maxProperties": MAX_ERRORS,
        },
        "errors_omitted": {
            "type": "integer",
            "minimum": 1,
            "description": f"Number of further errors: `errors` has at most {MAX_ERRORS}.",
        },
    },
    "required": ["type", "title", "status", "detail", "error", "message", "request_id"],
}
PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
HEADERS: dict[str, Schema] = {
    "X-Request-ID": {"description": "Names the request in the logs.", "schema": {"type": "string"}},
    "X-Total-Count": {"description": "How many match.", "schema": {"type": "integer", "minimum": 0}},
    "X-Total-Count-Capped": {
        "description": "There are more than X-Total-Count says.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Content-Range": {"description": "Which rows of how many.", "schema": {"type": "string"}},
    "Link": {"description": "The first, prev, next and last page.", "schema": {"type": "string"}},
    "ETag": {"description": "The version, where the row has one.", "schema": {"type": "string"}},
    "Location": {
        "description": "Where the new row is.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Idempotency-Replayed": {
        "description": "This is the first request's answer.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "How to sign in.", "schema": {"type": "string"}},
}
LIST_HEADERS = ("X-Total-Count", "X-Total-Count-Capped", "Content-Range", "Link")
REFUSAL_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
DIALECTS = """Also accepted: `_start`, `_end`, `_page`, `_per_page`, `_sort`, `_order`; `filter`, `range` and
`sort` as JSON; `start`, `end` and `timeZone` for `start_date` and `end_date`. A filter given several times
takes any of its values."""


def openapi_document(app: Flask) -> Schema:
    """The whole document."""
    found = registered_endpoints(app)
    definitions: Schema = {"Problem": PROBLEM, **COMMON}
    paths: Schema = {}
    for entry in found:
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
        "tags": [{"name": name} for name in dict.fromkeys(entry.domain for entry in found)],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "parameters": {name: parameter(name, *told) for name, told in SHARED.items()},
            "headers": HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "access_token_cookie"},
            },
        },
    }


def _operation(entry: RegisteredEndpoint, definitions: Schema) -> Schema:
    spec = entry.spec
    described: Schema = {
        "operationId": entry.name,
        "tags": [entry.domain],
        "summary": spec.summary,
        "description": _description(entry),
        "x-roles": entry.roles,
        "parameters": [_shared(one) for one in parameters(entry)],
        "responses": _responses(entry, definitions),
    }
    if not entry.public:
        described["security"] = [{"bearer": []}, {"cookie": []}]
    if spec.body is not None:
        schema = schema_of(spec.body, output=False, definitions=definitions)
        media = {"schema": schema, "example": body_example(spec.body, definitions)}
        described["requestBody"] = {
            "required": bool(definitions[spec.body.__name__].get("required")),
            "content": {"application/json": media},
        }
    return described


def _shared(one: Schema) -> Schema:
    """A parameter that every list has stands once in the document."""
    if one["name"] in SHARED and one == parameter(one["name"], *SHARED[one["name"]]):
        return {"$ref": f"#/components/parameters/{one['name']}"}
    return one


def _description(entry: RegisteredEndpoint) -> str:
    parts = [entry.spec.description, "The same as PATCH." if entry.is_put_alias else ""]
    if entry.spec.list_spec is not None:
        parts.append(DIALECTS)
    parts.append(f"Roles: {', '.join(entry.roles)}.")
    return "\n\n".join(part for part in parts if part)


def _responses(entry: RegisteredEndpoint, definitions: Schema) -> Schema:
    spec = entry.spec
    schema = answer_schema(spec, definitions)
    names = ["X-Request-ID"]
    if spec.list_spec is not None:
        names += LIST_HEADERS
    elif isinstance(spec.returns, Serializer) and not spec.many:
        names.append("ETag")
    if entry.idempotent:
        names.append("Idempotency-Replayed")
    success: Schema = {
        "description": spec.summary,
        "headers": _headers(*names),
        "content": {
            media: {"schema": schema if media.endswith("json") else {"type": "string"}}
            for media in spec.media_types
        },
    }
    if spec.status == 201:
        success["headers"]["Location"] = HEADERS["Location"] | {"required": True}
    found = {str(spec.status): success}
    if spec.dry_run_returns is not None:
        judged = schema_of(spec.dry_run_returns, output=True, definitions=definitions)
        if spec.status == 200:
            success["content"]["application/json"] = {"schema": {"anyOf": [schema, judged]}}
        else:
            found["200"] = {
                "description": "What would come of it: a dry run.",
                "headers": _headers("X-Request-ID"),
                "content": {"application/json": {"schema": judged}},
            }
    for status, codes in entry.error_codes.items():
        found[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}.",
            "headers": _headers("X-Request-ID", *REFUSAL_HEADERS.get(status, ())),
            "content": PROBLEM_CONTENT,
        }
    return found


def _headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
