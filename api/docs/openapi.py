"""The OpenAPI 3.1 document, generated from the declarations that the request cycle enforces."""

from __future__ import annotations

from http import HTTPStatus

from flask import Flask

from api.body_format import FILE
from api.docs.examples import base_url
from api.docs.json_schema import (
    COMMON,
    SHARED_PARAMETERS,
    Schema,
    body_example,
    parameter,
    parameters,
    response_schema,
    schema_of,
)
from api.docs.registry import DOMAINS, RegisteredEndpoint, registered_endpoints
from api.pages.html import PAGES
from api.response_format import MEDIA_TYPES
from api.serialization import Serializer
from errors import CODES, MAX_ERRORS

PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem details, for every error. Some codes have further members, such as the "
    "conflicts of a refused booking.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "error": {"type": "string", "enum": sorted(CODES), "description": "A stable code."},
        "message": {"type": "string", "description": "The same as detail, for front ends that show it."},
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
FILE_SCHEMAS: dict[str, Schema] = {MEDIA_TYPES["xlsx"]: {"type": "string", "format": "binary"}}
PAGE_CONTENT = {"text/html": {"schema": {"type": "string"}}}
PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
HEADERS: dict[str, Schema] = {
    "X-Request-ID": {"description": "The id of the request in the logs.", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "For each limit: the remaining amount, and the seconds until there is more.",
        "schema": {"type": "string", "examples": ['"default";r=599;t=60']},
    },
    "RateLimit-Policy": {
        "description": "The same limits: their amount, and their window in seconds.",
        "schema": {"type": "string", "examples": ['"default";q=600;w=60']},
    },
    "X-Total-Count": {
        "description": "The number of matching rows.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-Total-Count-Capped": {
        "description": "More rows match than X-Total-Count.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Content-Disposition": {
        "description": "The file name of a CSV or XLSX file.",
        "schema": {"type": "string"},
    },
    "Content-Range": {
        "description": "The position of the rows in the list, and the total.",
        "schema": {"type": "string"},
    },
    "Link": {"description": "The URLs of the first, prev, next and last page.", "schema": {"type": "string"}},
    "ETag": {
        "description": "The version of the row, if it has one, or a digest of the document or chart.",
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The URL of the new row.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "X-Ignored-Members": {
        "description": "The read-only members of the body that differ from the row, or that are hidden.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "This is the response to an earlier request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": {"description": "The authentication scheme.", "schema": {"type": "string"}},
}
LIST_HEADERS = ("X-Total-Count", "X-Total-Count-Capped", "Content-Range", "Link", "Content-Disposition")
RATE_LIMIT_HEADERS = ("RateLimit-Policy", "RateLimit")
ERROR_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
LIST_DESCRIPTION = """A filter that occurs several times matches any of its values.

Also accepted: `_start`, `_end`, `_page`, `_per_page`, `_sort`, `_order`; `filter`, `range` and `sort` as
JSON; `start`, `end` and `timeZone` of FullCalendar, which select rows that overlap the range."""


def openapi_document(app: Flask) -> Schema:
    """Return the OpenAPI document of the application."""
    endpoints = registered_endpoints(app)
    definitions: Schema = {"Problem": PROBLEM, **COMMON}
    paths: Schema = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, definitions)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clinic Management System",
            "version": "1.0.0",
            "description": "The backend of a small clinic. [`GET /`](/) is the reference for people, "
            "[`/docs`](/docs) the console. The examples work in a new clinic after `make demo`.",
            "contact": {"name": "The administrators of this clinic", "url": base_url()},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base_url(), "description": "This server"}],
        "tags": [{"name": name, "description": text} for name, text in DOMAINS.items()],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "parameters": {
                name: parameter(name, schema, summary)
                for name, (schema, summary) in SHARED_PARAMETERS.items()
            },
            "headers": HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "access_token_cookie"},
            },
        },
    }


def _operation(endpoint: RegisteredEndpoint, definitions: Schema) -> Schema:
    spec = endpoint.spec
    operation: Schema = {
        "operationId": endpoint.operation_id,
        "tags": [endpoint.domain],
        "summary": spec.summary,
        "description": _description(endpoint),
        "x-roles": endpoint.roles,
        "security": [] if endpoint.public else [{"bearer": []}, {"cookie": []}],
        "parameters": [_by_reference(each) for each in parameters(endpoint)],
        "responses": _responses(endpoint, definitions),
    }
    if spec.body is not None:
        schema = schema_of(spec.body, output=False, definitions=definitions)
        media = {"schema": schema, "example": body_example(endpoint, definitions)}
        if spec.accepts.has_file:
            media = _with_file(definitions[spec.body.__name__], media)
        operation["requestBody"] = {
            "required": bool(definitions[spec.body.__name__].get("required")),
            "content": dict.fromkeys(spec.accepts.media_types, media),
        }
    elif not spec.accepts.has_members:
        binary: Schema = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {
            "required": True,
            "content": dict.fromkeys(spec.accepts.media_types, binary),
        }
    return operation


def _with_file(fields: Schema, media: Schema) -> Schema:
    """Return the media type of a multipart form: the fields of the body, and a file."""
    file: Schema = {"type": "string", "format": "binary", "description": "The file."}
    schema = fields | {
        "properties": fields["properties"] | {FILE: file},
        "required": [*fields.get("required", []), FILE],
    }
    return {"schema": schema, "example": media["example"] | {FILE: "(the file)"}}


def _by_reference(described: Schema) -> Schema:
    """Return a reference in place of a parameter that all lists share."""
    name = described["name"]
    if name in SHARED_PARAMETERS and described == parameter(name, *SHARED_PARAMETERS[name]):
        return {"$ref": f"#/components/parameters/{name}"}
    return described


def _description(endpoint: RegisteredEndpoint) -> str:
    parts = [endpoint.spec.description, "The same as PATCH." if endpoint.is_put_alias else ""]
    if endpoint.spec.list_spec is not None:
        parts.append(LIST_DESCRIPTION)
    if endpoint.spec.step_up is not None:
        parts.append(f"Callers with a second factor need a step-up: {endpoint.spec.step_up}.")
    parts.append(f"Roles: {', '.join(endpoint.roles)}.")
    return "\n\n".join(part for part in parts if part)


def _responses(endpoint: RegisteredEndpoint, definitions: Schema) -> Schema:
    spec = endpoint.spec
    schema = response_schema(spec, definitions)
    common = ("X-Request-ID", *RATE_LIMIT_HEADERS) if endpoint.is_rate_limited else ("X-Request-ID",)
    names = [*common]
    if spec.list_spec is not None:
        names += LIST_HEADERS
    elif spec.etag or (isinstance(spec.returns, Serializer) and not spec.many):
        names.append("ETag")
    if spec.writes_resource(endpoint.method):
        names.append("X-Ignored-Members")
    if endpoint.idempotent and not spec.secret:
        names.append("Idempotency-Replayed")
    if spec.status in (201, 202):
        names.append("Location")
    success: Schema = {
        "description": spec.summary,
        "headers": _headers(*names),
        "content": {
            media: {
                "schema": schema if media.endswith("json") else FILE_SCHEMAS.get(media, {"type": "string"})
            }
            for media in spec.media_types
        },
    }
    if spec.or_returns is not None:
        other = schema_of(spec.or_returns, output=True, definitions=definitions)
        success["content"]["application/json"] = {"schema": {"anyOf": [schema, other]}}
    responses = {str(spec.status): success}
    if spec.dry_run_returns is not None:
        dry_run = schema_of(spec.dry_run_returns, output=True, definitions=definitions)
        if spec.status == 200:
            success["content"]["application/json"] = {"schema": {"anyOf": [schema, dry_run]}}
        else:
            responses["200"] = {
                "description": "The result of a dry run.",
                "headers": _headers(*common),
                "content": {"application/json": {"schema": dry_run}},
            }
    if spec.etag and (spec.returns is None or len(spec.media_types) > 1):
        responses["304"] = {
            "description": "The client has this document already: `If-None-Match` has its ETag.",
            "headers": _headers(*common, "ETag"),
        }
    for status, codes in endpoint.error_codes.items():
        responses[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}.",
            "headers": _headers(*common, *ERROR_HEADERS.get(status, ())),
            "content": PAGE_CONTENT if endpoint.domain in PAGES else PROBLEM_CONTENT,
        }
    return responses


def _headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
